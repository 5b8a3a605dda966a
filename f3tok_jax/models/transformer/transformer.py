# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The transformer of all models: of language, of representations, of patches and of whole sounds.

Logical axes of its parameters: layers, embed, heads, kv_heads, hidden; of its activations: batch,
time, embed, heads, kv_heads, hidden.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import ad_checkpoint
import jax.numpy as jnp

from f3tok_jax.models.transformer import attention as attention_lib
from f3tok_jax.models.transformer import cache as cache_lib
from f3tok_jax.models.transformer import conditioning
from f3tok_jax.models.transformer import layers

# "llama": RMSNorm, rotated queries and keys, SwiGLU. "vit": LayerNorm, GELU, biases everywhere; where
# positions are is in what goes in.
BLOCKS = ("llama", "vit")
ATTENTIONS = ("causal", "bidirectional")
COMPUTE_DTYPES = ("bfloat16", "float32")

# What the policies below name: outputs of dense layers, and of attention, about as wide as what a
# block adds to; and those that are as wide as the hidden layer.
_NARROW, _HIDDEN = "as wide as the stream", "as wide as the hidden layer"
# Rotating takes memory by its square, at once, and a stranger's file may ask for any; heads of models
# have 64 to 256.
_MAX_HEAD_DIM = 2**11
_STREAM = ("batch", "time", "embed")  # axes of what every block adds to

# Layers that read the same, and may be one: see `joined`.
_HEADS, _GATES = ("query", "key", "value"), ("gate", "up")

_named = jax.checkpoint_policies.save_only_these_names
# What the backward pass finds again instead of computing it: everything; the outputs of the dense
# layers and of attention; of those the hidden layer's alone, which a scan keeps without copying them,
# as it must what kernels read; or the input of each block.
_REMAT_POLICIES = {
    "none": None,
    "dots": _named(_NARROW, attention_lib.TOTAL, _HIDDEN),
    "attention": _named(_HIDDEN),
    "block": jax.checkpoint_policies.nothing_saveable,
}
REMATS = tuple(_REMAT_POLICIES)


