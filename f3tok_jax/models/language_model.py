# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A causal language model that takes embeddings: Qwen2, Qwen3 and Llama, of any size."""

from collections.abc import Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.transformer import cache as cache_lib
from f3tok_jax.models.transformer import transformer as transformer_lib

# model_type -> whether it has norms of queries and keys, and biases of what they are made by.
_KINDS = {"qwen2": (False, True), "qwen3": (True, False), "llama": (False, False)}
MODEL_TYPES = tuple(_KINDS)

# Of a fresh table; with it the first losses are those of a uniform guess.
_EMBEDDING_STD = 0.02

# Keys of config.json that change what a model computes, and the values that this one knows; what
# other families have stands here too, because folders of their kin are labelled with these.
_ONLY = {
    "hidden_act": ("silu",),
    "hidden_activation": ("silu", None),
    **dict.fromkeys(
        "use_sliding_window attention_bias mlp_bias rope_interleaved use_parallel_residual "
        "use_bidirectional_attention".split(),
        (False, None),
    ),
    "is_causal": (True, None),
    **dict.fromkeys(
        "partial_rotary_factor embedding_multiplier residual_multiplier logits_scaling "
        "logit_scale".split(),
        (1, None),
    ),
    **dict.fromkeys(
        "attn_logit_softcapping final_logit_softcapping attention_multiplier "
        "query_pre_attn_scalar clip_qkv no_rope_layers quantization_config "
        "compression_config".split(),
        (None,),
    ),
    **dict.fromkeys(("num_experts", "num_local_experts"), (0, None)),
    "tie_word_embeddings": (True, False, None),
}
_REMEDIES = {
    **dict.fromkeys(
        ("quantization_config", "compression_config"),
        "give the folder of the model before it was quantised",
    ),
    "tie_word_embeddings": "write the one that is meant",
}
_SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads max_position_embeddings"
).split()
# Above which a number is a mistake, and its arrays would be asked for before anyone notices.
_MAX_SIZES = {"num_hidden_layers": 2**12}
_MAX_SIZE, _MAX_NUMBER = 2**24, 1e30

_LLAMA_ROPE_THETA = 10_000.0  # where an old config.json of a Llama does not say it
# What a dict of rotary positions may say beside its theta.
_PLAIN_ROPE = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}


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
    def initial_cache(self, batch_size: int, max_length: int) -> cache_lib.Cache:
        """See Transformer.initial_cache."""
        return self.transformer.initial_cache(batch_size, max_length)

    def step(
        self, embeddings: jax.Array, cache: cache_lib.Cache, *, mask: jax.Array | None = None
    ) -> tuple[jax.Array, cache_lib.Cache]:
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
    if kind == "llama" and fields.get("num_key_value_heads") is None:
        fields = {**fields, "num_key_value_heads": fields.get("num_attention_heads")}
    _check(fields, kind)
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    qk_norm, qkv_bias = _KINDS[kind]
    transformer = transformer_lib.Transformer(
        num_layers=fields["num_hidden_layers"],
        width=width,
        hidden_width=fields["intermediate_size"],
        num_heads=heads,
        num_kv_heads=fields["num_key_value_heads"],
        head_dim=fields.get("head_dim") or width // heads,
        rope_theta=_rope_theta(fields, kind),
        norm_epsilon=float(fields["rms_norm_eps"]),
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
        remat=remat,
        compute_dtype=compute_dtype,
    )
    transformer_lib.check_shape(transformer)
    return LanguageModel(
        vocabulary_size=fields["vocab_size"],
        max_length=fields["max_position_embeddings"],
        is_tied=bool(fields.get("tie_word_embeddings")),
        transformer=transformer,
    )


def _check(fields: Mapping[str, Any], kind: str) -> None:
    """Refuses sizes that are none, and what this model does not do."""
    of = f"of a {kind} model must be"
    has_head_dim = fields.get("head_dim") is not None
    for name in (*_SIZES, "rms_norm_eps", *["head_dim"] * has_head_dim):
        _check_number(fields.get(name), name, of, is_size=name != "rms_norm_eps")
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    if not has_head_dim and width % heads:
        raise ValueError(
            f"hidden_size {of} a multiple of its num_attention_heads={heads}, where no head_dim is "
            f"given, got {width}"
        )
    normed = dict.fromkeys(("use_qk_norm", "qk_layernorm"), (_KINDS[kind][0], None))
    for name, allowed in (_ONLY | normed).items():
        if name in fields and not any(fields[name] == value for value in allowed):
            remedy = _REMEDIES.get(name, "give a model without it")
            raise ValueError(
                f"{name} {of} {allowed[0]!r}, got {fields[name]!r:.80}: this variant is not built "
                f"in; {remedy}"
            )
    causal = f"{kind.capitalize()}ForCausalLM"
    classes = fields.get("architectures")
    if classes and not (isinstance(classes, (list, tuple)) and causal in classes):
        raise ValueError(f"architectures {of} [{causal!r}], got {classes!r:.80}: give such a model")
    _check_window(fields, kind, of)


