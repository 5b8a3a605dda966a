# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs behind semantic autoencoders, of random weights and little width; and configs of those on them."""

import json
import pathlib

import ml_collections
import numpy as np
from safetensors import numpy as safetensors_numpy

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
    discriminators=dict(stft_windows=(256,), stft_channels=32),
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


def tensors() -> dict[str, np.ndarray]:
    """Random weights in Dasheng's layout, without its package."""
    rng, width = np.random.default_rng(0), 8
    shapes = {
        **{
            f"init_bn.1.{kind}": (64,) for kind in ("weight", "bias", "running_mean", "running_var")
        },
        **{"patch_embed.proj.weight": (width, 1, 64, 4), "patch_embed.proj.bias": (width,)},
        **{"time_pos_embed": (1, width, 1, 12), "freq_pos_embed": (1, width, 1, 1)},
        **{f"norm.{kind}": (width,) for kind in ("weight", "bias")},
    }
    for name, shape in {
        **{"norm1": (width,), "norm2": (width,)},
        **{"attn.qkv": (3 * width, width), "attn.proj": (width, width)},
        **{"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)},
    }.items():
        shapes |= {f"blocks.0.{name}.weight": shape, f"blocks.0.{name}.bias": shape[:1]}
    return {name: rng.uniform(0.1, 1.0, shape).astype(np.float32) for name, shape in shapes.items()}


def write_weights(folder: pathlib.Path, tensors, config=None) -> pathlib.Path:
    """A folder of published weights; returns it."""
    folder.mkdir(exist_ok=True)
    safetensors_numpy.save_file(tensors, folder / "model.safetensors")
    config = {"num_heads": 2} if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


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