class _Fields(nn.Module):
    """The config, which every part of a transformer has whole."""

    num_layers: int
    width: int
    hidden_width: int  # of the feed-forward layer
    num_heads: int
    num_kv_heads: int  # a divisor of num_heads
    head_dim: int
    block: str = "llama"  # one of BLOCKS
    rope_theta: float = 10_000.0  # of "llama"
    norm_epsilon: float = 1e-6
    qk_norm: bool = False  # RMSNorm over each head of queries and keys (Qwen3)
    qkv_bias: bool = False  # biases of the projections before attention (Qwen2)
    attention: str = "causal"  # or "bidirectional"
    window: int = 0  # positions that attention spans, itself included; 0 for all
    modulation_rank: int = 0  # of what a block adds to its modulation by a condition; 0 without one
    remat: str = "none"  # one of REMATS
    compute_dtype: str = "float32"
    attention_implementation: str = "auto"  # one of attention.IMPLEMENTATIONS
    unrolled: bool = False  # no loop over the layers; takes longer to compile

    @nn.nowrap
    def fields(self) -> dict[str, Any]:
        """The config by name, for a part."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name not in ("parent", "name")}


class Transformer(_Fields):
    """Norm, grouped-query attention, norm, feed-forward, and a last norm; no embeddings.

    Parameters are float32, or whatever the caller gives; products are in `compute_dtype`; norms,
    rotations and softmax in float32. Layers are scanned: every parameter has a leading axis
    "layers". Inside the scan one layer's weights are gathered over the axes by which they are
    merely stored in parts, while the axes of their rules stay.

    Fields are those of the config below a transformer's section, in `_Fields`.

    Source: the blocks of Llama (arXiv 2302.13971), Qwen2 (arXiv 2407.10671) and Qwen3 (arXiv
    2505.09388), and of the vision transformer (arXiv 2010.11929) as Dasheng (arXiv 2406.06992) has
    them, whose weights load.
    """

    def setup(self):
        check_shape(self)
        block = _Block
        if self.remat != "none":
            # The scan is a loop, in which nothing can be merged anyhow.
            block = nn.remat(block, policy=_REMAT_POLICIES[self.remat], prevent_cse=False)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            out_axes=0,
            length=self.num_layers,
            unroll=self.num_layers if self.unrolled else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(**self.fields())
        self.final_norm = _norm(self)

    def __call__(
        self,
        x: jax.Array,
        *,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        condition: conditioning.Condition | None = None,
    ) -> jax.Array:
        """Runs over whole sequences.

        Args:
            x: [b, t, width].
            positions: [b, t] int32, for the rotation alone, where there is one; default 0, 1, ...:
                only differences matter, so that packed segments need none.
            segments: [b, t] int32; a position attends to its own segment only. 0 is padding, whose
                output means nothing.
            condition: by which blocks are modulated, and what they attend to beside `x`; where there
                is a modulation_rank.

        Returns:
            [b, t, width] in the compute dtype.
        """
        self._check_width(x)
        if (condition is None) == bool(self.modulation_rank):
            given = "none" if condition is None else "one"
            wanted = f"a condition where there is a modulation_rank, got {given}"
            raise ValueError(f"a transformer needs {wanted} with {self.modulation_rank}")
        if positions is None:
            positions = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
        shared = {
            "rotation": self._rotation(positions),
            "segments": segments,
            "condition": condition,
        }
        x, _ = self.layers(self._enter(x), None, shared)
        return self.final_norm(x)

    @nn.nowrap
    def initial_cache(self, batch_size: int, max_length: int = 0) -> cache_lib.Cache:
        """Memory of a transformer that has seen nothing; needs no parameters.

        Args:
            batch_size: rows.
            max_length: positions per row, with padding. With a window there is no limit and this is
                not read.
        """
        room = self.window or max_length
        if room < 1:
            wanted = "a max_length of at least 1"
            raise ValueError(f"a cache without a window needs {wanted}, got {max_length}")
        return cache_lib.empty(
            self.num_layers,
            batch_size,
            self.num_kv_heads,
            self.head_dim,
            room=room,
            dtype=self.compute_dtype,
        )

    def step(
        self, x: jax.Array, cache: cache_lib.Cache, *, mask: jax.Array | None = None
    ) -> tuple[jax.Array, cache_lib.Cache]:
        """Runs over the next positions of sequences, with the numbers of the whole.

        Args:
            x: [b, k, width].
            cache: from `initial_cache` or the previous step.
            mask: [b, k] bool, False for padding: it takes room in the cache, but is neither seen nor
                counted, so that rows of different lengths go together. Default all True.

        Returns:
            [b, k, width] in the compute dtype, and the next cache. A row gives NaNs once what it
            should see has been overwritten: without a window because there was no room for all that
            was read, with one because of padding after it.
        """
        self._check_width(x)
        if self.attention != "causal" or self.modulation_rank:
            got = f"got {self.attention!r} and {self.modulation_rank}"
            raise ValueError(f"a cache needs attention='causal' and modulation_rank=0, {got}")
        count = x.shape[1]
        if mask is None:
            mask = jnp.ones(x.shape[:2], jnp.bool_)
        if mask.size == 1:
            # One row alone goes through a TPU's vector unit, three times as long as two of them.
            x = jnp.concatenate([x, jnp.zeros_like(x)], axis=1)
            mask = jnp.pad(mask, ((0, 0), (0, 1)))
        counts = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
        positions = jnp.where(mask, cache.lengths[:, None] + counts - 1, -1)
        shared = {
            "rotation": self._rotation(positions),
            "seen": attention_lib.seen(positions, cache.positions, window=self.window),
            "seen_now": attention_lib.seen(positions, positions, window=self.window),
        }
        # Layers read the cache and say what is new: it is written once for all, in place.
        x, new = self.layers(self._enter(x), (cache.keys, cache.values), shared)
        x = self.final_norm(x)
        x = jnp.where(cache.is_whole(self.window)[:, None, None], x, jnp.nan)
        keys, values = (found[..., :count, :] for found in new)
        return x[:, :count], cache.written(keys, values, positions[:, :count])

    def _enter(self, x: jax.Array) -> jax.Array:
        return layers.in_rows(x.astype(self.compute_dtype), *_STREAM)

    def _rotation(self, positions: jax.Array) -> tuple[jax.Array, jax.Array] | None:
        """Cosines and sines [b or 1, 1, t, head_dim] of the angles of `positions`, each twice."""
        if self.block != "llama":
            return None
        exponents = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32) / self.head_dim
        frequencies = jnp.float32(self.rope_theta) ** -exponents
        angles = positions.astype(jnp.float32)[:, None, :, None] * frequencies[None, None, None]
        angles = jnp.concatenate([angles, angles], axis=-1)
        return jnp.cos(angles), jnp.sin(angles)

    @nn.nowrap
    def _check_width(self, x: jax.Array) -> None:
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(f"the input must be [b, t, {self.width}], got {list(x.shape)}")


def of_fields(module: nn.Module, **others: Any) -> Transformer:
    """The transformer whose config is among the fields of `module`; `others` are its own."""
    names = {field.name for field in dataclasses.fields(_Fields)} - {"parent", "name"}
    own = {field.name for field in dataclasses.fields(module)}
    return Transformer(**{name: getattr(module, name) for name in names & own}, **others)


def joined(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a transformer, with those layers as one that read the same.

    For few positions: a product then takes as long as its kernel is read, and two or three read less
    evenly than one. What else reads or trains parameters knows the layers apart.

    Args:
        params: of a Transformer, as it is initialised.
    """

    def join(section, names):
        others = {name: found for name, found in section.items() if name not in names}
        parts = [section[name] for name in names]
        whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *parts)
        return others | {_name(names): whole}

    sections = params["layers"]
    attention, feed_forward = sections["attention"], sections["feed_forward"]
    joint = dict(attention=join(attention, _HEADS), feed_forward=join(feed_forward, _GATES))
    return {**params, "layers": {**sections, **joint}}


