# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the diffusion-transformer stage: text to audio by UniFlow-Audio's protocol, on any latents.

    python -m f3tok_jax.train --config=configs/diffusion_transformer.py:tiny \
        --config.autoencoder.workdir=runs/autoencoder --config.language_model.folder=MODEL \
        --config.data.latents=True --config.data.train=LATENTS/train --config.data.heldout=LATENTS/test \
        --workdir=runs/diffusion_transformer

Presets:
    tiny    minutes on two CPU cores, on the tiny autoencoder
    base    UniFlow-Audio's small; one host of v6e or v5p, 16 chips of v5e, and more; on Qwen3-0.6B

A comment in brackets says where a value comes from; configs/page.py names the sources in full and
makes configs/VALUES.md of these lines.
"""

import ml_collections

from configs import autoencoder
from configs import sections

PRESETS = ("tiny", "base")


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/diffusion_transformer.py)"
        )
    config = _base(preset)
    if preset == "tiny":
        _make_tiny(config)
    config.preset = preset
    return config


def _base(preset: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "diffusion_transformer"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    # Steps. [chosen: UniFlow-Audio has 1,200,000 of 24 examples a device]
    config.num_steps = 200_000

    config.autoencoder = ml_collections.ConfigDict(
        dict(
            workdir="",  # run of the autoencoder stage, whose latents are made [yours]
            step=0,  # of its checkpoint; 0 for the newest [yours]
            # Its config, where there is no run to read it from: compile_check needs no weights. [as
            # autoencoder.py]
            recipe=autoencoder.get_config(preset),
        )
    )
    # Whose states of a text are attended to. [chosen: UniFlow-Audio has the encoder of Flan-T5-large]
    config.language_model = sections.frozen_language_model(
        remat="none"  # no gradient passes through it [chosen]
    )
    config.model = ml_collections.ConfigDict(
        dict(  # 210 M parameters; UniFlow-Audio has 208 M
            # Blocks: attention in both directions, to the text, SwiGLU. [UniFlow-Audio: small; ours
            # have no long skips]
            num_layers=17,
            width=768,  # of a position [UniFlow-Audio: small]
            hidden_width=3072,  # of a block's SwiGLU [UniFlow-Audio: four times the width]
            num_heads=6,  # of queries [chosen: width / head_dim; UniFlow-Audio has 12]
            num_kv_heads=6,  # of keys and values [chosen: no sharing]
            head_dim=128,  # the lanes of a TPU [measured; UniFlow-Audio has 64]
            rope_theta=10_000.0,  # base of the rotary positions' wavelengths [chosen: usual]
            norm_epsilon=1e-6,  # added to the mean square [Qwen3]
            qk_norm=True,  # norm of queries and keys, per head [UniFlow-Audio]
            # Of each block's own part of the shifts, scales and gates by time. [UniFlow-Audio]
            modulation_rank=32,
            # What the backward pass computes again: "none", "dots", "attention" or "block". [measured: a
            # tenth of the FLOPs less than "attention", and fits]
            remat="dots",
            compute_dtype="bfloat16",  # of the products; parameters stay float32 [chosen]
        )
    )
    config.flow = ml_collections.ConfigDict(
        dict(
            condition_drop=0.2,  # share of examples without their text, for guidance [UniFlow-Audio]
        )
    )
    config.sampling = ml_collections.ConfigDict(
        dict(  # of evaluation
            num_steps=50,  # of the solver [UniFlow-Audio]
            solver="euler",  # or "midpoint" [UniFlow-Audio]
            # -1: small steps near the noise; 0: equal ones. [UniFlow-Audio]
            sway=0.0,
            guidance=3.5,  # 1 is the condition alone [UniFlow-Audio: without its rescaling]
            temperature=1.0,  # standard deviation of the noise [UniFlow-Audio]
            # Frames to mean 0, rms 1, as the autoencoder's are; nothing where they are not. [NextStep]
            renormalize=True,
        )
    )
    config.text = ml_collections.ConfigDict(
        dict(
            # Of an instruction with its text. [measured: as supervision.max_tokens of the
            # representation stage]
            max_tokens=160,
            # Share of each task among the examples that have what it asks for. [chosen: as generation.py]
            tasks={**sections.tasks(), "language": 0.0, "instrument": 0.0, "event": 0.0},
        )
    )
    config.data = sections.data_of_latents(
        batch_size=256,  # examples over the whole mesh [chosen: UniFlow-Audio has 24 a device]
    )
    # Of which the rms of latents that have no norm is measured, about. [chosen: as representation.py]
    config.data.statistics_frames = 500_000
    config.optimizer = ml_collections.ConfigDict(
        dict(
            diffusion_transformer=sections.transformer_optimizer(
                learning_rate=1e-4,  # the largest, after the warm-up [UniFlow-Audio]
                warmup_steps=10_000,  # steps from 0 to the largest [UniFlow-Audio]
                final_fraction=0.0,  # of the learning rate, at the end [UniFlow-Audio: on a straight line]
            )
            | {
                "weight_decay": 0.01
            },  # of what config.decays names, times the learning rate [UniFlow-Audio]
            ema_decay=0.9995,  # of all weights, per step [RAE]
            accumulate=1,  # microbatches per step [chosen]
        )
    )
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=2000)
    config.loop = sections.loop(eval_every=2000, sample_every=1_000_000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores, on the tiny autoencoder [chosen]."""
    config.num_steps = 1000
    config.language_model.compute_dtype = "float32"
    config.language_model.shape.update(sections.TINY_LANGUAGE_MODEL)
    config.model.update(
        dict(
            num_layers=4,
            width=128,
            hidden_width=384,
            num_heads=4,
            num_kv_heads=4,
            head_dim=32,
            modulation_rank=8,
            remat="none",
            compute_dtype="float32",
        )
    )
    config.text.max_tokens = 64
    # The embedded clips are up to 6 s long.
    config.data.update(dict(batch_size=16, crop_frames=150, statistics_frames=40_000))
    config.optimizer.diffusion_transformer.update(dict(learning_rate=1e-3, warmup_steps=20))
    config.optimizer.ema_decay = 0.99
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=200))
    config.loop.update(dict(log_every=20, eval_every=200, eval_batches=4))
