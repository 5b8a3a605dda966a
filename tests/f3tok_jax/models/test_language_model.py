# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The language model: parity with transformers, published sizes, gradients through frozen weights."""

import functools
import json
import math
import os
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model
from f3tok_jax.pretrained import language_model as pretrained_language_model

_TINY = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
)

# The published config.json files, without what does not change a shape.
_QWEN3_06B = dict(
    model_type="qwen3",
    hidden_act="silu",
    attention_bias=False,
    rope_scaling=None,
    use_sliding_window=False,
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=40_960,
    rms_norm_eps=1e-6,
    rope_theta=1_000_000,
    tie_word_embeddings=True,
)
_QWEN3_4B = _QWEN3_06B | dict(
    hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32
)
_SMOLLM2_135M = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    hidden_act="silu",
    attention_bias=False,
    mlp_bias=False,
    is_llama_config=True,
    pretraining_tp=1,
    rope_interleaved=False,
    rope_scaling=None,
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_theta=100_000,
    tie_word_embeddings=True,
)
_TINYLLAMA = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    hidden_act="silu",
    attention_bias=False,
    pretraining_tp=1,
    rope_scaling=None,
    vocab_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    max_position_embeddings=2048,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    tie_word_embeddings=False,
)


_VARIANTS = (  # kind, heads, key-value heads, head_dim, tied embeddings
    ("qwen3", 4, 2, 16, True),
    ("qwen3", 4, 1, 8, False),
    ("qwen3", 2, 2, 32, True),
    ("qwen2", 4, 2, None, True),
    ("qwen2", 3, 3, None, False),
    ("llama", 6, 2, None, True),  # as SmolLM2, three heads to a head of keys
    ("llama", 4, 1, None, False),  # as TinyLlama
    ("llama", 4, 2, 16, True),
)
_IDS = np.random.default_rng(0).integers(0, _TINY["vocab_size"], (2, 13))
# What transformers says of the folders that `_write_folder` writes; rewritten, where the extra
# "parity" is installed, by REWRITE_GOLDEN=1 pytest tests/f3tok_jax/models/test_language_model.py.
_GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "transformers_logits.npz"


def _fields(kind, heads, kv_heads, head_dim, is_tied) -> dict:
    fields = dict(num_attention_heads=heads, num_key_value_heads=kv_heads, rope_theta=1e4)
    fields |= dict(tie_word_embeddings=is_tied, model_type=kind)
    if kind == "llama":
        fields |= dict(rope_theta=1e5, rms_norm_eps=1e-5)
    return _TINY | fields | (dict(head_dim=head_dim) if head_dim else {})


