# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs behind semantic autoencoders, of random weights and little width; and configs of those on them."""

import pathlib

import ml_collections

from f3tok_jax.pretrained import semantic_encoder as pretrained
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import frozen_file
from tests.support import tiny_models
from tests.support import tiny_runs

WIDTH = 16  # of features
KINDS = ("losatok", "dasheng_tokenizer")
_ENCODER = tiny_models.overrides(model=dict(num_layers=1, width=WIDTH, num_heads=2))
_BOTTLENECK = tiny_models.overrides(model=dict(hidden_dim=8, latent_dim=4))
_SMALL = tiny_models.overrides(
    num_steps=24,
    model=dict(
        num_mels=16,
        feature_dim=WIDTH,
        bottleneck_dim=8,
        decoder_width=12,
        decoder_hidden_width=16,
        decoder_blocks=1,
    ),
    losses=dict(mel_windows=(64, 256), mel_bands=(10, 20)),
    discriminators=dict(stft_windows=(128,), stft_channels=4),
    data=dict(batch_size=8, crop_frames=8),
    optimizer=dict(
        generator=dict(warmup_steps=2, learning_rate=1e-2),
        discriminator=dict(warmup_steps=2),
    ),
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=20),
    loop=dict(log_every=1, eval_every=12, eval_batches=1, sample_every=24),
)
_LATENTS = {"losatok": 4, "dasheng_tokenizer": WIDTH}


def write_encoder(workdir: pathlib.Path, *changes: str) -> str:
    """A run of the semantic encoder's stage; returns its folder."""
    config = _read("semantic_encoder.py:tiny", *_ENCODER, *changes)
    bands = [0.0] * config.model.num_mels
    workdir.mkdir(parents=True, exist_ok=True)
    measured = {pretrained.MEAN: bands, pretrained.VARIANCE: [400.0] * len(bands)}
    run_folder.settle_frozen(str(workdir), {}, lambda: measured)
    tiny_runs.write(config, str(workdir))
    assert frozen_file.read(str(workdir), "")["measured"] == measured
    return str(workdir)


def write_bottleneck(workdir: pathlib.Path, encoder: str, *changes: str) -> str:
    """A run of the semantic bottleneck's stage on it; returns its folder."""
    named = f"--config.semantic_encoder.workdir={encoder}"
    tiny_runs.write(
        _read("semantic_bottleneck.py:tiny", *_BOTTLENECK, named, *changes), str(workdir)
    )
    return str(workdir)


def named(kind: str, root: pathlib.Path) -> tuple[str, ...]:
    """What a config of a kind names, of runs that lie in a folder under their stages."""
    stages = {"losatok": "semantic_bottleneck", "dasheng_tokenizer": "semantic_encoder"}
    return (f"{stages[kind]}.workdir={root / stages[kind]}",)


def read(kind: str, *changes: str) -> ml_collections.ConfigDict:
    """The recipe of one of KINDS at that width, with "key=value" changed."""
    own = f"--config.model.latent_dim={_LATENTS[kind]}"
    given = [f"--config.{change}" for change in changes]
    return _read(f"semantic_autoencoder.py:{kind}_tiny", *_SMALL, own, *given)


def _read(recipe: str, *changes: str) -> ml_collections.ConfigDict:
    return config_lib.read(str(tiny_runs.CONFIGS / recipe), [*changes])