def _check_number(value: Any, name: str, of: str, *, is_size: bool) -> None:
    most = _MAX_SIZES.get(name, _MAX_SIZE) if is_size else _MAX_NUMBER
    if type(value) not in ((int,) if is_size else (int, float)) or not 0 < value <= most:
        raise ValueError(f"{name} {of} a positive number of at most {most:,}, got {value!r:.80}")


def _check_window(fields: Mapping[str, Any], kind: str, of: str) -> None:
    """Refuses layers that do not see all that stands before a position."""
    types = fields.get("layer_types") or ()
    is_list = isinstance(types, (list, tuple))
    if not is_list or any(found != "full_attention" for found in types):
        raise ValueError(
            f"every one of layer_types {of} 'full_attention', got {types!r:.200}: this variant is "
            "not built in; give a model without it"
        )
    window, length = fields.get("sliding_window"), fields["max_position_embeddings"]
    # A Qwen's is not in use unless use_sliding_window says so.
    is_used = kind == "llama" and fields.get("use_sliding_window") is None and window is not None
    if is_used and not (type(window) is int and window >= length):
        raise ValueError(
            f"sliding_window {of} None, or as long as its {length} positions, got {window!r:.80}: "
            "this variant is not built in; give a model without it"
        )


def _rope_theta(fields: Mapping[str, Any], kind: str) -> float:
    """From `rope_parameters` or `rope_scaling`, where newer files have it, or `rope_theta`."""
    found = {"rope_theta": fields.get("rope_theta")}
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.get(name)
        if rope is None:
            continue
        plain = dict(rope) if isinstance(rope, Mapping) else {"": rope}
        found[f"{name}.rope_theta"] = plain.pop("rope_theta", None)
        if any(value not in (None, _PLAIN_ROPE.get(key)) for key, value in plain.items()):
            raise ValueError(
                f"{name} of a {kind} model must have the rope_type 'default', and nothing beside "
                f"its rope_theta, got {rope!r:.200}: positions that are scaled are not built in; "
                "give a model without it"
            )
    said = {name: theta for name, theta in found.items() if theta is not None}
    if not said:
        said = {"rope_theta": _LLAMA_ROPE_THETA if kind == "llama" else None}
    for name, theta in said.items():
        _check_number(theta, name, f"of a {kind} model must be", is_size=False)
    if len({*said.values()}) > 1:
        each = " and ".join(f"{name}={theta}" for name, theta in said.items())
        raise ValueError(
            f"rope_theta of a {kind} model must be one number, got {each}: write the one that the "
            "model was trained with"
        )
    return float(theta)


def describe(model: LanguageModel) -> dict[str, Any]:
    """Returns the fields of config.json from which `make` makes `model`."""
    transformer = model.transformer
    kinds = {has: kind for kind, has in _KINDS.items()}
    kind = kinds.get((transformer.qk_norm, transformer.qkv_bias))
    if kind is None or transformer.attention != "causal" or transformer.window:
        raise ValueError(
            "only causal models with either norms of queries and keys (qwen3) or biases (qwen2) or "
            "neither (llama), and without a window, have a config.json"
        )
    own = {
        "qwen2": {"use_sliding_window": False},
        "qwen3": {"use_sliding_window": False, "attention_bias": False},
        "llama": {"attention_bias": False, "mlp_bias": False},
    }
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
    } | own[kind]


def init_params(model: LanguageModel, key: jax.Array) -> Any:
    """Fresh float32 parameters, in boxes with their logical names."""
    return model.init(key, jnp.zeros((1, 1), jnp.int32), method="predict")["params"]


def abstract_params(model: LanguageModel, dtype: jnp.dtype = jnp.float32) -> Any:
    """Shapes of the parameters in `dtype`, in boxes with their logical names; takes no memory."""
    shapes = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)
