# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Attention within rows that a TPU's fast memory holds whole, one kernel forward and one backward.

Queries and keys arrive as they leave their projections: their norms, their rotation and the
gradients of both are part of the kernels, because as operations of their own they read and write
all heads once more each, which costs more than attention itself.

Scores stand with keys before queries, [s, t]. Then sums over keys are sums of vectors, what belongs
to a query lies along the lanes, and none of the five products of the backward pass needs a
transposed matrix of scores: only keys, values and results change their axes.

A row is cut into tiles of queries, each with the keys that some of its queries may see. Unlike with
the kernels that come with JAX, a row is one step of the kernel's loop, whose overhead is that of a
hundred thousand scores, and no statistics are written 128 times.

Letters in shapes are those of `attention`.
"""

from collections.abc import Iterator
import dataclasses
import functools
import math

import jax
from jax import ad_checkpoint
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

_TILE = 256  # queries of a tile; a multiple of the lanes
_POSITIONS = 1024  # of a step, those of all rows and heads of keys together, at least

_FORBIDDEN = -1e30
_LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel is compiled for, apart from its arrays.

    Attributes:
        causal: position i sees none after it.
        window: i sees those less than `window` away; 0 for all.
        epsilon: of the norms of queries and keys; None without norms.
        total: name of what softmax divides by, for policies of rematerialisation.
        interpret: runs the kernels as ordinary operations, on any platform.
    """

    causal: bool
    window: int
    epsilon: float | None
    total: str
    interpret: bool = False

    def tiles(self, length: int) -> Iterator[tuple[slice, list[tuple[slice, bool]]]]:
        """Tiles of queries, each with those of keys that some of it may see; True where not all."""
        starts = range(0, length, _TILE)
        for start in starts:
            queries = slice(start, min(start + _TILE, length))
            seen = []
            for other in starts:
                keys = slice(other, min(other + _TILE, length))
                nearest = queries.start - (keys.stop - 1), queries.stop - 1 - keys.start
                if self.causal and nearest[1] < 0:
                    continue
                if self.window and (nearest[0] >= self.window or -nearest[1] >= self.window):
                    continue
                partial = self.causal and nearest[0] < 0
                partial |= self.window > 0 and max(nearest[1], -nearest[0]) >= self.window
                seen.append((keys, bool(partial)))
            yield queries, seen

    def allows(self, queries: slice, keys: slice) -> jax.Array:
        """[s, t] bool, by position alone."""
        size = keys.stop - keys.start, queries.stop - queries.start
        offset = queries.start - keys.start
        distance = jax.lax.broadcasted_iota(jnp.int32, size, 1) + offset
        distance -= jax.lax.broadcasted_iota(jnp.int32, size, 0)
        allowed = jnp.full(size, True) if not self.causal else distance >= 0
        return allowed & (jnp.abs(distance) < self.window) if self.window else allowed


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    scales: tuple[jax.Array, jax.Array],
    rotation: tuple[jax.Array, jax.Array],
    segments: jax.Array,
    shape: Shape,
) -> jax.Array:
    """Norm, rotation and attention.

    Args:
        query: [b, h, t, d], as it leaves its projection.
        key: [b, g, t, d], likewise.
        value: [b, g, t, d].
        scales: [d] float32 each, of the norms of queries and keys; not read without norms.
        rotation: cosines and sines [b or 1, t, d] float32.
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
        _forward_kernel,
        shape,
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
    steps = math.prod(arrays.grid)
    sums = jax.ShapeDtypeStruct((*arrays.grid, 2, query.shape[-1]), jnp.float32)
    length = query.shape[2]
    scratch = [pltpu.VMEM((length, query.shape[-1]), jnp.float32)] * 2
    to_query, to_key, to_value, to_scales = arrays.call(
        "rows_backward",
        _backward_kernel,
        shape,
        inputs=[query, key, value, gradient, total, *_shared(scales, rotation, segments)],
        specs=[
            *(arrays.query, arrays.key, arrays.key, arrays.query, arrays.total),
            *arrays.shared,
        ],
        outputs=[
            (jax.ShapeDtypeStruct(query.shape, query.dtype), arrays.query),
            (jax.ShapeDtypeStruct(key.shape, key.dtype), arrays.key),
            (jax.ShapeDtypeStruct(value.shape, value.dtype), arrays.key),
            (sums, arrays.sums),
        ],
        scratch=scratch,
    )
    to_scales = jnp.sum(to_scales, axis=(0, 1)) if steps else to_scales
    none = jax.tree.map(jnp.zeros_like, rotation)
    return to_query, to_key, to_value, (to_scales[0], to_scales[1]), none, None


def _shared(scales, rotation, segments):
    """What all heads have in common: scales, cosines, sines, segments along lanes and sublanes."""
    cosines, sines = rotation
    half = sines.shape[-1] // 2
    sines = jnp.concatenate([-sines[..., :half], sines[..., half:]], axis=-1)
    return jnp.stack(scales), cosines, sines, segments[:, None, :], segments[:, :, None]


class _Arrays:
    """Grid and blocks: a step has some rows, and of them some heads of keys with their queries."""

    def __init__(self, query, key, rotation):
        batch, heads, length, width = query.shape
        groups = key.shape[1]
        fit = lambda count, size: next(
            n for n in range(count, 0, -1) if count % n == 0 and (n == 1 or n * size <= _POSITIONS)
        )
        group = fit(groups, length)
        rows = fit(batch, group * length)
        self.grid = batch // rows, groups // group
        per_step = heads // groups * group
        at_head = lambda row, head: (row, head, 0, 0)
        at_row = lambda row, head: (row, 0, 0)
        at_first = lambda row, head: (0, 0, 0)
        self.query = pl.BlockSpec((rows, per_step, length, width), at_head)
        self.key = pl.BlockSpec((rows, group, length, width), at_head)
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

    def call(self, name, kernel, shape, *, inputs, specs, outputs, scratch=()):
        return pl.pallas_call(
            functools.partial(kernel, shape=shape),
            name=name,
            grid=self.grid,
            in_specs=specs,
            out_specs=[spec for _, spec in outputs],
            out_shape=[array for array, _ in outputs],
            scratch_shapes=list(scratch),
            interpret=shape.interpret,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel"),
            ),
        )(*inputs)


class _Prepared:
    """Norm and rotation of heads [t, d], and their gradient, in float32."""

    def __init__(self, x, scale, cosines, sines, epsilon):
        self.scale, self.cosines, self.sines = scale, cosines, sines
        self.has_norm = epsilon is not None
        self.normed = x.astype(jnp.float32)
        if self.has_norm:
            square = jnp.mean(self.normed * self.normed, axis=-1, keepdims=True)
            self.inverse = jax.lax.rsqrt(square + epsilon)
            self.normed = self.normed * self.inverse

    def turned(self):
        x = self.normed * self.scale if self.has_norm else self.normed
        return x * self.cosines + _swapped(x) * self.sines

    def gradient(self, turned):
        """Of x [t, d], and of the scale [1, d], from that of what is turned."""
        x = turned * self.cosines + _swapped(turned * self.sines)
        if not self.has_norm:
            return x, jnp.zeros_like(self.scale)
        to_scale = jnp.sum(x * self.normed, axis=0, keepdims=True)
        x = x * self.scale
        along = jnp.mean(x * self.normed, axis=-1, keepdims=True)
        return self.inverse * (x - self.normed * along), to_scale


def _swapped(x):
    """Both halves of the lanes in each other's place."""
    return pltpu.roll(x, x.shape[-1] // 2, 1)


def _product(a, b, contract_a, contract_b):
    return jax.lax.dot_general(
        a, b, (((contract_a,), (contract_b,)), ((), ())), preferred_element_type=jnp.float32
    )


def _scores(key, query, row_ids, column_ids, queries, seen, shape):
    """Scores [s, t] of each of the tiles of keys in `seen`, forbidden ones far below all others."""
    found = []
    for keys, is_partial in seen:
        score = _product(key[keys], query[queries], 1, 1)
        allowed = column_ids[keys] == row_ids[:, queries]
        if is_partial:
            allowed &= shape.allows(queries, keys)
        found.append(jnp.where(allowed, score, _FORBIDDEN))
    return found


def _joined(parts, join, reduce):
    """[1, t] of tiles [s, t]."""
    return functools.reduce(join, [reduce(part, axis=0, keepdims=True) for part in parts])


def _each_row(rows, body):
    if rows == 1:
        body(0)
        return

    def step(row, carry):
        body(row)
        return carry

    jax.lax.fori_loop(0, rows, step, 0)


def _forward_kernel(
    *refs,
    shape: Shape,
):
    query_ref, key_ref, value_ref, scale_ref, cosine_ref, sine_ref, row_ref, column_ref = refs[:8]
    output_ref, total_ref = refs[8:]
    rows, groups, length, width = key_ref.shape
    per_group = query_ref.shape[1] // groups
    dtype = query_ref.dtype
    factor = width**-0.5 * _LOG2_E

    def run(row):
        angle = row if cosine_ref.shape[0] == rows else 0
        cosines, sines = cosine_ref[angle], sine_ref[angle]
        row_ids, column_ids = row_ref[row], column_ref[row]
        prepare = functools.partial(_Prepared, cosines=cosines, sines=sines, epsilon=shape.epsilon)
        for group in range(groups):
            key = prepare(key_ref[row, group], scale_ref[1:2]).turned().astype(dtype)
            value = value_ref[row, group].T
            for head in range(group * per_group, (group + 1) * per_group):
                query = prepare(query_ref[row, head], scale_ref[0:1]).turned() * factor
                query = query.astype(dtype)
                for queries, seen in shape.tiles(length):
                    scores = _scores(key, query, row_ids, column_ids, queries, seen, shape)
                    highest = _joined(scores, jnp.maximum, jnp.max)
                    weights = [jnp.exp2(score - highest) for score in scores]
                    total = _joined(weights, jnp.add, jnp.sum)
                    summed = sum(
                        _product(value[:, keys], weight.astype(dtype), 1, 0)
                        for (keys, _), weight in zip(seen, weights)
                    )
                    summed = summed * (1.0 / total)
                    output_ref[row, head, queries] = summed.T.astype(dtype)
                    total_ref[row, head, :, queries] = highest + jnp.log2(total)

    _each_row(rows, run)


def _backward_kernel(*refs, shape: Shape):
    query_ref, key_ref, value_ref, gradient_ref, total_ref = refs[:5]
    scale_ref, cosine_ref, sine_ref, row_ref, column_ref = refs[5:10]
    to_query_ref, to_key_ref, to_value_ref, to_scale_ref, key_sum, value_sum = refs[10:]
    rows, groups, length, width = key_ref.shape
    per_group = query_ref.shape[1] // groups
    dtype = query_ref.dtype
    factor = width**-0.5 * _LOG2_E
    to_scale_ref[...] = jnp.zeros_like(to_scale_ref)

    def run(row):
        angle = row if cosine_ref.shape[0] == rows else 0
        cosines, sines = cosine_ref[angle], sine_ref[angle]
        row_ids, column_ids = row_ref[row], column_ref[row]
        prepare = functools.partial(_Prepared, cosines=cosines, sines=sines, epsilon=shape.epsilon)
        for group in range(groups):
            prepared_key = prepare(key_ref[row, group], scale_ref[1:2])
            key = prepared_key.turned().astype(dtype)
            key_columns = key.T
            value = value_ref[row, group]
            key_sum[...] = jnp.zeros_like(key_sum)
            value_sum[...] = jnp.zeros_like(value_sum)
            for head in range(group * per_group, (group + 1) * per_group):
                prepared = prepare(query_ref[row, head], scale_ref[0:1])
                query = (prepared.turned() * factor).astype(dtype)
                gradient = gradient_ref[row, head]
                found = []
                for queries, seen in shape.tiles(length):
                    scores = _scores(key, query, row_ids, column_ids, queries, seen, shape)
                    total = total_ref[row, head, :, queries]
                    weights = [jnp.exp2(score - total) for score in scores]
                    pulls = [_product(value[keys], gradient[queries], 1, 1) for keys, _ in seen]
                    weighted = [weight * pull for weight, pull in zip(weights, pulls)]
                    mean = _joined(weighted, jnp.add, jnp.sum)
                    summed = 0.0
                    for (keys, _), weight, part in zip(seen, weights, weighted):
                        to_score = (part - weight * mean).astype(dtype)
                        weight = weight.astype(dtype)
                        value_sum[keys] += _product(weight, gradient[queries], 1, 0)
                        key_sum[keys] += _product(to_score, query[queries], 1, 0)
                        summed += _product(key_columns[:, keys], to_score, 1, 0)
                    found.append(summed.T)
                turned = jnp.concatenate(found, axis=0) * width**-0.5
                to_query, to_scale = prepared.gradient(turned)
                to_query_ref[row, head] = to_query.astype(dtype)
                to_scale_ref[0:1] += to_scale
            to_key, to_scale = prepared_key.gradient(key_sum[...] * (1.0 / _LOG2_E))
            to_scale_ref[1:2] += to_scale
            to_key_ref[row, group] = to_key.astype(dtype)
            to_value_ref[row, group] = value_sum[...].astype(dtype)

    _each_row(rows, run)