def _name(names: tuple[str, ...]) -> str:
    """Of the layer that some are joined to."""
    return "_".join(names)


def check_shape(model) -> None:
    """Raises ValueError unless the fields of `model` (a Transformer or its config) fit together."""
    for name in ("num_layers", "width", "hidden_width", "num_heads", "num_kv_heads", "head_dim"):
        if getattr(model, name) < 1:
            raise ValueError(f"transformer {name} must be at least 1, got {getattr(model, name)}")
    if model.num_heads % model.num_kv_heads:
        groups = f"num_kv_heads={model.num_kv_heads}"
        raise ValueError(f"transformer num_heads={model.num_heads} must be a multiple of {groups}")
    if model.head_dim % 2 or model.head_dim > _MAX_HEAD_DIM:
        limits = f"even and at most {_MAX_HEAD_DIM}"
        raise ValueError(f"transformer head_dim must be {limits}, got {model.head_dim}")
    for name, what in (("window", "for all"), ("modulation_rank", "without a condition")):
        if (value := getattr(model, name, 0)) < 0:
            raise ValueError(f"transformer {name} must be at least 0 ({what}), got {value}")
    for name, allowed in (
        ("block", BLOCKS),
        ("attention", ATTENTIONS),
        ("remat", REMATS),
        ("compute_dtype", COMPUTE_DTYPES),
        ("attention_implementation", attention_lib.IMPLEMENTATIONS),
    ):
        value = getattr(model, name)
        if value not in allowed:
            raise ValueError(f"transformer {name} must be one of {allowed}, got {value!r}")


def forward_flops(model, length: int, *, segments: int = 1) -> tuple[float, float]:
    """Multiplications and additions of one row of `length`: of the weights, and of attention.

    Attention counts the pairs that are allowed and no others, unlike model FLOPs utilisation as it
    is usually stated (PaLM, arXiv 2204.02311): none after a causal position, none beyond the window,
    none of another segment.

    Args:
        model: a Transformer or anything with its fields.
        length: positions.
        segments: that share the row. They are taken to be of one length, which makes the pairs the
            fewest that there can be.
    """
    queries, values = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    products = 3 if getattr(model, "block", "llama") == "llama" else 2  # with the hidden layer
    weights = model.width * (2 * queries + 2 * values + products * model.hidden_width)
    pairs = segments * _num_pairs(model, length / segments)
    return 2.0 * model.num_layers * weights * length, 4.0 * model.num_layers * queries * pairs


def _num_pairs(model, length: float) -> float:
    """Pairs of a position and one that it sees, itself included, in a segment of `length`."""
    reach = min(length, model.window or length)
    before = reach * (reach - 1) / 2 + (length - reach) * (reach - 1)
    return length + (1 if model.attention == "causal" else 2) * before


class _Block(_Fields):
    """Attention and feed-forward layer, each on the norm of what it is added to; between them, where
    there is a condition, attention to its context."""

    @nn.compact
    def __call__(self, x, memory, shared):
        attention = _Attention(**self.fields(), name="attention")
        feed_forward = _FeedForward(**self.fields(), name="feed_forward")
        first, second = _norm(self, "attention_norm"), _norm(self, "feed_forward_norm")
        if not self.modulation_rank:
            attended, memory = attention(_unfused(first(x)), memory, shared)
            x = layers.in_rows(x + attended, *_STREAM)
            x = x + feed_forward(_unfused(second(x)))
            return layers.in_rows(x, *_STREAM), memory
        condition = shared["condition"]
        own = conditioning.Modulation(
            self.width, self.modulation_rank, self.compute_dtype, name="modulation"
        )
        of_attention, of_feed_forward = own(condition)
        attended, memory = attention(_unfused(of_attention.of(first(x))), memory, shared)
        x = layers.in_rows(x + of_attention.gated(attended, bounded=True), *_STREAM)
        normed = _norm(self, "cross_attention_norm")(x)
        x = layers.in_rows(x + self._across()(_unfused(normed), condition), *_STREAM)
        made = feed_forward(_unfused(of_feed_forward.of(second(x))))
        return layers.in_rows(x + of_feed_forward.gated(made), *_STREAM), memory

    @nn.nowrap
    def _across(self) -> conditioning.CrossAttention:
        names = "width num_heads num_kv_heads head_dim qk_norm norm_epsilon compute_dtype".split()
        own = {name: getattr(self, name) for name in names}
        scale = _residual_scale(self.num_layers)
        return conditioning.CrossAttention(init_scale=scale, **own, name="cross_attention")


