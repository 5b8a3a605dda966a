# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention: whole sequences, plain or by kernels for TPUs, from a cache, and across.

Heads stand before positions, [b, h, t, d]: that is how the kernel tiles, and a product that writes
them so costs a TPU nothing, while changing places afterwards does.

Letters in shapes, beside the package's:
    t   queries
    s   keys and values
    h   heads of the queries
    g   heads of keys and values, h a multiple of g
    d   width of a head
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from f3tok_jax.devices import sharding
from f3tok_jax.models.transformer import layers

IMPLEMENTATIONS = ("auto", "plain", "rows", "splash")

TOTAL = "what softmax divides by"  # name of what "rows" keeps for its gradient, for remat policies

_LANES = 128  # of a TPU
_SUBLANES = 16  # rows of a tile of bfloat16 there
# Where "auto" takes the kernels: in shorter rows all scores of a head are few, and the tiles of longer
# ones make programs that take minutes to compile.
_ROWS_LENGTHS = range(64, 1281)
_SPLASH_MIN_LENGTH = 512
_SPLASH_BLOCKS = range(1024, 0, -_LANES)  # positions per tile, the first that divides the length

# A finite stand-in for minus infinity: a row without any allowed key stays free of NaNs.
_FORBIDDEN = -1e30

# Logical names of the axes of queries, and of keys and values.
_HEADS = tuple(("batch", name, None, None) for name in ("heads", "kv_heads"))


@dataclasses.dataclass(frozen=True)
class Kind:
    """How positions attend.

    Attributes:
        causal: position i sees none after it.
        window: i sees those less than `window` away; 0 for all.
        implementation: of `IMPLEMENTATIONS`. "rows" is this package's kernels, "splash" is JAX's for
            longer rows and other heads; "auto" is that which length and width of a head suit, on a
            TPU, else "plain".
    """

    causal: bool
    window: int
    implementation: str


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    preparation: layers.Preparation,
    segments: jax.Array | None,
    *,
    kind: Kind,
) -> jax.Array:
    """Attends within whole sequences.

    Args:
        query: [b, h, t, d], as it leaves its projection.
        key: [b, g, t, d], likewise.
        value: [b, g, t, d].
        preparation: norms and rotation of queries and keys, where there are any.
        segments: [b, t] int32, i sees its own segment only; None for one segment.
        kind: of attention.

    Returns:
        [b, h, t, d] in the query's dtype; softmax in float32.
    """
    if kind.implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"attention_implementation must be one of {IMPLEMENTATIONS}, got "
            f"{kind.implementation!r}"
        )
    found = {
        "plain": functools.partial(_plain, kind=kind),
        "rows": functools.partial(rows, kind=kind),
        "splash": functools.partial(splash, kind=kind),
    }
    arguments = query, key, value, preparation, segments
    if kind.implementation != "auto":
        return found[kind.implementation](*arguments)
    name = _suiting(query.shape, key.shape)
    if name == "plain":
        return found[name](*arguments)
    return jax.lax.platform_dependent(*arguments, tpu=found[name], default=found["plain"])


