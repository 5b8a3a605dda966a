# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A batch of examples of different lengths is worth its examples one by one: padding is not judged.

In both dtypes. Another order of sums is all that may differ: in float32 1.6e-6 of the gradient's norm
or less are measured, in bfloat16, which rounds by up to 2^-9, 2.3e-3 to 4.3e-3. The autoencoder's is
5.3e-2 there: a bias of its convolutions gets a sum over all positions, which XLA for CPU makes in
bfloat16 (0.2 of such a bias's gradient; of a kernel's 4e-3 to 2e-2).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.stages import autoencoder as autoencoder_stage
from f3tok_jax.stages import autoencoder_loss
from f3tok_jax.stages import generation as generation_stage
from f3tok_jax.stages import generation_loss
from f3tok_jax.stages import language_model as language_model_stage
from f3tok_jax.stages import representation as representation_stage
from f3tok_jax.stages import representation_loss
from tests.support import tiny_generation
from tests.support import tiny_models
from tests.support import tiny_representation

_BOUNDS = {"float32": 1e-5, "bfloat16": 2e-2}  # of the norm of the gradient
_OF_CONVOLUTIONS = {"float32": 1e-5, "bfloat16": 0.15}


def _representation(dtype: str):
    config = tiny_representation.make_config(
        f"--config.model.compute_dtype={dtype}", f"--config.language_model.compute_dtype={dtype}"
    )
    stage, model = representation_stage.make_stage(config), tiny_representation.make_model(config)
    shapes = jax.eval_shape(stage.init_state, jax.random.key(0)).params["encoder"]
    frozen = tiny_representation.random_frozen(stage)
    options = dict(model=model, is_supervised=True, noise_key=None)

    def loss(params, batch, totals):
        return representation_loss.total_loss(params, frozen, batch, totals, **options)[0]

    totals = functools.partial(representation_loss.batch_totals, model=model)
    return loss, totals, tiny_models.random_weights(shapes), tiny_representation.make_batch()


def _generation(dtype: str):
    config = tiny_generation.make_config(
        *tiny_generation.CALM,
        f"--config.model.compute_dtype={dtype}",
        f"--config.language_model.compute_dtype={dtype}",
    )
    stage, model = generation_stage.make_stage(config), tiny_generation.make_model(config)
    frozen = tiny_generation.random_frozen(stage)
    options = dict(model=model, key=jax.random.key(0), is_training=True)

    def loss(params, batch, totals):
        return generation_loss.total_loss(params, frozen, batch, totals, **options)[0]

    totals = functools.partial(generation_loss.batch_totals, model=model)
    batch = tiny_generation.make_batch()
    return loss, totals, tiny_generation.random_state(stage).params, batch


def _language_model(dtype: str):
    model = language_model_stage.language_model_lib.make(
        tiny_models.LANGUAGE_MODEL
        | dict(model_type="qwen3", rms_norm_eps=1e-6, rope_theta=1e4, tie_word_embeddings=True),
        compute_dtype=dtype,
        remat="none",
    )
    params = tiny_models.random_weights(
        language_model_stage.language_model_lib.abstract_params(model)
    )
    mask = np.arange(9)[None] < np.array(tiny_generation.FRAMES)[:, None]
    text = np.random.default_rng(0).integers(1, 11, (8, 9)) * mask
    batch = dict(text=text, segments=1 * mask, scored=1 * mask)
    batch = {name: value.astype(np.int32) for name, value in batch.items()}

    def loss(params, batch, totals):
        return language_model_stage.score(model, params, batch)[0] / totals

    def totals(batch):
        return jnp.sum(language_model_stage._targets(batch)[1] > 0, dtype=jnp.float32)

    return loss, totals, params, batch


def _even_draw(key, target):
    """A draw that depends on its patch alone."""
    time = jax.nn.sigmoid(jnp.sum(target, axis=(1, 2)))
    noise, t = jnp.sin(7.0 * target), time[:, None, None]
    return flow_loss.Draw(time=time, noisy=t * target + (1 - t) * noise, velocity=target - noise)


_SAMPLES = (2560, 1920, 640, 1300, 2000, 2560, 800, 1700)  # of four latents, 2,560


def _autoencoder(dtype: str):
    # A decoder that looks ahead, as in all presets, must not hear the silence of a longer row.
    config = tiny_models.config(strides=((4, 4),), compute_dtype=dtype, decoder_lookahead=1)
    config.losses.update(dict(mel_windows=(64, 256), mel_bands=(10, 20)))
    config.data.crop_frames = 4
    stage = autoencoder_stage.make_stage(config)
    model = autoencoder_stage.Model(
        autoencoder=pretrained_autoencoder.make(config), discriminators=None, config=config
    )

    def loss(params, batch, totals):
        waveform, coded = model.reconstruct(params, batch)
        floor = config.losses.mel_floor
        terms = autoencoder_loss.terms(waveform, batch["mask"], config, mel_floor=floor)
        return terms["mel"](coded.reconstruction)[0] / totals

    def totals(batch):
        return jnp.sum(batch["mask"], dtype=jnp.float32)

    shapes = jax.eval_shape(stage.init_state, jax.random.key(0)).params["generator"]
    mask = np.arange(2560)[None] < np.array(_SAMPLES)[:, None]
    waveform = 0.1 * np.random.default_rng(0).normal(size=mask.shape).astype(np.float32) * mask
    params = tiny_models.random_weights(shapes)
    return loss, totals, params, dict(waveform=waveform, mask=mask)


def _long(batch, row: int) -> int:
    """How much of a row is valid."""
    mask = batch["mask"] if "mask" in batch else batch["segments"] > 0
    return int(mask[row].sum())


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "stage",
    [
        _autoencoder,
        _representation,
        pytest.param(_generation, marks=pytest.mark.slow),
        _language_model,
    ],
)
def test_a_batch_is_its_examples_one_by_one(stage, dtype, monkeypatch):
    monkeypatch.setattr(flow_loss, "draw", _even_draw)
    bound = (_OF_CONVOLUTIONS if stage is _autoencoder else _BOUNDS)[dtype]
    loss, totals_of, params, batch = stage(dtype)
    totals = jax.jit(totals_of)(batch)
    step = jax.jit(jax.value_and_grad(loss))
    whole = step(params, batch, totals)
    parts = []
    timed = [
        name for name in batch if name in ("latents", "waveform", "mask") or "segments" in batch
    ]
    for row in range(8):
        # Without any padding; each length is a program of its own, so of one of them alone.
        length = _long(batch, row) if row == 3 else None
        part = {
            name: value[row : row + 1, :length] if name in timed else value[row : row + 1]
            for name, value in batch.items()
        }
        parts.append(step(params, part, totals))
    summed = jax.tree.map(lambda *leaves: sum(leaf.astype(jnp.float32) for leaf in leaves), *parts)
    assert float(summed[0]) == pytest.approx(float(whole[0]), rel=bound)
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, whole[1], summed[1]))
    assert float(apart) < bound * float(optax.tree.norm(summed[1]))
    assert float(optax.tree.norm(summed[1])) > 0
