# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A causal language model that takes embeddings: Qwen2 and Qwen3, of any size."""

from collections.abc import Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.transformer import transformer as transformer_lib

MODEL_TYPES = ("qwen2", "qwen3")

# Of a fresh table; with it the first losses are those of a uniform guess.
_EMBEDDING_STD = 0.02

# Keys of config.json that change what a model computes, and the values that this one knows.
_ONLY = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False, None),
    "attention_bias": (False, None),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1, None),
}
_SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads max_position_embeddings"
).split()


class LanguageModel(nn.Module):
    """Token table, transformer, and logits from the table or from weights of their own.

    Embeddings are the input, so that audio tokens may stand among those of text; logits are
    computed where they are asked for.
    """

    vocabulary_size: int
    max_length: int  # positions it was made for
    is_tied: bool  # the table is also the output layer
    transformer: transformer_lib.Transformer

    def setup(self):
        normal = nn.initializers.normal(_EMBEDDING_STD)
        init = nn.with_logical_partitioning(normal, ("vocabulary", "embed"))
        shape = (self.vocabulary_size, self.width)
        self.embedding = self.param("embedding", init, shape, jnp.float32)
        if not self.is_tied:
            self.head = self.param("head", init, shape, jnp.float32)

    @property
    def width(self) -> int:
        return self.transformer.width

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings [..., width] of token ids [...], in the compute dtype."""
        return jnp.take(self._gathered(self.embedding), ids, axis=0)

    def __call__(
        self,
        embeddings: jax.Array,
        *,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states [b, t, width] of embeddings [b, t, width]; see Transformer.__call__."""
        return self.transformer(embeddings, positions=positions, segments=segments)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., vocabulary_size] float32 of hidden states [..., width]."""
        table = self._gathered(self.embedding if self.is_tied else self.head)
        return jnp.einsum(
            "...d,vd->...v", hidden.astype(table.dtype), table, preferred_element_type=jnp.float32
        )

    def predict(self, ids: jax.Array, *, segments: jax.Array | None = None) -> jax.Array:
        """Logits [b, t, vocabulary_size] of what follows each of the token ids [b, t]."""
        return self.logits(self(self.embed(ids), segments=segments))

    @nn.nowrap
    def initial_cache(self, batch_size: int, max_length: int) -> transformer_lib.Cache:
        """See Transformer.initial_cache."""
        return self.transformer.initial_cache(batch_size, max_length)

    def step(
        self, embeddings: jax.Array, cache: transformer_lib.Cache, *, mask: jax.Array | None = None
    ) -> tuple[jax.Array, transformer_lib.Cache]:
        """Hidden states of the next positions; see Transformer.step."""
        return self.transformer.step(embeddings, cache, mask=mask)

    @nn.nowrap
    def table(self, params: Mapping[str, Any]) -> jax.Array:
        """The token table [vocabulary_size, width] among this model's parameters."""
        return params["embedding"]

    def _gathered(self, table: jax.Array) -> jax.Array:
        table = table.astype(self.transformer.compute_dtype)
        return nn.with_logical_constraint(table, ("vocabulary", "embed"))


def make(fields: Mapping[str, Any], *, compute_dtype: str, remat: str) -> LanguageModel:
    """Returns the module that a config.json describes.

    Args:
        fields: of config.json, with the names of Hugging Face.
        compute_dtype: of the products, one of transformer.COMPUTE_DTYPES.
        remat: one of transformer.REMATS.

    Raises:
        ValueError: for an unknown model_type, a field that is missing or no positive number, or
            one that asks for what this model does not do.
    """
    kind = fields.get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(f"model_type must be one of {MODEL_TYPES}, got {kind!r}")
    for name in (*_SIZES, "rms_norm_eps"):
        value = fields.get(name)
        kinds = (int,) if name in _SIZES else (int, float)
        if type(value) not in kinds or value <= 0:
            raise ValueError(f"{name} of a {kind} model must be a positive number, got {value!r}")
    for name, allowed in _ONLY.items():
        if name in fields and fields[name] not in allowed:
            raise ValueError(
                f"{name} of a {kind} model must be {allowed[0]!r}, got {fields[name]!r}: this "
                "variant is not built in"
            )
    heads = fields["num_attention_heads"]
    transformer = transformer_lib.Transformer(
        num_layers=fields["num_hidden_layers"],
        width=fields["hidden_size"],
        hidden_width=fields["intermediate_size"],
        num_heads=heads,
        num_kv_heads=fields["num_key_value_heads"],
        head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
        rope_theta=_rope_theta(fields),
        norm_epsilon=float(fields["rms_norm_eps"]),
        qk_norm=kind == "qwen3",
        qkv_bias=kind == "qwen2",
        remat=remat,
        compute_dtype=compute_dtype,
    )
    transformer_lib.check_shape(transformer)
    return LanguageModel(
        vocabulary_size=fields["vocab_size"],
        max_length=fields["max_position_embeddings"],
        is_tied=bool(fields.get("tie_word_embeddings", False)),
        transformer=transformer,
    )


def _rope_theta(fields: Mapping[str, Any]) -> float:
    """From `rope_parameters`, where newer files have it, or `rope_theta`."""
    rope = fields.get("rope_parameters") or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise ValueError(f"rope_type must be 'default', got {kind!r}: it is not built in")
    theta = rope.get("rope_theta", fields.get("rope_theta"))
    if type(theta) not in (int, float) or theta <= 0:
        raise ValueError(f"rope_theta must be a positive number, got {theta!r}")
    return float(theta)


def describe(model: LanguageModel) -> dict[str, Any]:
    """Returns the fields of config.json from which `make` makes `model`."""
    transformer = model.transformer
    kinds = {(True, False): "qwen3", (False, True): "qwen2"}
    kind = kinds.get((transformer.qk_norm, transformer.qkv_bias))
    if kind is None or transformer.attention != "causal" or transformer.window:
        raise ValueError(
            "only causal models with either norms of queries and keys (qwen3) or biases (qwen2), "
            "and without a window, have a config.json"
        )
    return {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "vocab_size": model.vocabulary_size,
        "hidden_size": model.width,
        "intermediate_size": transformer.hidden_width,
        "num_hidden_layers": transformer.num_layers,
        "num_attention_heads": transformer.num_heads,
        "num_key_value_heads": transformer.num_kv_heads,
        "head_dim": transformer.head_dim,
        "max_position_embeddings": model.max_length,
        "rms_norm_eps": transformer.norm_epsilon,
        "rope_theta": transformer.rope_theta,
        "tie_word_embeddings": model.is_tied,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
    } | ({"attention_bias": False} if kind == "qwen3" else {})


def init_params(model: LanguageModel, key: jax.Array) -> Any:
    """Fresh float32 parameters, in boxes with their logical names."""
    return model.init(key, jnp.zeros((1, 1), jnp.int32), method="predict")["params"]


def abstract_params(model: LanguageModel, dtype: jnp.dtype = jnp.float32) -> Any:
    """Shapes of the parameters in `dtype`, in boxes with their logical names; takes no memory."""
    shapes = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)
