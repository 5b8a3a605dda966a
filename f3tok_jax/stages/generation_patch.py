# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The program that samples patches, by shapes alone: what it will cost on a chip."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models.transformer import transformer
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import lineage
from f3tok_jax.training import stage


def lower(config: ml_collections.ConfigDict, device: Any, *, num_rows: int = 1) -> stage.Program:
    """Lowers the sampling of the next patches, `CHUNK_PATCHES` of each row, as `f3tok generate` does
    it again and again.

    Caches have room for a sound as long as the examples of training.

    Args:
        config: of a generation run.
        device: to lower for, which need not exist.
        num_rows: sounds that are made together.
    """
    model = pretrained_generation.Model(lineage.Lineage(config=config))
    generator, sound = model.generator, model.run.sound
    weights = jax.eval_shape(
        pretrained_generation.generator_weights,
        model.abstract_params(),
        sharding.unbox(model.abstract()),
    )
    weights = jax.eval_shape(generator.stored, weights)
    text = jax.ShapeDtypeStruct((num_rows, config.text.max_tokens), jnp.int32)
    prompt = jax.ShapeDtypeStruct((num_rows, 0, generator.patch, sound.latent_dim), jnp.float32)
    speech = jax.eval_shape(
        functools.partial(generator.begin, max_patches=config.data.crop_frames // generator.patch),
        weights,
        text,
        jax.ShapeDtypeStruct(text.shape, bool),
        prompt,
        jax.ShapeDtypeStruct((num_rows, 0), bool),
    )
    limit = jax.ShapeDtypeStruct((num_rows,), jnp.int32)
    arguments = (weights, speech, jax.eval_shape(lambda: jax.random.key(0)), limit)
    num_patches = num_rows * generator_lib.CHUNK_PATCHES
    here = jax.sharding.SingleDeviceSharding(device)
    advance = jax.jit(
        functools.partial(
            generator.advance, sampler=model.sampler, num_patches=generator_lib.CHUNK_PATCHES
        ),
        in_shardings=here,
        out_shardings=here,
        donate_argnums=1,
    )
    return stage.Program(
        lowered=advance.lower(*arguments),
        per_batch=num_patches * generator.patch * sound.samples_per_latent / sound.sample_rate,
        model_flops=num_patches * _flops(model),
    )


def _flops(model: pretrained_generation.Model) -> float:
    """Of one patch: of the products with weights, for both branches of guidance and every step.

    What the caches are read for is not counted.
    """
    generator, sampler = model.generator, model.sampler
    head = generator.head
    velocities = 2 * sampler.num_steps * (2 if sampler.solver == "midpoint" else 1)
    sequence = 1 + (head.history + 1) * head.patch
    drawn = velocities * sum(transformer.forward_flops(head, sequence))
    heard = transformer.forward_flops(generator.encoder, generator.patch)[0]
    return drawn + heard + transformer.forward_flops(generator.language_model.transformer, 1)[0]
