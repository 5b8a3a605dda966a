# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of a comparison of autoencoders, all with equal data, steps and seeds.

    python -m f3tok_jax.compare --config=configs/comparison.py:tiny --config.data.train=DIR/train \
        --config.data.heldout=DIR/test --config.language_model.folder=MODEL --workdir=runs/comparison

Presets:
    tiny    16 kHz, an hour of a CPU core for each arm and seed
    base    24 kHz, the same arms at the size of base
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
    # Stages that are trained for every arm and seed, each on the one before: the recipe, as seen from
    # this file, and what is changed of it, as "key=value".
    config.autoencoder = _stage(f"autoencoder.py:{preset}")
    config.representation = _stage(f"representation.py:{preset}")
    config.generation = _stage(f"generation.py:{preset}")
    config.evaluation = ml_collections.ConfigDict(
        dict(
            num_examples=48,  # of held-out sound, of which reconstructions are scored
            judges="none",  # published judges: "all", "none", or names with commas
            judge_examples=8,  # that they hear in every row
            num_texts=24,  # of held-out sound, that are said
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
    if preset == "tiny":
        config.autoencoder.changes = ("num_steps=600",)
        config.representation.changes = ("num_steps=300",)
        config.generation.changes = ("num_steps=300",)
    return config


def _stage(recipe: str) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(dict(recipe=recipe, changes=()))
