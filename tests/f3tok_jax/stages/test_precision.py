# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A step of training in bfloat16 says what it says in float32: losses, and every module's gradient.

The modules are base's, of all kinds that it has, at the smallest widths; weights, batch and draws are
the same in both dtypes. What is compared is what the optimizers get.
"""

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import optimizer
from f3tok_jax.training import stage as stage_lib
from tests.support import tiny_models

_DTYPES = ("float32", "bfloat16")
_RECIPES = pathlib.Path(__file__).parents[3] / "configs"
_SHAPE = dict(num_layers=2, width=32, hidden_width=64, num_heads=2, num_kv_heads=2, head_dim=16)
_LANGUAGE_MODEL = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    vocab_size=64,
    max_position_embeddings=128,
)
_LATENTS = dict(latents=True, batch_size=8, crop_frames=16)
_REPRESENTATION = dict(
    autoencoder=dict(recipe=dict(model=dict(latent_dim=8))),
    model=_SHAPE | dict(window=6),
    language_model=dict(shape=_LANGUAGE_MODEL),
    rq=dict(codebook_size=32, num_codebooks=2, code_dim=4),
)
_AUTOENCODER = dict(
    model=dict(
        strides=((2, 2), (2, 3)),
        encoder_channels=(32, 32),
        decoder_channels=(32, 32),
        latent_dim=8,
    ),
    discriminators=dict(
        periods=(2, 3), period_channels=(16, 16), stft_windows=(512,), stft_channels=16
    ),
    losses=dict(adversarial_crop=0, mel_windows=(128, 512, 2048), mel_bands=(10, 40, 160)),
    data=dict(batch_size=4, crop_frames=3),
    optimizer=dict(discriminator=dict(start=1.0)),
)
# Recipe and preset, and what is smaller than there; what may be trained is.
_SMALLER = {
    "autoencoder": ("autoencoder:base", _AUTOENCODER),
    "language_model": (
        "language_model:base",
        dict(model=dict(shape=_LANGUAGE_MODEL), data=dict(batch_size=4, length=32)),
    ),
    "representation": (
        "representation:base",
        _REPRESENTATION
        | dict(
            supervision=dict(max_tokens=6),
            packing=dict(frames=40, positions=64),
            data=_LATENTS,
            optimizer=dict(encoder=dict(modules=dict(projector=dict(start=0.0)))),
        ),
    ),
    "generation": (
        "generation:base",
        dict(
            representation=dict(train="encoder", recipe=_REPRESENTATION),
            language_model=dict(train="all"),
            model=_SHAPE | dict(row=64),
            flow=dict(draws=2, text_weight=0.1),
            text=dict(max_tokens=6),
            packing=dict(patches=24, positions=64),
            data=_LATENTS,
        ),
    ),
}


def _make(name: str, dtype: str) -> stage_lib.Stage:
    recipe, smaller = _SMALLER[name]
    file, preset = recipe.split(":")
    dtypes = {"model.compute_dtype": dtype}
    if file == "autoencoder":
        dtypes["discriminators.compute_dtype"] = dtype
    elif file != "language_model":
        dtypes["language_model.compute_dtype"] = dtype
    if file == "generation":
        dtypes["representation.recipe.model.compute_dtype"] = dtype
    more = [f"--config.{key}={value}" for key, value in dtypes.items()]
    config = config_lib.read(
        f"{_RECIPES / file}.py:{preset}", [*tiny_models.overrides(**smaller), *more]
    )
    return registry.of(file).make(config)


def _weights(abstract: Any, seed: int) -> Any:
    """Of about the size that initialisers give; as bfloat16 has them, in the dtype of the tree."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape) / math.sqrt(max(1, math.prod(leaf.shape[-2:-1])))
        if path[-1].key in ("scale", "gain", "embedding_rms"):
            values = 1.0 + 0.1 * values
        if path[-1].key == "std":
            values = np.ones(leaf.shape)
        return jnp.asarray(values, jnp.bfloat16).astype(leaf.dtype)

    return jax.tree.map_with_path(draw, sharding.unbox(abstract))


