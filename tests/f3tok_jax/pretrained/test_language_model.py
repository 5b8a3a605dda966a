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

from data_pipelines.reading import tasks
from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model
from f3tok_jax.pretrained import language_model as pretrained_language_model
from tests.support import cases

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
    [
        dict(),
        dict(max_file_bytes=2**14),
        dict(model_type="qwen2", tie_word_embeddings=False),
        dict(model_type="llama", rope_theta=1e5),
        dict(model_type="llama", head_dim=None, tie_word_embeddings=False, max_file_bytes=2**14),
    ],
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


@pytest.mark.parametrize("kind", language_model.MODEL_TYPES)
def test_transformers_reads_what_is_written(make_folder, kind):
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    changes = dict(model_type=kind, rope_theta=1e5, rms_norm_eps=1e-5)
    folder, model, params = make_folder(max_file_bytes=2**14, **changes)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs).__name__ == f"{kind.capitalize()}ForCausalLM"
    ids = np.random.default_rng(0).integers(0, _FIELDS["vocab_size"], (2, 9))
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(ids)).logits.numpy()
    ours = jax.jit(functools.partial(model.apply, method="predict"))({"params": params}, ids)
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


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
    read, part = [], pretrained_language_model._part

    def spy(*arguments):
        array = part(*arguments)
        read.append(array.nbytes)
        return array

    monkeypatch.setattr(pretrained_language_model, "_part", spy)
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


@pytest.mark.parametrize("place", [(0, 0), (95, 31)])
def test_a_head_of_its_own_is_no_tied_one(make_folder, place):
    folder, model, params = make_folder()
    head = params["embedding"].copy()
    head[place] += 1
    _change_tensors(folder, lambda t: t.update({"lm_head.weight": head}))
    message = "lm_head.weight .* must equal model.embed_tokens.weight, .* tie_word_embeddings=true"
    for read in (_read, lambda folder: pretrained_language_model.load_params(folder, model)):
        with pytest.raises(ValueError, match=message):
            read(folder)


@pytest.mark.parametrize(
    "name,value",
    [
        (_NORM, np.nan),
        ("model.layers.2.mlp.up_proj.weight", np.inf),
        ("model.norm.weight", -np.inf),
    ],
)
def test_weights_that_are_not_finite_are_refused_wherever_they_go(make_folder, name, value):
    folder, model, _ = make_folder()
    _change_tensors(folder, lambda t: t[name].reshape(-1).__setitem__(-1, value))
    mesh = sharding.make_mesh(dict(replica=1, fsdp=4, tensor=2))
    abstract = language_model.abstract_params(model)
    for where in (None, sharding.state_shardings(abstract, mesh, 64)):
        with pytest.raises(ValueError, match=f"tensor {name} in .* must hold finite numbers"):
            pretrained_language_model.load_params(folder, model, where)


def _frequencies(theta, dtype):
    return (theta ** -(np.arange(0, 8, 2) / 8)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_the_angles_that_old_llamas_hold_must_be_those_of_the_config(make_folder, dtype):
    folder, _, _ = make_folder(model_type="llama")
    names = [f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(3)]
    _change_tensors(folder, lambda t: t.update(dict.fromkeys(names, _frequencies(1e4, dtype))))
    _read(folder)
    _change_tensors(folder, lambda t: t.update({names[1]: _frequencies(2e4, dtype)}))
    with pytest.raises(ValueError, match=f"tensor {names[1]} .* of the rope_theta=10000 of its"):
        _read(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_refused_with_the_remedy(make_folder, name):
    folder, _, _ = make_folder()
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=f"{name} must be the file itself, .* git lfs pull"):
        _read(folder)


def test_a_tokenizer_in_another_format_is_told_what_to_do(make_folder):
    folder, _, _ = make_folder()
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(ValueError, match="got no tokenizer.json there but tokenizer.model: write"):
        _read(folder)


def test_a_quantised_model_is_refused_by_its_config(make_folder):
    folder, _, _ = make_folder()
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="quantization_config .* before it was quantised .*config"):
        _read(folder)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_that_are_no_floats_are_refused_by_name(make_folder, name):
    folder, model, _ = make_folder()
    _change_tensors(folder, lambda t: t.update({name: t[name].astype(np.int8)}))
    for read in (_read, lambda folder: pretrained_language_model.load_params(folder, model)):
        with pytest.raises(ValueError, match=f"tensor {name} in .* got I8: give the folder"):
            read(folder)


def test_a_tensor_of_the_index_is_read_from_its_file_alone(make_folder):
    folder, model, params = make_folder(max_file_bytes=2**14)
    files = sorted(folder.glob("model-*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for path in files:  # each holds a wrong copy of what the next one has
        tensors = safetensors_numpy.load_file(path)
        others = [name for name, file in index.items() if file != path.name]
        wrong = {name: np.full(3, np.nan, np.float32) for name in others}
        safetensors_numpy.save_file(tensors | wrong, path)
    assert _read(folder) == model
    jax.tree.map(
        np.testing.assert_array_equal, pretrained_language_model.load_params(folder, model), params
    )


@pytest.mark.parametrize("first,then", [(2**32, 2**14), (2**14, 2**32)])
def test_a_folder_is_not_written_in_two_layouts(make_folder, tmp_path, first, then):
    make_folder(max_file_bytes=first)
    make_folder(max_file_bytes=first)  # the same again is what it was
    with pytest.raises(ValueError, match="must hold no model.safetensors.*: give an empty folder"):
        make_folder(max_file_bytes=then)
    _read(tmp_path / "model")


def test_the_end_of_a_text_goes_out_with_the_model(make_folder, tmp_path, tokenizer_of):
    _, model, params = make_folder(model_type="llama")
    tokenizer = tokenizer_of(95)
    tokenizer.add_special_tokens(["</s>"])
    source = tmp_path / "llama"
    source.mkdir()
    tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    pretrained_language_model.write(tmp_path / "again", model, params, source)
    assert _read(tmp_path / "again") == model
    assert tasks.TextTasks(tmp_path / "again", {"voice": 1.0}, 60).end_of_text == 95


@pytest.mark.parametrize(
    "name,message",
    [
        ("int8", "quantization_config of a qwen3 model must be None"),
        ("lfs", "model.safetensors must be the file itself, got a Git LFS pointer"),
        ("nan", "tensor model.norm.weight in .* must hold finite numbers"),
    ],
)
def test_the_shared_cases_are_refused_by_name(name, message):
    folder = cases.folder("language_models") / name
    with pytest.raises(ValueError, match=message):
        pretrained_language_model.load_params(folder, _read(folder))


def test_the_shared_case_of_a_tensor_in_two_files_follows_its_index():
    folder = cases.folder("language_models") / "dup_names"
    found = pretrained_language_model.load_params(folder, _read(folder))
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = safetensors_numpy.load_file(folder / index["model.norm.weight"])
    norm = found["transformer"]["final_norm"]["scale"]
    np.testing.assert_array_equal(norm, tensors["model.norm.weight"])


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
        "model-00001-of-": ("damaged", "must be a whole safetensors file"),
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
