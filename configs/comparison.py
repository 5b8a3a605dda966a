# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of a comparison of autoencoders, all with equal data, steps and seeds.

    python -m f3tok_jax.compare --config=configs/comparison.py:tiny --config.data.train=DIR/train \
        --config.data.heldout=DIR/test --config.language_model.folder=MODEL --workdir=runs/comparison

Presets:
    tiny    16 kHz, an hour of a CPU core for each arm and seed
    base    16 kHz, which semantic encoders hear, the same arms at the size of base
"""

import ml_collections

PRESETS = ("tiny", "base")


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r} (configs/comparison.py)")
    config = ml_collections.ConfigDict()
    config.preset = preset  # name of the preset [fixed]
    # File of a sweep, as seen from this one, whose arms are compared.
    config.arms = f"sweeps/bottleneck_kinds.py:{preset}"
    config.only = ()  # names of arms; () for all
    config.seeds = (0, 1, 2)  # of the training of each arm, whole chains of stages
    config.data = ml_collections.ConfigDict(
        dict(
            train="",  # shard folders of sound, "DIR" or "DIR=weight,DIR=weight" [yours]
            heldout="",  # a shard folder of sound that no stage hears [yours]
        )
    )
    # Hugging Face folder of a qwen2, qwen3 or llama model, frozen [yours]
    config.language_model = ml_collections.ConfigDict(dict(folder=""))
    # Autoencoders of other recipes, arms beside those: by name the recipe, as seen from this file, and
    # what is changed of it, as "key=value". Data, steps and loop are those of `autoencoder`.
    own = "_tiny" if preset == "tiny" else ""
    config.rivals = ml_collections.ConfigDict(
        dict(
            losatok=_stage(f"semantic_autoencoder.py:losatok{own}"),
            dasheng_tokenizer=_stage(f"semantic_autoencoder.py:dasheng_tokenizer{own}"),
        )
    )
    # What else rivals have as `autoencoder` has it: ("discriminators.",) for the same adversaries, where
    # their own recipes have others.
    config.alike = ()
    # Frozen models through which rivals hear, trained with each seed, for all of them, before the first;
    # or a finished run, or published weights, in the place of that.
    config.semantic_encoder = _stage(f"semantic_encoder.py:{preset}")
    config.semantic_encoder.workdir = ""  # run of that stage [yours]
    config.semantic_encoder.folder = ""  # of weights of Dasheng or MiDashengLM [yours]
    config.semantic_bottleneck = _stage(f"semantic_bottleneck.py:{preset}")
    config.semantic_bottleneck.workdir = ""  # run of that stage, on that encoder [yours]
    # Stages that are trained for every arm and seed, each on the one before: the recipe, as seen from
    # this file, and what is changed of it, as "key=value".
    config.autoencoder = _stage("autoencoder.py:" + ("base_16khz" if preset == "base" else preset))
    config.representation = _stage(f"representation.py:{preset}")
    config.generation = _stage(f"generation.py:{preset}")
    # On the autoencoder alone: another generator beside the flow head.
    config.diffusion_transformer = _stage(f"diffusion_transformer.py:{preset}")
    config.evaluation = ml_collections.ConfigDict(
        dict(
            # A shard folder of sound that is scored, of other speakers and packages, say; "" for
            # data.heldout, whose texts are said [yours]
            heldout="",
            num_examples=48,  # of it, of which reconstructions are scored
            judges="none",  # published judges: "all", "none", or names with commas
            judge_examples=8,  # that they hear in every row
            num_texts=24,  # of data.heldout, that are said
        )
    )
    config.probe = ml_collections.ConfigDict(
        dict(
            labels=("language", "instrument"),  # that records of `train` have
            train="",  # shard folders of sound with labels, with commas; "" for those of data.train
            heldout="",  # a shard folder of sound with labels; "" for data.heldout
            pooling="mean_std",  # of frames over time
        )
    )
    if preset == "base":
        # Dasheng's 0.6B, whose features both rivals are made for. [LoSATok]
        sizes = ("model.num_layers=32", "model.width=1280", "model.num_heads=16")
        config.semantic_encoder.changes = sizes
    if preset == "tiny":
        config.autoencoder.changes = ("num_steps=600",)
        config.representation.changes = ("num_steps=300",)
        config.generation.changes = ("num_steps=300",)
        config.diffusion_transformer.changes = ("num_steps=300",)
    return config


def _stage(recipe: str) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(dict(recipe=recipe, changes=()))