def _batch(stage: stage_lib.Stage) -> dict[str, np.ndarray]:
    """Examples of every length from half of a row on."""
    rng, batch = np.random.default_rng(2), {}
    for name, spec in stage.batch_spec.items():
        rows, width = spec.shape[0], math.prod(spec.shape[1:2])
        lengths = np.linspace(width // 2, width, rows).astype(int)
        valid = np.arange(width)[None] < lengths[:, None]
        if name in ("latents", "waveform"):
            sound = rng.normal(size=spec.shape) * (0.1 if name == "waveform" else 1.0)
            batch[name] = sound * valid.reshape(valid.shape + (1,) * (len(spec.shape) - 2))
        elif name in ("begins", "ends"):
            batch[name] = np.ones(spec.shape, bool)
        elif name == "text":
            batch[name] = rng.integers(1, 60, spec.shape) * valid
        elif name == "answer":
            batch[name] = valid & (np.arange(width) > 0)
        else:  # "mask", "text_mask", "segments", "scored"
            batch[name] = valid
    return {name: value.astype(stage.batch_spec[name].dtype) for name, value in batch.items()}


@functools.lru_cache
def _program(name: str, dtype: str) -> tuple[Any, ...]:
    """A stage's step that gives (gradients, metrics) as the optimizers get them; state, frozen, batch."""
    stage = _make(name, dtype)
    shapes = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    params = _weights(shapes.params, seed=0)
    if "head" in params:  # what else is trained is a difference, which begins at zero
        small = lambda player: jax.tree.map(lambda leaf: 0.1 * leaf, params[player])
        params |= {player: small(player) for player in params if player != "head"}
    frozen = _weights(stage.abstract_frozen or {}, seed=1)
    step = jax.jit(stage.train_step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer, "finish_step", lambda state, grads, metrics, **_: (grads, metrics))
        state, batch = state.replace(params=params), _batch(stage)
        return step.lower(state, frozen, batch).compile(), state, frozen, batch


def _take(name: str, dtype: str, step: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Gradients by module, and the metrics' values."""
    program, state, *rest = _program(name, dtype)
    state = state.replace(step=jnp.full_like(state.step, step))
    grads, metrics = jax.device_get(program(state, *rest))
    modules = {f"{player}/{name}": tree for player in grads for name, tree in grads[player].items()}
    return modules, {key: total / weight for key, (total, weight) in metrics.items() if weight}


def _norm(tree: Any) -> float:
    return float(optax.tree.norm(tree))


# (the largest error of a loss, 1 - the least cosine of a module's gradient, the largest error of its
# norm). Beside each what is measured, three to five times less: which way a value is rounded differs
# from processor to processor. bfloat16 rounds by up to 2^-9, 2e-3, and a gradient that passes n layers
# is off by about the root of n of it; the longest way is the projector's and the encoder's, through
# the language model.
_BOUNDS = {
    ("autoencoder", 0): (5e-4, 2e-4, 1e-2),  # 8.3e-5, 5.9e-5, 1.7e-3
    ("autoencoder", 1): (3e-3, 5e-4, 2e-2),  # 7.7e-4, 1.4e-4, 5.9e-3; the discriminators join
    ("language_model", 0): (5e-4, 5e-4, 1e-2),  # 6.3e-5, 1.5e-4, 2.0e-3
    ("representation", 0): (3e-3, 5e-3, 4e-2),  # 6.8e-4, 1.2e-3, 1.4e-2
    ("generation", 0): (6e-3, 2e-3, 3e-2),  # 1.9e-3, 6.0e-4, 1.0e-2
}
# These are longer in compiling than what remains.
_SLOW = {name: [pytest.mark.slow] for name in ("autoencoder", "representation", "generation")}


@pytest.mark.parametrize(
    "name, step", [pytest.param(*key, marks=_SLOW.get(key[0], [])) for key in _BOUNDS]
)
def test_a_step_in_bfloat16_is_that_in_float32(name, step):
    (exact, losses), (found, rounded) = (_take(name, dtype, step) for dtype in _DTYPES)
    of_loss, of_cosine, of_norm = _BOUNDS[name, step]
    assert losses.keys() == rounded.keys() and exact.keys() == found.keys()
    compared = {key for key in losses if _is_loss(key)}
    assert compared
    for key in compared:
        assert rounded[key] == pytest.approx(losses[key], rel=of_loss), key
    for module, gradient in exact.items():
        norms = _norm(gradient), _norm(found[module])
        if norms[0] == 0:  # of what has not joined
            assert norms[1] == 0 and (module.split("/")[0], step) == ("discriminator", 0)
            continue
        cosine = float(optax.tree.vdot(gradient, found[module])) / (norms[0] * norms[1])
        assert 1 - cosine < of_cosine, module
        assert abs(norms[1] / norms[0] - 1) < of_norm, module


def _is_loss(metric: str) -> bool:
    names = ("mel", "adversarial", "feature_matching", "discriminator", "loss")
    return metric in names or "_loss" in metric
