# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What one step of the attention kernels computes: norms, rotation and attention of some rows' heads.

Scores stand with keys before queries, [s, t]. Then sums over keys are sums of vectors, what belongs
to a query lies along the lanes, and none of the five products of the backward pass needs a
transposed matrix of scores: only keys, values and results change their axes.

A row is cut into tiles of queries, each with the keys that some of its queries may see. All tiles of
a step are written out one after the other, so that they overlap; long rows would make long programs.

Letters in shapes are those of `attention`.
"""

from collections.abc import Iterator
import dataclasses
import functools
import math

import jax
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

_TILE = 128  # queries of a tile, and keys: the lanes
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
                # By how much a query stands behind a key.
                least, most = queries.start - keys.stop + 1, queries.stop - 1 - keys.start
                if self.causal and most < 0:
                    continue
                if self.window and (least >= self.window or -most >= self.window):
                    continue
                is_partial = self.causal and least < 0
                is_partial |= 0 < self.window <= max(most, -least)
                seen.append((keys, is_partial))
            yield queries, seen

    def allows(self, queries: slice, keys: slice) -> jax.Array:
        """[s, t] bool, by position alone."""
        size = keys.stop - keys.start, queries.stop - queries.start
        offset = queries.start - keys.start
        distance = jax.lax.broadcasted_iota(jnp.int32, size, 1) + offset
        distance -= jax.lax.broadcasted_iota(jnp.int32, size, 0)
        allowed = jnp.full(size, True) if not self.causal else distance >= 0
        return allowed & (jnp.abs(distance) < self.window) if self.window else allowed


class _Prepared:
    """Norm and rotation of heads [t, d], and their gradient, in float32."""

    def __init__(self, x, scale, cosines, sines, epsilon, swap):
        self.scale, self.cosines, self.sines, self.swap = scale, cosines, sines, swap
        self.has_norm = epsilon is not None
        self.normed, self.swapped = x.astype(jnp.float32), swap(x)
        if self.has_norm:
            square = jnp.mean(self.normed * self.normed, axis=-1, keepdims=True)
            self.inverse = jax.lax.rsqrt(square + epsilon)
            self.normed *= self.inverse
            self.swapped *= self.inverse

    def turned(self):
        if not self.has_norm:
            return self.normed * self.cosines + self.swapped * self.sines
        swapped_scale = _rolled(self.scale)
        return (self.normed * self.scale) * self.cosines + (
            self.swapped * swapped_scale
        ) * self.sines

    def gradient(self, turned, dtype):
        """Of x [t, d], and of the scale [1, d], from that of what is turned."""
        x = turned * self.cosines + self.swap((turned * self.sines).astype(dtype))
        if not self.has_norm:
            return x, jnp.zeros_like(self.scale)
        to_scale = jnp.sum(x * self.normed, axis=0, keepdims=True)
        x = x * self.scale
        along = jnp.mean(x * self.normed, axis=-1, keepdims=True)
        return self.inverse * (x - self.normed * along), to_scale


def _preparer(row, rows, cosine_ref, sine_ref, shape, swap):
    """(heads, scale) -> what is prepared of the heads of a row."""
    angle = row if cosine_ref.shape[0] == rows else 0
    return functools.partial(
        _Prepared,
        cosines=cosine_ref[angle],
        sines=sine_ref[angle],
        epsilon=shape.epsilon,
        swap=swap,
    )


def _items(heads, length, shape):
    """Every tile of every head: (head, queries, keys that some of them see)."""
    return [(head, *tile) for head in range(heads) for tile in shape.tiles(length)]


def _rolled(x):
    return pltpu.roll(x, x.shape[-1] // 2, 1)


def _swapper(width, dtype):
    """Both halves of the lanes in each other's place, in float32, of what has `dtype`.

    The lanes' own unit is busy with sums; bfloat16 passes through a product with a permutation as it
    is.
    """
    if dtype != jnp.bfloat16:
        return lambda x: _rolled(x.astype(jnp.float32))
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (width, width), axis) for axis in (0, 1))
    permutation = (jnp.abs(row - column) == width // 2).astype(dtype)
    return lambda x: _product(x, permutation, 1, 0)


def _product(a, b, contract_a, contract_b):
    return jax.lax.dot_general(
        a, b, (((contract_a,), (contract_b,)), ((), ())), preferred_element_type=jnp.float32
    )


def _masked(scores, ids, queries, seen, shape):
    """Scores [s, t] of tiles of keys, forbidden ones far below all others; `ids` are the segments,
    along lanes and along sublanes."""
    (row_ids, column_ids), found = ids, []
    for score, (keys, is_partial) in zip(scores, seen):
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
    else:
        jax.lax.fori_loop(0, rows, lambda row, _: body(row), None)


def _in_stages(items, *stages):
    """Each stage of each item on what the stage before made of it, items overlapping.

    The compiler keeps to the order in which a kernel is written: while the products of one tile run,
    sums and exponentials of the one before can.
    """
    items, under_way = list(items), {}
    for step in range(len(items) + len(stages) - 1):
        for number, stage in enumerate(stages):
            index = step - number
            if 0 <= index < len(items):
                under_way[index] = stage(items[index], under_way.pop(index, None))


def forward(*refs, shape: Shape):
    """The kernel of `attention_kernel.attend`, on its blocks: writes output and total."""
    query_ref, key_ref, value_ref, scale_ref, cosine_ref, sine_ref, row_ref, column_ref = refs[:8]
    output_ref, total_ref = refs[8:]
    rows, groups, length, width = key_ref.shape
    per_group = query_ref.shape[1] // groups
    dtype = query_ref.dtype
    factor = width**-0.5 * _LOG2_E
    swap = _swapper(width, dtype)

    def run(row):
        prepare = _preparer(row, rows, cosine_ref, sine_ref, shape, swap)
        ids = row_ref[row], column_ref[row]

        @functools.cache
        def key_of(group):
            return prepare(key_ref[row, group], scale_ref[1:2]).turned().astype(dtype)

        @functools.cache
        def value_of(group):
            return value_ref[row, group].T

        @functools.cache
        def query_of(head):
            return (prepare(query_ref[row, head], scale_ref[0:1]).turned() * factor).astype(dtype)

        def score(item, _):
            head, queries, seen = item
            query, key = query_of(head)[queries], key_of(head // per_group)
            return [_product(key[keys], query, 1, 1) for keys, _ in seen]

        def weigh(item, scores):
            _, queries, seen = item
            scores = _masked(scores, ids, queries, seen, shape)
            highest = _joined(scores, jnp.maximum, jnp.max)
            weights = [jnp.exp2(score - highest) for score in scores]
            return weights, highest, _joined(weights, jnp.add, jnp.sum)

        def add(item, weighed):
            (head, queries, seen), (weights, highest, total) = item, weighed
            value = value_of(head // per_group)
            summed = sum(
                _product(value[:, keys], weight.astype(dtype), 1, 0)
                for (keys, _), weight in zip(seen, weights)
            )
            output_ref[row, head, queries] = (summed * (1.0 / total)).T.astype(dtype)
            total_ref[row, head, :, queries] = highest + jnp.log2(total)

        _in_stages(_items(groups * per_group, length, shape), score, weigh, add)

    _each_row(rows, run)


def backward(*refs, shape: Shape):
    """The kernel of its gradient: writes those of queries, keys, values and scales."""
    query_ref, key_ref, value_ref, gradient_ref, total_ref = refs[:5]
    scale_ref, cosine_ref, sine_ref, row_ref, column_ref = refs[5:10]
    to_query_ref, to_key_ref, to_value_ref, to_scale_ref = refs[10:]
    rows, groups, length, width = key_ref.shape
    per_group = query_ref.shape[1] // groups
    dtype = query_ref.dtype
    factor = width**-0.5 * _LOG2_E
    swap = _swapper(width, dtype)
    to_scale_ref[...] = jnp.zeros_like(to_scale_ref)

    def run(row):
        prepare = _preparer(row, rows, cosine_ref, sine_ref, shape, swap)
        ids = row_ref[row], column_ref[row]

        @functools.cache
        def key_of(group):
            prepared = prepare(key_ref[row, group], scale_ref[1:2])
            key = prepared.turned().astype(dtype)
            return prepared, key, key.T

        @functools.cache
        def query_of(head):
            prepared = prepare(query_ref[row, head], scale_ref[0:1])
            return prepared, (prepared.turned() * factor).astype(dtype)

        def score(item, _):
            head, queries, seen = item
            query, (_, key, _) = query_of(head)[1][queries], key_of(head // per_group)
            gradient, value = gradient_ref[row, head, queries], value_ref[row, head // per_group]
            return [
                (_product(key[keys], query, 1, 1), _product(value[keys], gradient, 1, 1))
                for keys, _ in seen
            ]

        def weigh(item, found):
            head, queries, seen = item
            scores, pulls = zip(*found)
            scores = _masked(scores, ids, queries, seen, shape)
            total = total_ref[row, head, :, queries]
            weights = [jnp.exp2(score - total) for score in scores]
            weighted = [weight * pull for weight, pull in zip(weights, pulls)]
            mean = _joined(weighted, jnp.add, jnp.sum)
            to_scores = [part - weight * mean for weight, part in zip(weights, weighted)]
            return [
                (weight.astype(dtype), to_score.astype(dtype))
                for weight, to_score in zip(weights, to_scores)
            ]

        to_values, to_keys, to_queries = {}, {}, {}

        def add(item, weighed):
            head, queries, seen = item
            group = head // per_group
            query, gradient = query_of(head)[1][queries], gradient_ref[row, head, queries]
            key_columns, summed = key_of(group)[2], 0.0
            for (keys, _), (weight, to_score) in zip(seen, weighed):
                place = group, keys.start
                to_values[place] = to_values.get(place, 0.0) + _product(weight, gradient, 1, 0)
                to_keys[place] = to_keys.get(place, 0.0) + _product(to_score, query, 1, 0)
                summed += _product(key_columns[:, keys], to_score, 1, 0)
            to_queries[head, queries.start] = summed.T
            if queries.stop == length:
                finish_query(head)
                if (head + 1) % per_group == 0:
                    finish_key(group)

        starts = [queries.start for queries, _ in shape.tiles(length)]

        def finish_query(head):
            turned = jnp.concatenate([to_queries[head, start] for start in starts], axis=0)
            to_query, to_scale = query_of(head)[0].gradient(turned * width**-0.5, dtype)
            to_query_ref[row, head] = to_query.astype(dtype)
            to_scale_ref[0:1] += to_scale

        def finish_key(group):
            turned = jnp.concatenate([to_keys[group, start] for start in starts], axis=0)
            to_key, to_scale = key_of(group)[0].gradient(turned * (1.0 / _LOG2_E), dtype)
            to_scale_ref[1:2] += to_scale
            to_key_ref[row, group] = to_key.astype(to_key_ref.dtype)
            to_value = jnp.concatenate([to_values[group, start] for start in starts], axis=0)
            to_value_ref[row, group] = to_value.astype(to_value_ref.dtype)

        _in_stages(_items(groups * per_group, length, shape), score, weigh, add)

    _each_row(rows, run)
