# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: written and read back, single and sharded, onto a mesh; bad ones refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model
from f3tok_jax.pretrained import language_model as pretrained_language_model

_FIELDS = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    rope_theta=1e4,
    model_type="qwen3",
    tie_word_embeddings=True,
)
_read = functools.partial(pretrained_language_model.read, compute_dtype="float32", remat="none")


def _random_params(model) -> dict:
    rng = np.random.default_rng(0)
    shapes = sharding.unbox(language_model.abstract_params(model))
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


@pytest.fixture
def make_folder(tmp_path, tokenizer_of):
    """Writes a model; returns its folder, module and parameters."""

    def write(max_file_bytes=2**32, **changes):
        model = language_model.make(_FIELDS | changes, compute_dtype="float32", remat="none")
        params, tokenizer = _random_params(model), tmp_path / "source.json"
        tokenizer_of(_FIELDS["vocab_size"]).save(str(tokenizer))
        folder = tmp_path / "model"
        pretrained_language_model.write(
            folder, model, params, tokenizer, max_file_bytes=max_file_bytes
        )
        return folder, model, params

    return write


@pytest.mark.parametrize(
    "changes",
    [dict(), dict(max_file_bytes=2**14), dict(model_type="qwen2", tie_word_embeddings=False)],
)
def test_what_is_written_is_read_back(make_folder, changes):
    folder, model, params = make_folder(**changes)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert (names == ["model.safetensors"]) == ("max_file_bytes" not in changes)
    assert not list(folder.glob(".*.partial"))
    assert _read(folder) == model
    jax.tree.map(
        np.testing.assert_array_equal, pretrained_language_model.load_params(folder, model), params
    )


def test_each_device_gets_its_part_in_the_dtype_asked_for(make_folder):
    folder, model, params = make_folder(max_file_bytes=2**14)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=4, tensor=2))
    abstract = language_model.abstract_params(model, jnp.bfloat16)
    where = sharding.state_shardings(abstract, mesh, 64)
    loaded = pretrained_language_model.load_params(folder, model, where, jnp.bfloat16)
    gate = loaded["transformer"]["layers"]["feed_forward"]["gate"]["kernel"]
    assert {shard.data.shape for shard in gate.addressable_shards} == {(3, 8, 32)}
    jax.tree.map(
        lambda found, full: np.testing.assert_array_equal(found, full.astype(jnp.bfloat16)),
        loaded,
        params,
    )


def test_the_host_reads_each_part_by_itself_and_equal_ones_once(make_folder, monkeypatch):
    folder, model, params = make_folder()
    read, part = [], pretrained_language_model._Tensors.part

    def spy(*arguments):
        array = part(*arguments)
        read.append(array.nbytes)
        return array

    monkeypatch.setattr(pretrained_language_model._Tensors, "part", spy)
    mesh = sharding.make_mesh(dict(replica=2, fsdp=4, tensor=1))
    abstract = language_model.abstract_params(model)
    where = sharding.state_shardings(abstract, mesh, 1024)
    pretrained_language_model.load_params(folder, model, where)
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(params)]
    assert sum(read) == sum(sizes)
    assert max(read) == max(sizes) / 4


def test_bfloat16_goes_out_and_in(make_folder, tmp_path):
    folder, model, params = make_folder()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    again = tmp_path / "half"
    pretrained_language_model.write(again, model, half, folder / "tokenizer.json")
    assert json.loads((again / "config.json").read_text())["torch_dtype"] == "bfloat16"
    loaded = pretrained_language_model.load_params(again, model, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, loaded, half)


def test_fingerprints_tell_models_apart(make_folder):
    folder, _, _ = make_folder()
    first = pretrained_language_model.fingerprint(folder)
    assert first == pretrained_language_model.fingerprint(folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert pretrained_language_model.fingerprint(folder) != first


def _change_tensors(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors_numpy.load_file(path)
    change(tensors)
    safetensors_numpy.save_file(tensors, path)


_NORM = "model.layers.1.self_attn.q_norm.weight"


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t.pop(_NORM), f"lacks {_NORM}"),
        (lambda t: t.update(extra=np.zeros(3)), "has tensors beyond it, extra"),
        (
            lambda t: t.update({_NORM: np.zeros(9, np.float32)}),
            rf"{_NORM} .* must have the shape \(8,\) of its config.json, got \(9,\)",
        ),
    ],
)
def test_wrong_tensors_are_refused_by_name(make_folder, change, message):
    folder, _, _ = make_folder()
    _change_tensors(folder, change)
    with pytest.raises(ValueError, match=message):
        _read(folder)


def test_a_tied_table_may_be_there_twice(make_folder):
    folder, _, params = make_folder()
    _change_tensors(folder, lambda t: t.update({"lm_head.weight": params["embedding"]}))
    _read(folder)


def test_folders_that_are_no_model_are_refused(make_folder, tmp_path, tokenizer_of):
    with pytest.raises(ValueError, match="must be a Hugging Face folder .* got no config.json"):
        _read(tmp_path)
    folder, _, _ = make_folder(max_file_bytes=2**14)
    cases = {
        "config.json": ("[]", "must be a JSON object, got list"),
        "tokenizer.json": ("{}", "must be a tokenizer.json of the tokenizers library"),
        "model.safetensors.index.json": (
            json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}),
            "must name files in its folder, got '../elsewhere.safetensors'",
        ),
        "model-00001-of-": ("damaged", "must be a safetensors file"),
    }
    for name, (content, message) in cases.items():
        path = next(folder.glob(name + "*"))
        good = path.read_bytes()
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            _read(folder)
        path.write_bytes(good)
    _read(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type must be one of .*'gpt2' .*config.json"):
        _read(folder)


@pytest.mark.parametrize("num_tokens", [97, 2])
def test_a_tokenizer_of_another_model_is_refused(tmp_path, tokenizer_of, num_tokens):
    path = tmp_path / "tokenizer.json"
    tokenizer_of(num_tokens).save(str(path))
    rows = 96 if num_tokens == 97 else 151_936
    with pytest.raises(ValueError, match=f"table of {rows} rows, got {num_tokens} tokens"):
        pretrained_language_model.check_tokenizer(path, rows)