class _Attention(_Fields):
    @nn.compact
    def __call__(self, x, memory, shared):
        counts = self.num_heads, self.num_kv_heads, self.num_kv_heads
        if self.has_variable("params", _name(_HEADS)):
            heads = self._heads(_name(_HEADS), sum(counts), "heads", x)
            query, key, value = jnp.split(heads, [counts[0], counts[0] + counts[1]], axis=1)
        else:
            axes = "heads", "kv_heads", "kv_heads"
            query, key, value = (
                self._heads(name, count, axis, x) for name, count, axis in zip(_HEADS, counts, axes)
            )
        scales = layers.head_scales(self.head_dim) if self.qk_norm else None
        preparation = layers.Preparation(shared["rotation"], scales, self.norm_epsilon)
        if memory is None:
            kind = attention_lib.Kind(
                self.attention == "causal", self.window, self.attention_implementation
            )
            attended = attention_lib.attend(
                query, key, value, preparation, shared["segments"], kind=kind
            )
        else:
            query, key = preparation(query, key)
            attended = attention_lib.attend_cached(
                query,
                key,
                value,
                cached_key=memory[0],
                cached_value=memory[1],
                seen=shared["seen"],
                seen_now=shared["seen_now"],
            )
            memory = key, value
        output = layers.FromHeads(
            self.width,
            axes=("heads", "embed"),
            use_bias=self.block == "vit",
            init_scale=_residual_scale(self.num_layers),
            compute_dtype=self.compute_dtype,
            name="output",
        )
        return _kept(output(_unfused(_kept(attended)))), memory

    def _heads(self, name: str, num_heads: int, axis_name: str, x: jax.Array) -> jax.Array:
        """[b, num_heads, t, head_dim]"""
        linear = layers.IntoHeads(
            num_heads * self.head_dim,
            num_heads=num_heads,
            axes=("embed", axis_name),
            use_bias=self.qkv_bias or self.block == "vit",
            compute_dtype=self.compute_dtype,
            name=name,
        )
        return _unfused(_kept(linear(x)))


class _FeedForward(_Fields):
    """SwiGLU, or one layer of exact GELU."""

    @nn.compact
    def __call__(self, x):
        dtype, use_bias = self.compute_dtype, self.block == "vit"
        into = functools.partial(
            layers.Linear, axes=("embed", "hidden"), compute_dtype=dtype, use_bias=use_bias
        )
        if self.block == "vit":
            up = _kept(into(self.hidden_width, name="up")(x), _HIDDEN)
            hidden = nn.gelu(up, approximate=False)
        else:
            gate, up = self._gates(x, into)
            hidden = nn.silu(gate) * up
        hidden = layers.constrain(hidden, "batch", "time", "hidden")
        down = layers.Linear(
            self.width,
            axes=("hidden", "embed"),
            use_bias=use_bias,
            init_scale=_residual_scale(self.num_layers),
            compute_dtype=dtype,
            name="down",
        )
        return down(hidden)

    @nn.nowrap
    def _gates(self, x: jax.Array, into: Callable[..., layers.Linear]) -> tuple[jax.Array, ...]:
        if self.has_variable("params", _name(_GATES)):
            both = _unfused(into(2 * self.hidden_width, name=_name(_GATES))(x))
            return tuple(jnp.split(both, 2, axis=-1))
        return tuple(_kept(into(self.hidden_width, name=name)(x), _HIDDEN) for name in _GATES)


def _norm(model: _Fields, name: str | None = None) -> nn.Module:
    kind = layers.LayerNorm if model.block == "vit" else layers.RMSNorm
    return kind(model.norm_epsilon, name=name)


def _residual_scale(num_layers: int) -> float:
    """Of the layers whose outputs are summed: the sum of two per block keeps its variance."""
    return 1.0 / (2 * num_layers)


def _kept(x: jax.Array, name: str = _NARROW) -> jax.Array:
    return ad_checkpoint.checkpoint_name(x, name)


def _unfused(x: jax.Array) -> jax.Array:
    """Keeps the product on one side, and that of its gradient, free of the norm on the other.

    A product that XLA fuses with sums over its rows takes a TPU up to three times as long.
    """
    return jax.lax.optimization_barrier(x)