def _tensors(fields) -> dict[str, np.ndarray]:
    """Random weights by the names and shapes of Hugging Face, each drawn from its own name."""
    width, hidden, vocabulary = (
        fields[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads, kv_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    head_dim = fields.get("head_dim", width // heads)
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    if not fields["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, width)
    for index in range(fields["num_hidden_layers"]):
        layer = {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
        layer |= {f"mlp.{name}_proj.weight": (hidden, width) for name in ("gate", "up")}
        layer["mlp.down_proj.weight"] = (width, hidden)
        layer["self_attn.o_proj.weight"] = (width, heads * head_dim)
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            layer[f"self_attn.{name}_proj.weight"] = (count * head_dim, width)
            if fields["model_type"] == "qwen2":
                layer[f"self_attn.{name}_proj.bias"] = (count * head_dim,)
            elif fields["model_type"] == "qwen3" and name != "v":
                layer[f"self_attn.{name}_norm.weight"] = (head_dim,)
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return {
        # Norms of exactly one and biases of zero would hide a mix-up.
        name: np.float32("norm" in name)
        + np.random.default_rng(zlib.crc32(name.encode()))
        .normal(scale=0.1, size=shape)
        .astype(np.float32)
        for name, shape in shapes.items()
    }


def _write_folder(folder, tokenizer_of, fields) -> None:
    safetensors.numpy.save_file(_tensors(fields), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(fields))
    tokenizer_of(fields["vocab_size"]).save(str(folder / "tokenizer.json"))


def _check_logits(folder, expected) -> None:
    """Whole sequences, and token by token from the cache."""
    model = pretrained_language_model.read(folder, compute_dtype="float32", remat="none")
    params = pretrained_language_model.load_params(folder, model)
    whole = jax.jit(functools.partial(model.apply, method="predict"))({"params": params}, _IDS)
    np.testing.assert_allclose(whole, expected, atol=1e-4)

    def one(cache, token):
        bound = model.bind({"params": params})
        hidden, cache = bound.step(bound.embed(token[:, None]), cache)
        return cache, bound.logits(hidden[:, 0])

    _, steps = jax.jit(functools.partial(jax.lax.scan, one))(model.initial_cache(2, 13), _IDS.T)
    np.testing.assert_allclose(np.swapaxes(steps, 0, 1), expected, atol=1e-4)


@pytest.mark.parametrize("variant", _VARIANTS, ids=str)
def test_logits_equal_the_stored_ones_of_transformers(tmp_path, tokenizer_of, variant):
    _write_folder(tmp_path, tokenizer_of, _fields(*variant))
    with np.load(_GOLDEN) as stored:
        _check_logits(tmp_path, stored[str(variant)])


def _their_logits(folder) -> np.ndarray:
    """What transformers says of a folder that it reads."""
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model.eval()(torch.tensor(_IDS)).logits.numpy()


def test_the_stored_logits_are_those_of_transformers(tmp_path, tokenizer_of):
    found = {}
    for index, variant in enumerate(_VARIANTS):
        folder = tmp_path / str(index)
        folder.mkdir()
        _write_folder(folder, tokenizer_of, _fields(*variant))
        found[str(variant)] = _their_logits(folder)
    if os.environ.get("REWRITE_GOLDEN"):
        np.savez_compressed(_GOLDEN, **found)
    with np.load(_GOLDEN) as stored:
        assert set(stored) == set(found)
        for name, logits in found.items():
            np.testing.assert_allclose(stored[name], logits, atol=1e-5)


@pytest.mark.parametrize("variant", _VARIANTS, ids=str)
def test_a_folder_that_transformers_wrote_is_read(tmp_path, tokenizer_of, variant):
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    torch.manual_seed(0)
    fields = _fields(*variant)
    config = transformers.AutoConfig.for_model(**fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh norms and biases are all ones and zeros, which would hide a mix-up.
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    tokenizer_of(fields["vocab_size"]).save(str(tmp_path / "tokenizer.json"))
    _check_logits(tmp_path, _their_logits(tmp_path))


@pytest.mark.parametrize(
    "fields,num_parameters",
    [
        (_QWEN3_06B, 596_049_920),
        (_QWEN3_4B, 4_022_468_096),
        (_SMOLLM2_135M, 134_515_008),
        (_TINYLLAMA, 1_100_048_384),
    ],
)
def test_published_shapes_have_the_published_number_of_parameters(fields, num_parameters):
    model = language_model.make(fields, compute_dtype="bfloat16", remat="block")
    shapes = language_model.abstract_params(model, jnp.bfloat16)
    leaves = jax.tree.leaves(shapes)
    assert sum(math.prod(leaf.shape) for leaf in leaves) == num_parameters
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    # What is large is split over all eight devices.
    mesh = sharding.make_mesh(dict(replica=1, fsdp=4, tensor=2))
    where = sharding.state_shardings(shapes, mesh, 2**20)
    parts = jax.tree.map(
        lambda leaf, there: math.prod(there.shard_shape(leaf.shape)), sharding.unbox(shapes), where
    )
    assert sum(jax.tree.leaves(parts)) < 1.01 * num_parameters / 8


@pytest.mark.parametrize(
    "fields", [_QWEN3_4B, _TINY | _fields("qwen2", 4, 2, None, True), _SMOLLM2_135M, _TINYLLAMA]
)
def test_a_config_survives_being_described(fields):
    made = functools.partial(language_model.make, compute_dtype="float32", remat="none")
    described = language_model.describe(made(fields))
    assert made(described) == made(fields)
    assert described["model_type"] == fields["model_type"]
    assert described["rope_theta"] == fields["rope_theta"]


def _make(**changes) -> language_model.LanguageModel:
    fields = _TINY | dict(
        model_type="qwen3",
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rope_theta=1e4,
    )
    return language_model.make(fields | changes, compute_dtype="float32", remat="none")


def test_gradients_reach_embeddings_through_frozen_weights():
    model = _make()
    params = sharding.unbox(
        jax.jit(functools.partial(language_model.init_params, model))(jax.random.key(0))
    )
    bound = model.bind({"params": params})
    embeddings = params["embedding"][None, 1:5]

    @jax.jit
    def loss(x):
        return -jax.nn.log_softmax(bound.logits(bound(x)[:, -1]))[0, 5]

    gradient = jax.jit(jax.grad(loss))(embeddings)
    assert (np.abs(gradient).sum(-1) > 0).all()
    # A small step along it lowers the loss by what it says.
    step = 1e-3 * gradient / jnp.linalg.norm(gradient)
    gained = loss(embeddings) - loss(embeddings - step)
    np.testing.assert_allclose(gained, 1e-3 * jnp.linalg.norm(gradient), rtol=0.05)


_LLAMA = dict(model_type="llama", head_dim=None)


@pytest.mark.parametrize(
    "changes",
    [
        dict(rope_theta=None, rope_parameters=dict(rope_type="default", rope_theta=1e4)),
        dict(rope_parameters=dict(rope_type="default", rope_theta=10_000)),
        dict(rope_parameters=dict(rope_theta=1e4, partial_rotary_factor=1.0)),
        dict(rope_scaling=dict(type="default")),
        dict(rope_scaling={}),
        dict(rope_theta=None),  # old ones do not say it
        dict(architectures=["LlamaForCausalLM"], layer_types=["full_attention"] * 2),
        dict(sliding_window=64),  # sees all positions
        dict(sliding_window=4, use_sliding_window=False),
        dict(head_dim=12),
    ],
)
def test_other_ways_to_say_the_same_are_understood(changes):
    assert _make(**_LLAMA | changes) == _make(**_LLAMA)


def test_a_llama_without_heads_of_keys_of_its_own_has_as_many_as_of_queries():
    assert _make(**_LLAMA, num_key_value_heads=None) == _make(**_LLAMA, num_key_value_heads=4)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(hidden_size="48"), "hidden_size of a KIND model must be a positive number .* '48'"),
        (dict(vocab_size=None), "vocab_size of a KIND model must be a positive number"),
        (dict(vocab_size=True), "vocab_size of a KIND model must be .*, got True"),
        (dict(vocab_size=10**30), "vocab_size .* at most 16,777,216, got 10000000"),
        (dict(num_hidden_layers=10**6), "num_hidden_layers .* at most 4,096, got 1000000"),
        (dict(rms_norm_eps=float("nan")), "rms_norm_eps .*, got nan"),
        (dict(head_dim="16"), "head_dim of a KIND model must be a positive number .*, got '16'"),
        (dict(head_dim=0), "head_dim of a KIND model must be a positive number .*, got 0"),
        (dict(head_dim=None, hidden_size=50), "hidden_size .* multiple of its num_attention_heads"),
        (dict(hidden_act="gelu"), "hidden_act of a KIND model must be 'silu', got 'gelu'"),
        (dict(use_sliding_window=True), "use_sliding_window .* must be False, got True"),
        (dict(layer_types=["full_attention", "sliding_attention"]), "layer_types .*'sliding_att"),
        (dict(layer_types="sliding_attention"), "layer_types of a KIND model must be"),
        (dict(attention_bias=True), "attention_bias of a KIND model must be False, got True"),
        (dict(mlp_bias=True), "mlp_bias of a KIND model must be False, got True"),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor .* must be 1, got 0.5"),
        (dict(attn_logit_softcapping=50.0), "attn_logit_softcapping .* must be None, got 50.0"),
        (dict(final_logit_softcapping=30.0), "final_logit_softcapping .* must be None, got 30.0"),
        (dict(logits_scaling=8.0), "logits_scaling of a KIND model must be 1, got 8.0"),
        (dict(num_local_experts=8), "num_local_experts of a KIND model must be 0, got 8"),
        (dict(quantization_config={"bits": 4}), "quantization_config .* before it was quantised"),
        (dict(tie_word_embeddings="false"), "tie_word_embeddings .*, got 'false'"),
        (dict(architectures=["GemmaForCausalLM"]), r"architectures .*ForCausalLM'\], got \['Gem"),
        (dict(architectures=3), r"architectures of a KIND model must be \['"),
        (
            dict(rope_parameters=dict(rope_type="yarn")),
            "rope_parameters .* got {'rope_type': 'yarn",
        ),
        (
            dict(rope_scaling=dict(type="linear", factor=2.0)),
            "rope_scaling .* got {'type': 'linear",
        ),
        (
            dict(rope_scaling=dict(factor=2.0)),
            "rope_scaling of a KIND model must have the rope_type",
        ),
        (dict(rope_scaling="linear"), "rope_scaling .* got 'linear'"),
        (
            dict(rope_parameters=dict(rope_type="default", partial_rotary_factor=0.25)),
            "rope_parameters of a KIND model .*: positions that are scaled are not built in; give",
        ),
        (
            dict(rope_parameters=dict(rope_theta=5e5)),
            "one number, got rope_theta=10000.0 and rope_parameters.rope_theta=500000.0",
        ),
        (dict(rope_theta=[1e4]), r"rope_theta .* must be a positive number .*, got \[10000.0\]"),
        (dict(rope_theta=float("inf")), "rope_theta .* must be a positive number .*, got inf"),
        (dict(num_key_value_heads=3), "num_heads=4 must be a multiple of num_kv_heads=3"),
    ],
)
def test_configs_of_other_models_are_refused_by_name(kind, changes, message):
    _make(model_type=kind)
    with pytest.raises(ValueError, match=message.replace("KIND", kind)):
        _make(**dict(model_type=kind) | changes)


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(model_type="mistral"), "model_type must be one of .*'llama'.*, got 'mistral'"),
        (_LLAMA | dict(sliding_window=32), "sliding_window .* as long as its 64 .*, got 32"),
        (_LLAMA | dict(use_qk_norm=True), "use_qk_norm of a llama model must be False, got True"),
        (dict(use_qk_norm=False), "use_qk_norm of a qwen3 model must be True, got False"),
        (dict(rope_theta=None), "rope_theta of a qwen3 model must be a positive .*, got None"),
        (dict(num_key_value_heads=None), "num_key_value_heads of a qwen3 model must be a positive"),
    ],
)
def test_what_one_kind_alone_may_say_is_refused_of_others(changes, message):
    with pytest.raises(ValueError, match=message):
        _make(**changes)
