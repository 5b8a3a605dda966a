# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A generation stage of toy shapes without a run behind it, a batch for it, and its gradients."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from f3tok_jax.devices import sharding
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.stages import generation as generation_stage
from f3tok_jax.training import players as players_lib
from f3tok_jax.training import stage as stage_lib
from tests.support import tiny_models

RECIPE = str(pathlib.Path(__file__).parents[2] / "configs" / "generation.py") + ":tiny"
_SMALL = tiny_models.overrides(
    representation=dict(
        recipe=dict(
            autoencoder=dict(recipe=dict(model=dict(latent_dim=4))),
            model=tiny_models.SHAPE,
            language_model=dict(shape=tiny_models.LANGUAGE_MODEL),
        )
    ),
    model=tiny_models.SHAPE,
    num_steps=6,
    data=dict(latents=True, batch_size=8, crop_frames=9),
    flow=dict(draws=2),
    text=dict(max_tokens=3),
    packing=dict(examples=1, patches=0, positions=0),
    sampling=dict(num_steps=2),
    optimizer=dict(
        head=dict(warmup_steps=2),
        language_model=dict(warmup_steps=2),
        encoder=dict(warmup_steps=2),
    ),
    mesh=dict(min_shard_size=64),
)
# Nothing random but times and noise.
CALM = tiny_models.overrides(
    flow=dict(condition_drop=0.0, history_drop=0.0, history_noise=0.0), text=dict(drop=0.0)
)
DROPPED = tiny_models.overrides(
    flow=dict(condition_drop=1.0, history_drop=1.0, history_noise=0.2), text=dict(drop=1.0)
)

# Latents of sound, of 9: the first and the seventh fill their rows of four patches to the end.
FRAMES, TEXTS = (9, 6, 7, 5, 4, 2, 8, 3), (3, 2, 0, 3, 1, 2, 3, 0)
NUM_PATCHES = sum(count // 2 for count in FRAMES)


def make_config(*more: str):
    return config_lib.read(RECIPE, [*_SMALL, *more])


def make_model(config) -> pretrained_generation.Model:
    return pretrained_generation.Model(lineage.Lineage(config=config))


def make_batch(*, seed: int = 0, text_seed: int = 0) -> dict[str, np.ndarray]:
    mask = np.arange(9)[None] < np.array(FRAMES)[:, None]
    position = np.arange(3)[None]
    text_mask = position < np.array(TEXTS)[:, None]
    latents = np.random.default_rng(seed).normal(size=(8, 9, 4)) * mask[..., None]
    text = np.random.default_rng(text_seed).integers(1, 11, (8, 3)) * text_mask
    return dict(
        latents=latents.astype(np.float32),
        mask=mask,
        begins=np.ones(8, bool),
        ends=np.ones(8, bool),
        text=text.astype(np.int32),
        text_mask=text_mask,
        answer=text_mask & (position > 0),
    )


def random_frozen(stage: stage_lib.Stage):
    return tiny_models.random_weights(stage.abstract_frozen)


def random_state(stage: stage_lib.Stage):
    """A state of random weights, its optimizers as they begin."""
    shapes = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    params = tiny_models.random_weights(shapes.params, seed=1)
    average = jax.tree.map(jnp.copy, params)  # the state is donated
    return dataclasses.replace(state, params=params, ema_params=average)


@functools.lru_cache
def _descent(*more: str):
    """(stage, state of weights, step), one step of which takes the gradients away, unclipped."""
    config = make_config(*more)
    stage = generation_stage.make_stage(config)
    model = make_model(config)
    state = random_state(stage)
    rate = lambda count: 1.0
    whole = players_lib.Module(start=0, schedule=rate, transformation=optax.sgd(rate))
    options = dict(start=0, clip_norm=math.inf, modules={players_lib.WHOLE: whole})
    optimizers = {name: players_lib.Player(name=name, **options) for name in state.params}
    opt_state = {name: one.init(state.params[name]) for name, one in optimizers.items()}
    step = functools.partial(generation_stage.train_step, model=model, optimizers=optimizers)
    return stage, dataclasses.replace(state, opt_state=opt_state), jax.jit(step)


def gradients_of_step(*more: str, batch=None):
    """Gradients of a step, by player, and its metrics."""
    stage, state, step = _descent(*more)
    after, metrics = step(state, random_frozen(stage), batch or make_batch())
    return jax.device_get(jax.tree.map(jnp.subtract, state.params, after.params)), metrics


def value(metrics, name: str) -> tuple[float, float]:
    total, weight = metrics[name]
    return float(total), float(weight)
