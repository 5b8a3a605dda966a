# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A batch of examples of different lengths is worth its examples one by one: padding is not judged.

Another order of sums is all that may differ: less than 1e-4 of the gradient's norm in float32;
in bfloat16, which rounds at 2^-8, less than 2e-2.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from f3tok_jax.stages import language_model as language_model_stage
from f3tok_jax.stages import representation as representation_stage
from f3tok_jax.stages import representation_loss
from tests.support import tiny_generation
from tests.support import tiny_models
from tests.support import tiny_representation

_BOUNDS = {"float32": 1e-4, "bfloat16": 2e-2}  # of the norm of the gradient


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


def _long(batch, row: int) -> int:
    """How much of a row is valid."""
    mask = batch["mask"] if "mask" in batch else batch["segments"] > 0
    return int(mask[row].sum())


@pytest.mark.parametrize(
    "stage, dtype",
    [(_representation, "float32"), (_language_model, "float32"), (_language_model, "bfloat16")],
)
def test_a_batch_is_its_examples_one_by_one(stage, dtype):
    loss, totals_of, params, batch = stage(dtype)
    totals = jax.jit(totals_of)(batch)
    step = jax.jit(jax.value_and_grad(loss))
    whole = step(params, batch, totals)
    parts = []
    timed = [name for name in batch if name in ("latents", "mask") or "segments" in batch]
    for row in range(8):
        # Without any padding; each length is a program of its own, so of four lengths alone.
        length = _long(batch, row) if row < 4 else None
        part = {
            name: value[row : row + 1, :length] if name in timed else value[row : row + 1]
            for name, value in batch.items()
        }
        parts.append(step(params, part, totals))
    summed = jax.tree.map(lambda *leaves: sum(leaf.astype(jnp.float32) for leaf in leaves), *parts)
    assert float(summed[0]) == pytest.approx(float(whole[0]), rel=_BOUNDS[dtype])
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, whole[1], summed[1]))
    assert float(apart) < _BOUNDS[dtype] * float(optax.tree.norm(summed[1]))
    assert float(optax.tree.norm(summed[1])) > 0