def _suiting(query: tuple[int, ...], key: tuple[int, ...]) -> str:
    """The implementation for heads of such shapes on a TPU."""
    length, width = query[2:]
    # Each device runs a kernel on its own rows and heads, of which all must have as many.
    if not all(sharding.divides(shape, names) for shape, names in zip((query, key), _HEADS)):
        return "plain"
    if width == _LANES and length in _ROWS_LENGTHS:
        return "rows"
    return "plain" if length < _SPLASH_MIN_LENGTH or width % (_LANES // 2) else "splash"


def _plain(query, key, value, preparation, segments, *, kind):
    query, key = preparation(query, key)
    return _attend_plain(query, key, value, segments, causal=kind.causal, window=kind.window)


def _attend_plain(query, key, value, segments, *, causal, window):
    """Every score at once, [b, h, t, t]."""
    length = query.shape[2]
    index = jnp.arange(length)
    distance = index[:, None] - index[None, :]
    allowed = jnp.ones((1, length, length), jnp.bool_)
    if causal:
        allowed &= distance[None] >= 0
    if window:
        allowed &= jnp.abs(distance)[None] < window
    if segments is not None:
        allowed = allowed & (segments[:, :, None] == segments[:, None, :])
    weights = _softmax([_scores(query, key, allowed)])[0]
    return _weighted_sum(weights, value, query.dtype)


def attend_cached(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    cached_key: jax.Array,
    cached_value: jax.Array,
    seen: jax.Array,
    seen_now: jax.Array,
) -> jax.Array:
    """Attends causally to what a cache holds and to the new positions themselves.

    Args:
        query: [b, h, t, d], the new positions.
        key: [b, g, t, d], theirs.
        value: [b, g, t, d], theirs.
        cached_key: [b, g, s, d].
        cached_value: [b, g, s, d].
        seen: [b, t, s] bool, of the cache, from `seen`.
        seen_now: [b, t, t] bool, of the new positions.

    Returns:
        [b, h, t, d], equal to the last t positions of the whole.
    """
    # The cache is not copied to stand beside the new keys: the softmax joins two sets of scores.
    old, new = _softmax([_scores(query, cached_key, seen), _scores(query, key, seen_now)])
    summed = _weighted_sum(old, cached_value, query.dtype)
    return summed + _weighted_sum(new, value, query.dtype)


def attend_across(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """Attends from one sequence to all of another.

    Args:
        query: [b, h, t, d].
        key: [b, g, s, d], of the other one.
        value: [b, g, s, d], likewise.
        mask: [b, s] bool, what of it is seen. Where nothing is, all of it is, evenly.

    Returns:
        [b, h, t, d] in the query's dtype; softmax in float32.
    """
    (weights,) = _softmax([_scores(query, key, mask[:, None])])
    return _weighted_sum(weights, value, query.dtype)


def seen(positions: jax.Array, key_positions: jax.Array, *, window: int) -> jax.Array:
    """What the queries of `attend_cached` may see, for all layers at once.

    Args:
        positions: [b, t] int32, of the queries.
        key_positions: [b, s] int32, -1 for one that nothing may see.
        window: as in `attend`.

    Returns:
        [b, t, s] bool.
    """
    distance = positions[:, :, None] - key_positions[:, None, :]
    found = (distance >= 0) & (key_positions[:, None, :] >= 0)
    return found & (distance < window) if window else found


def _scores(query: jax.Array, key: jax.Array, allowed: jax.Array) -> jax.Array:
    """[b, g, h / g, t, s] float32, `_FORBIDDEN` where [b or 1, t, s] `allowed` is False."""
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    grouped = query.reshape(batch, groups, heads // groups, length, width)
    products = jnp.einsum("bgqtd,bgsd->bgqts", grouped, key, preferred_element_type=jnp.float32)
    scores = products * jnp.float32(width**-0.5)
    return jnp.where(allowed[:, None, None], scores, _FORBIDDEN)


def _softmax(parts: list[jax.Array]) -> list[jax.Array]:
    """Softmax over the last axes of all parts together."""
    highest = functools.reduce(jnp.maximum, [part.max(-1, keepdims=True) for part in parts])
    exponentials = [jnp.exp(part - jax.lax.stop_gradient(highest)) for part in parts]
    total = sum(part.sum(-1, keepdims=True) for part in exponentials)
    return [part / total for part in exponentials]


def _weighted_sum(weights: jax.Array, value: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """[b, h, t, d] from weights [b, g, h / g, t, s] and values [b, g, s, d]."""
    grouped = jnp.einsum("bgqts,bgsd->bgqtd", weights.astype(dtype), value)
    return grouped.reshape(grouped.shape[0], -1, *grouped.shape[3:])


def rows(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    preparation: layers.Preparation,
    segments: jax.Array | None,
    *,
    kind: Kind,
    interpret: bool = False,
) -> jax.Array:
    """`attend` by `attention_kernel`, for rows that it suits.

    Args:
        query: as in `attend`.
        key: likewise.
        value: likewise.
        preparation: likewise.
        segments: likewise.
        kind: likewise.
        interpret: runs the kernels as ordinary operations, on any platform.
    """
    # Imported late, as all kernels: Pallas takes time that a program without it need not wait.
    from f3tok_jax.models.transformer import attention_kernel
    from f3tok_jax.models.transformer import attention_tiles

    batch, _, length, width = query.shape
    padding = -length % (_SUBLANES if length <= _LANES else _LANES)
    along = lambda array: _padded(array, padding)
    segments = _padded_segments(segments, batch, length, padding)
    epsilon = None if preparation.scales is None else preparation.epsilon
    scales = preparation.scales or (jnp.ones((width,), jnp.float32),) * 2
    shape = attention_tiles.Shape(kind.causal, kind.window, epsilon, TOTAL, interpret)
    by_nothing = (jnp.ones((1, 1, length, width)), jnp.zeros((1, 1, length, width)))
    cosines, sines = (along(angles)[:, 0] for angles in preparation.rotation or by_nothing)
    angle = ("batch" if cosines.shape[0] > 1 else None, None, None)

    def local(query, key, value, query_scale, key_scale, cosines, sines, segments):
        scales, rotation = (query_scale, key_scale), (cosines, sines)
        return attention_kernel.attend(query, key, value, scales, rotation, segments, shape)

    # A kernel is opaque to the partitioner: each device runs its own rows and heads.
    heads, groups = _HEADS
    names = (heads, groups, groups, (None,), (None,), angle, angle, ("batch", None))
    local = sharding.on_each_device(local, names, heads)
    attended = local(*map(along, (query, key, value)), *scales, cosines, sines, segments)
    return attended[:, :, :length]


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    preparation: layers.Preparation,
    segments: jax.Array | None,
    *,
    kind: Kind,
    interpret: bool = False,
) -> jax.Array:
    """`attend` by JAX's splash kernel: scores live in tiles only, forbidden tiles are not computed.

    Arguments are those of `rows`.
    """
    query, key = preparation(query, key)
    batch, _, length, width = query.shape
    padding = -length % _LANES
    query = query * jnp.asarray(width**-0.5, query.dtype)
    query, key, value = (_padded(array, padding) for array in (query, key, value))
    segments = _padded_segments(segments, batch, length, padding)
    local = functools.partial(
        _splash_local, causal=kind.causal, window=kind.window, interpret=interpret
    )
    heads, groups = _HEADS
    local = sharding.on_each_device(local, (heads, groups, groups, ("batch", None)), heads)
    return local(query, key, value, segments)[:, :, :length]


def _padded(array: jax.Array, padding: int) -> jax.Array:
    """[b, h, t + padding, d]"""
    return jnp.pad(array, ((0, 0), (0, 0), (0, padding), (0, 0)))


def _padded_segments(
    segments: jax.Array | None, batch: int, length: int, padding: int
) -> jax.Array:
    """[b, t + padding] int32: padding is of nobody's segment."""
    if segments is None:
        segments = jnp.ones((batch, length), jnp.int32)
    return jnp.pad(segments, ((0, 0), (0, padding)), constant_values=-1)


def _splash_local(query, key, value, segments, *, causal, window, interpret):
    """[b, h, t, d] on one device, t a multiple of the lanes."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

    _, num_heads, length, _ = query.shape
    if window:
        reach = (window - 1, 0 if causal else window - 1)
        mask = splash_attention_mask.LocalMask((length, length), reach, 0)
    else:
        whole = splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask
        mask = whole((length, length))
    block = next(size for size in _SPLASH_BLOCKS if length % size == 0)
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * num_heads),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
    )
    ids = splash_attention_kernel.SegmentIds(q=segments, kv=segments)
    return jax.vmap(kernel)(query, key, value, ids)
