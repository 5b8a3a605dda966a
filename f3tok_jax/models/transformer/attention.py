# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention: whole sequences, plain or by the TPU's splash kernel, and from a cache.

Heads stand before positions, [b, h, t, d]: that is how the kernel tiles, and a product that writes
them so costs a TPU nothing, while changing places afterwards does.

Letters in shapes, beside the package's:
    t   queries
    s   keys and values
    h   heads of the queries
    g   heads of keys and values, h a multiple of g
    d   width of a head
"""

import functools

import jax
import jax.numpy as jnp

from f3tok_jax.devices import sharding

IMPLEMENTATIONS = ("auto", "plain", "splash")

# From here on the kernel is used where "auto" may choose: below, all scores of a head are smaller
# than the tiles it works in.
_SPLASH_MIN_LENGTH = 512
_LANES = 128  # of a TPU; the kernel's tiles are multiples of it
_SPLASH_BLOCKS = (512, 384, 256, 128)  # positions per tile, the first that divides the length

# A finite stand-in for minus infinity: a row without any allowed key stays free of NaNs.
_FORBIDDEN = -1e30


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    causal: bool,
    window: int,
    segments: jax.Array | None,
    implementation: str,
) -> jax.Array:
    """Attends within whole sequences.

    Args:
        query: [b, h, t, d].
        key: [b, g, t, d].
        value: [b, g, t, d].
        causal: position i sees none after it.
        window: i sees those less than `window` away; 0 for all.
        segments: [b, t] int32, i sees its own segment only; None for one segment.
        implementation: of `IMPLEMENTATIONS`; "auto" is the splash kernel on a TPU where length and
            width of a head suit it, else "plain".

    Returns:
        [b, h, t, d] in the query's dtype; softmax in float32.
    """
    options = dict(causal=causal, window=window)
    plain = functools.partial(_attend_plain, **options)
    if implementation == "plain":
        return plain(query, key, value, segments)
    if implementation == "splash":
        return splash(query, key, value, segments, **options)
    if implementation != "auto":
        raise ValueError(
            f"attention_implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}"
        )
    if query.shape[2] < _SPLASH_MIN_LENGTH or query.shape[-1] % (_LANES // 2):
        return plain(query, key, value, segments)
    return jax.lax.platform_dependent(
        query, key, value, segments, tpu=functools.partial(splash, **options), default=plain
    )


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
    positions: jax.Array,
    cached_positions: jax.Array,
    window: int,
) -> jax.Array:
    """Attends causally to what a cache holds and to the new positions themselves.

    Args:
        query: [b, h, t, d], the new positions.
        key: [b, g, t, d], theirs.
        value: [b, g, t, d], theirs.
        cached_key: [b, g, s, d].
        cached_value: [b, g, s, d].
        positions: [b, t] int32, -1 for one that nothing may see.
        cached_positions: [b, s] int32, -1 for an empty slot.
        window: as in `attend`.

    Returns:
        [b, h, t, d], equal to the last t positions of the whole.
    """

    def allowed(key_positions: jax.Array) -> jax.Array:
        distance = positions[:, :, None] - key_positions[:, None, :]
        seen = (distance >= 0) & (key_positions[:, None, :] >= 0)
        return seen & (distance < window) if window else seen

    # The cache is not copied to stand beside the new keys: the softmax joins two sets of scores.
    old = _scores(query, cached_key, allowed(cached_positions))
    old, new = _softmax([old, _scores(query, key, allowed(positions))])
    summed = _weighted_sum(old, cached_value, query.dtype)
    return summed + _weighted_sum(new, value, query.dtype)


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


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None,
    *,
    causal: bool,
    window: int,
    interpret: bool = False,
) -> jax.Array:
    """`attend` by the splash kernel: scores live in tiles only, forbidden tiles are not computed.

    Args:
        query: [b, h, t, d].
        key: [b, g, t, d].
        value: [b, g, t, d].
        segments: [b, t] int32 or None.
        causal: as in `attend`.
        window: as in `attend`.
        interpret: runs the kernel as ordinary operations, on any platform.
    """
    batch, _, length, width = query.shape
    if segments is None:
        segments = jnp.ones((batch, length), jnp.int32)
    padding = -length % _LANES
    query, key, value = (
        jnp.pad(array, ((0, 0), (0, 0), (0, padding), (0, 0)))
        for array in (query * jnp.asarray(width**-0.5, query.dtype), key, value)
    )
    segments = jnp.pad(segments, ((0, 0), (0, padding)), constant_values=-1)
    local = functools.partial(_splash_local, causal=causal, window=window, interpret=interpret)
    # A kernel is opaque to the partitioner: each device runs its own rows and heads.
    heads, groups = (("batch", name, None, None) for name in ("heads", "kv_heads"))
    local = sharding.on_each_device(local, (heads, groups, groups, ("batch", None)), heads)
    return local(query, key, value, segments)[:, :, :length]


def _splash_local(query, key, value, segments, *, causal, window, interpret):
    """[b, h, t, d] on one device, t a multiple of the lanes."""
    # Imported late, as its mask: a sixth of a second that a program without it need not wait.
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
