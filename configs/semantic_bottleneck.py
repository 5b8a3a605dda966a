# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the semantic-bottleneck stage: LoSATok's SemBo, on features of a frozen semantic encoder.

    python -m f3tok_jax.train --config=configs/semantic_bottleneck.py:tiny \
        --config.semantic_encoder.workdir=runs/semantic_encoder \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/semantic_bottleneck

Presets:
    tiny    minutes on two CPU cores
    base    the published widths but for those of the features; one slice

Shards are of 16 kHz. A comment in brackets says where a value comes from; configs/page.py names the
sources in full and makes configs/VALUES.md of these lines.
"""

import ml_collections

from configs import sections
from configs import semantic_encoder

PRESETS = ("tiny", "base")


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/semantic_bottleneck.py)"
        )
    config = _base(preset)
    if preset == "tiny":
        _make_tiny(config)
    config.preset = preset
    return config


def _base(preset: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "semantic_bottleneck"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    # Steps. [chosen: LoSATok's ablations have as many; of SemBo none are said]
    config.num_steps = 100_000

    config.semantic_encoder = ml_collections.ConfigDict(
        dict(
            workdir="",  # run of the semantic-encoder stage, whose features are the input [yours]
            step=0,  # of its checkpoint; 0 for the newest [yours]
            # Published weights of Dasheng or MiDashengLM in the place of a run, a folder or a file. [yours]
            folder="",
            # Its config, where there is no run to read it from: compile_check needs no weights. [as
            # semantic_encoder.py]
            recipe=semantic_encoder.get_config(preset),
            compute_dtype="float32",  # of its products [LoSATok]
        )
    )
    config.model = ml_collections.ConfigDict(
        dict(
            hidden_dim=512,  # of either half's hidden layer [LoSATok]
            latent_dim=128,  # of what lies between the halves [LoSATok]
            compute_dtype="float32",  # of the products [chosen]
        )
    )
    config.losses = ml_collections.ConfigDict(
        dict(
            weights=dict(
                # Of the distance of directions: 1000 only undoes its mean over 1280 channels. [LoSATok]
                feature_reconstruction=1000.0,
                time_relation=1.0,  # of the distance of cosines between frames [LoSATok]
            )
        )
    )
    config.data = ml_collections.ConfigDict(
        dict(
            train="",  # shard folders, "DIR" or "DIR=weight,DIR=weight", of 16 kHz [yours]
            heldout="",  # shard folders of the evaluation during training; "" for none [yours]
            batch_size=64,  # examples over the whole mesh [chosen: as LoSATok's second stage]
            crop_frames=250,  # features per example, 10 s [chosen: what the encoder hears at once]
            max_replaced=1000,  # unreadable records replaced before the run stops [chosen]
            # Threads per host that prepare batches; more where reading waits for storage. [measured]
            num_threads=1,
        )
    )
    config.optimizer = ml_collections.ConfigDict(
        dict(
            semantic_bottleneck=sections.transformer_optimizer(
                learning_rate=1e-4,  # [chosen: as LoSATok's second stage]
                warmup_steps=1000,
                final_fraction=0.1,
                modules=("down", "up"),
            ),
            ema_decay=0.999,  # of all weights, per step [chosen]
            accumulate=1,  # microbatches per step [chosen]
        )
    )
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=5000)
    config.loop = sections.loop(eval_every=5000, sample_every=1_000_000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores [chosen]."""
    config.num_steps = 1000
    config.model.update(dict(hidden_dim=64, latent_dim=16))
    # As much as 1000 is of 1280 channels.
    config.losses.weights.feature_reconstruction = 75.0
    config.data.update(dict(batch_size=16, crop_frames=100))
    config.optimizer.semantic_bottleneck.update(dict(learning_rate=2e-3, warmup_steps=50))
    config.optimizer.ema_decay = 0.99
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=500))
    config.loop.update(dict(log_every=20, eval_every=500, eval_batches=4))
