# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Attention within rows that a TPU's fast memory holds whole, one kernel forward and one backward.

Queries and keys arrive as they leave their projections: their norms, their rotation and the
gradients of both are part of the kernels, because as operations of their own they read and write
all heads once more each, which costs more than attention itself.

Unlike with the kernels that come with JAX, a row is one step of the kernel's loop, whose overhead is
that of a hundred thousand scores, and no statistics are written 128 times. What a step computes is
in `attention_tiles`.

Letters in shapes are those of `attention`.
"""

import functools

import jax
from jax import ad_checkpoint
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from f3tok_jax.models.transformer import attention_tiles

# Of a step, those of all rows and heads of keys together; more where one row has more.
_POSITIONS = 1024
# Of the heads of queries of one head of keys in a step, at most if they are several.
_QUERIES = 2048
# Bytes of vector memory that a kernel may take where several steps share a head of keys, whose
# gradients they write in float32: at little effort more than the compiler's own limit of 16 MiB.
_MEMORY = 24 * 2**20


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    scales: tuple[jax.Array, jax.Array],
    rotation: tuple[jax.Array, jax.Array],
    segments: jax.Array,
    shape: attention_tiles.Shape,
) -> jax.Array:
    """Norm, rotation and attention.

    Args:
        query: [b, h, t, d], as it leaves its projection.
        key: [b, g, t, d], likewise.
        value: [b, g, t, d].
        scales: [d] float32 each, of the norms of queries and keys; not read without norms.
        rotation: cosines and sines [b or 1, t, d] float32; positions are given, so that these get
            no gradient.
        segments: [b, t] int32.
        shape: of the kernels.

    Returns:
        [b, h, t, d] in the query's dtype.
    """
    return _attend(query, key, value, scales, rotation, segments, shape)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attend(query, key, value, scales, rotation, segments, shape):
    return _run_forward(query, key, value, scales, rotation, segments, shape)


def _forward(query, key, value, scales, rotation, segments, shape):
    output, total = _run_forward(query, key, value, scales, rotation, segments, shape)
    total = ad_checkpoint.checkpoint_name(total, shape.total)
    return (output, total), (query, key, value, scales, rotation, segments, total)


def _backward(shape, residuals, gradients):
    return _run_backward(*residuals, gradients[0], shape)


_attend.defvjp(_forward, _backward)


def _run_forward(query, key, value, scales, rotation, segments, shape):
    """Output [b, h, t, d], and [b, h, 1, t] float32: the log2 of what each query divides by."""
    arrays = _Arrays(query, key, rotation)
    return arrays.call(
        "rows_forward",
        attention_tiles.forward,
        shape,
        num_products=2,
        inputs=[query, key, value, *_shared(scales, rotation, segments)],
        specs=[arrays.query, arrays.key, arrays.key, *arrays.shared],
        outputs=[
            (jax.ShapeDtypeStruct(query.shape, query.dtype), arrays.query),
            (
                jax.ShapeDtypeStruct((*query.shape[:2], 1, query.shape[2]), jnp.float32),
                arrays.total,
            ),
        ],
    )


def _run_backward(query, key, value, scales, rotation, segments, total, gradient, shape):
    """Gradients of all inputs of `_attend` but the shape; None of what has none."""
    arrays = _Arrays(query, key, rotation)
    batch, groups, length, width = key.shape
    sums = jax.ShapeDtypeStruct((*arrays.grid, 2, width), jnp.float32)
    to_keys = jax.ShapeDtypeStruct(
        (batch, groups * arrays.sharing, length, width),
        key.dtype if arrays.sharing == 1 else jnp.float32,
    )
    to_query, to_key, to_value, to_scales = arrays.call(
        "rows_backward",
        attention_tiles.backward,
        shape,
        num_products=5,
        inputs=[query, key, value, gradient, total, *_shared(scales, rotation, segments)],
        specs=[
            *(arrays.query, arrays.key, arrays.key, arrays.query, arrays.total),
            *arrays.shared,
        ],
        outputs=[
            (jax.ShapeDtypeStruct(query.shape, query.dtype), arrays.query),
            (to_keys, arrays.to_key),
            (to_keys, arrays.to_key),
            (sums, arrays.sums),
        ],
    )
    if arrays.sharing > 1:
        parts = (batch, groups, arrays.sharing, length, width)
        to_key, to_value = (
            jnp.sum(part.reshape(parts), axis=2).astype(key.dtype) for part in (to_key, to_value)
        )
    to_scales = jnp.sum(to_scales, axis=(0, 1))
    none = jax.tree.map(jnp.zeros_like, rotation)
    return to_query, to_key, to_value, (to_scales[0], to_scales[1]), none, None


def _shared(scales, rotation, segments):
    """What all heads have in common: scales, cosines, sines, segments along lanes and sublanes."""
    cosines, sines = rotation
    half = sines.shape[-1] // 2
    sines = jnp.concatenate([-sines[..., :half], sines[..., half:]], axis=-1)
    return jnp.stack(scales), cosines, sines, segments[:, None, :], segments[:, :, None]


class _Arrays:
    """Grid and blocks: a step has some rows, and of them some heads of keys with their queries.

    Where those are too many for the memory of a step, several steps have the same head of keys.
    """

    def __init__(self, query, key, rotation):
        batch, heads, length, width = query.shape
        groups = key.shape[1]
        per_group = _largest_divisor(heads // groups, _QUERIES // length)
        self.sharing = heads // groups // per_group  # steps that share a head of keys
        group = _largest_divisor(groups, _POSITIONS // length) if self.sharing == 1 else 1
        rows = _largest_divisor(batch, _POSITIONS // (group * length))
        self.grid = batch // rows, groups // group * self.sharing
        per_step = per_group * group
        at_head = lambda row, head: (row, head, 0, 0)
        at_key = lambda row, head: (row, jax.lax.div(head, jnp.int32(self.sharing)), 0, 0)
        at_row = lambda row, head: (row, 0, 0)
        at_first = lambda row, head: (0, 0, 0)
        self.query = pl.BlockSpec((rows, per_step, length, width), at_head)
        self.key = pl.BlockSpec((rows, group, length, width), at_key)
        self.to_key = pl.BlockSpec((rows, group, length, width), at_head)
        self.total = pl.BlockSpec((rows, per_step, 1, length), at_head)
        self.sums = pl.BlockSpec((None, None, 2, width), at_head)
        is_one = rotation[0].shape[0] == 1
        angles = pl.BlockSpec(
            (1 if is_one else rows, length, width), at_first if is_one else at_row
        )
        self.shared = [
            pl.BlockSpec((2, width), lambda row, head: (0, 0)),
            *(angles, angles),
            pl.BlockSpec((rows, 1, length), at_row),
            pl.BlockSpec((rows, length, 1), at_row),
        ]

    def call(self, name, kernel, shape, *, num_products, inputs, specs, outputs):
        """Runs a kernel; `num_products` are those of each tile, for whoever asks what it costs."""
        arrays = [array for array, _ in outputs]
        batch, heads, length, width = arrays[0].shape
        scores = sum(
            (queries.stop - queries.start) * (keys.stop - keys.start)
            for queries, seen in shape.tiles(length)
            for keys, _ in seen
        )
        scores *= batch * heads
        return pl.pallas_call(
            functools.partial(kernel, shape=shape),
            name=name,
            grid=self.grid,
            in_specs=specs,
            out_specs=[spec for _, spec in outputs],
            out_shape=arrays,
            interpret=shape.interpret,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel"),
                vmem_limit_bytes=_MEMORY if self.sharing > 1 else None,
            ),
            cost_estimate=pl.CostEstimate(
                flops=2 * num_products * scores * width,
                transcendentals=scores,
                bytes_accessed=sum(array.size * array.dtype.itemsize for array in inputs + arrays),
            ),
        )(*inputs)


def _largest_divisor(count, limit):
    """Of `count`, at most `limit`, or 1."""
    return next(n for n in range(count, 0, -1) if count % n == 0 and n <= max(limit, 1))
