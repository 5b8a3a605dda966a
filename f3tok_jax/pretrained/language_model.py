# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Language models in Hugging Face folders: config.json, safetensors and tokenizer.json.

Weights are read slice by slice, straight into the shardings of a mesh.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.reading import end_of_text
from data_pipelines.reading import tasks
from data_pipelines.records import atomic
from data_pipelines.records import json_object
from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import language_model_folder as folders

# Rows of the table that no token uses: models pad theirs to a multiple of 64 up to 1024.
_MAX_UNUSED_ROWS = 1024

_TABLE, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_LAYER = "model.layers.{layer}."
# What old folders of Llamas hold beside weights: the angles per position.
_FREQUENCIES = _LAYER + "self_attn.rotary_emb.inv_freq"
# Path of a parameter -> (name of the tensor, whether it is stored [out, in]).
_TENSORS = {
    "embedding": (_TABLE, False),
    "head": (_HEAD, False),
    "transformer/final_norm/scale": ("model.norm.weight", False),
    "transformer/layers/attention_norm/scale": (_LAYER + "input_layernorm.weight", False),
    "transformer/layers/feed_forward_norm/scale": (
        _LAYER + "post_attention_layernorm.weight",
        False,
    ),
    "transformer/layers/attention/query_norm/scale": (_LAYER + "self_attn.q_norm.weight", False),
    "transformer/layers/attention/key_norm/scale": (_LAYER + "self_attn.k_norm.weight", False),
    **{
        f"transformer/layers/attention/{ours}/{what}": (
            f"{_LAYER}self_attn.{theirs}_proj.{'weight' if what == 'kernel' else 'bias'}",
            what == "kernel",
        )
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o"))
        for what in ("kernel", "bias")
    },
    **{
        f"transformer/layers/feed_forward/{name}/kernel": (_LAYER + f"mlp.{name}_proj.weight", True)
        for name in ("gate", "up", "down")
    },
}


@dataclasses.dataclass(frozen=True)
class _Stored:
    """One parameter as the tensors of a folder: one, or one per layer."""

    names: tuple[str, ...]
    shape: tuple[int, ...]  # of each tensor, as stored
    is_stacked: bool
    is_transposed: bool


def read(
    folder: str | os.PathLike, *, compute_dtype: str, remat: str
) -> language_model.LanguageModel:
    """Returns the module of a folder; its weights are read by `load_params`.

    Args:
        folder: with config.json, safetensors and tokenizer.json.
        compute_dtype: of the products.
        remat: one of transformer.REMATS.

    Raises:
        ValueError: where the folder is no model, or none that can be read: a model_type that is
            not built in, tensors that are missing, left over, no floats or of another shape, a
            head beside a table that should be it, a tokenizer that does not match the table.
    """
    fields = json_object.read(folders.find(folder, folders.CONFIG_NAME))
    try:
        model = language_model.make(fields, compute_dtype=compute_dtype, remat=remat)
    except ValueError as error:
        raise ValueError(f"{error} ({pathlib.Path(folder) / folders.CONFIG_NAME})") from error
    check_tokenizer(folder, model.vocabulary_size)
    with weight_files.WeightFiles(folder) as files:
        _check(files, model, folder)
    return model


def check_tokenizer(folder: str | os.PathLike, vocabulary_size: int) -> None:
    """Refuses a tokenizer whose tokens are not the rows of a table.

    Args:
        folder: with a tokenizer.json, or such a file.
        vocabulary_size: rows of the table.

    Raises:
        ValueError: where there is none, or it has tokens beyond the table, or far too few.
    """
    path = pathlib.Path(folder)
    path = path if path.is_file() else folders.find(folder, tasks.TOKENIZER_NAME)
    tokenizer, _ = tasks.read_tokenizer(path)
    num_ids = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not vocabulary_size - _MAX_UNUSED_ROWS <= num_ids <= vocabulary_size or not num_ids:
        raise ValueError(
            f"the tokenizer must match the embedding table of {vocabulary_size} rows, got "
            f"{num_ids} tokens in {path}; give the tokenizer that the model was trained with"
        )


def load_params(
    folder: str | os.PathLike,
    model: language_model.LanguageModel,
    shardings: Any = None,
    dtype: jnp.dtype = jnp.float32,
) -> Any:
    """Reads the weights of a folder, each device's part by itself.

    The host holds no more than one parameter's local parts at a time.

    Args:
        folder: from which `model` was read.
        model: of the parameters.
        shardings: tree like the parameters, from sharding.state_shardings; default one device.
        dtype: of the arrays.

    Returns:
        Plain parameters of `model`.

    Raises:
        ValueError: for tensors that are missing, left over, no floats, of another shape, or not
            finite.
    """
    shapes = sharding.unbox(language_model.abstract_params(model, dtype))
    if shardings is None:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: device, shapes)
    with weight_files.WeightFiles(folder) as files:
        stored = _stored(model)
        _check(files, model, folder)

        def load(path, leaf, where):
            source = stored[fingerprints.path_name(path)]
            part = functools.lru_cache(maxsize=None)(
                lambda key: _part(files, source, [slice(*limits) for limits in key], leaf.dtype)
            )
            return jax.make_array_from_callback(
                leaf.shape, where, lambda index: part(_limits(index, leaf.shape))
            )

        return jax.tree.map_with_path(load, shapes, shardings)


def write(
    folder: str | os.PathLike,
    model: language_model.LanguageModel,
    params: Any,
    tokenizer_path: str | os.PathLike,
    *,
    max_file_bytes: int = 2**32,
) -> None:
    """Writes a folder that `read` and Hugging Face's transformers load.

    Args:
        folder: made if need be; config.json comes last, so that a folder with one is whole.
        model: of the parameters.
        params: plain, on this process's devices or in memory; in their own dtype.
        tokenizer_path: tokenizer.json that goes with it, or a folder with one.
        max_file_bytes: above which weights go to several files with an index.

    Raises:
        ValueError: for a tokenizer that does not match, or a folder with weights in another layout.
    """
    check_tokenizer(tokenizer_path, model.vocabulary_size)
    source, target = pathlib.Path(tokenizer_path), pathlib.Path(folder)
    source = source / tasks.TOKENIZER_NAME if source.is_dir() else source
    leaves = dict(zip(fingerprints.paths(params), jax.tree.leaves(params)))
    _write_weights(target, model, leaves, max_file_bytes)
    atomic.write_bytes(target / tasks.TOKENIZER_NAME, source.read_bytes())
    dtypes = {np.dtype(leaf.dtype).name for leaf in leaves.values()}
    fields = {"torch_dtype": dtypes.pop() if len(dtypes) == 1 else "float32"}
    tokenizer, _ = tasks.read_tokenizer(source)
    end = end_of_text.find(source, tokenizer)
    if end is not None and tokenizer.token_to_id(end_of_text.USUAL) is None:
        fields["eos_token_id"] = end
    _write_json(target / folders.CONFIG_NAME, language_model.describe(model) | fields)


def tensors(model: language_model.LanguageModel, params: Any) -> dict[str, np.ndarray]:
    """Parameters of `model`, plain, as the tensors of a folder by name, in their own dtype."""
    leaves = dict(zip(fingerprints.paths(params), jax.tree.leaves(params)))
    return _tensors_of(model, leaves, set(tensor_shapes(model)))


def tensor_shapes(model: language_model.LanguageModel) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each of those tensors."""
    return {name: one.shape for one in _stored(model).values() for name in one.names}


def from_tensors(model: language_model.LanguageModel, tensors: Mapping[str, np.ndarray]) -> Any:
    """The reverse of `tensors`: arrays in the structure of the parameters, in their own dtype."""
    abstract = sharding.unbox(language_model.abstract_params(model))
    leaves = []
    for source in map(_stored(model).get, fingerprints.paths(abstract)):
        found = [tensors[name] for name in source.names]
        parts = [array.T for array in found] if source.is_transposed else found
        leaves.append(np.stack(parts) if source.is_stacked else parts[0])
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _write_weights(
    target: pathlib.Path,
    model: language_model.LanguageModel,
    leaves: Mapping[str, Any],
    max_file_bytes: int,
) -> None:
    """Writes parameters by path to as many files as they take, with an index if more than one."""
    sizes = {
        name: leaves[path].nbytes // len(source.names)
        for path, source in _stored(model).items()
        for name in source.names
    }
    files = _split(sizes, max_file_bytes)
    other = folders.INDEX_NAME if len(files) == 1 else folders.SINGLE_NAME
    if (target / other).exists():
        raise ValueError(
            f"{target} must hold no {other} of another model, beside which these weights would be "
            "ambiguous: give an empty folder"
        )
    for file, names in files.items():
        weight_files.write(target / file, _tensors_of(model, leaves, set(names)))
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: file for file, names in files.items() for name in names},
        }
        _write_json(target / folders.INDEX_NAME, index)


def _check(
    files: weight_files.WeightFiles, model: language_model.LanguageModel, folder: str | os.PathLike
) -> None:
    """Refuses files whose tensors are not those of a model; what says a thing twice must say it."""
    shapes = tensor_shapes(model)
    twice = model.is_tied and _HEAD in files.names
    if twice:
        shapes[_HEAD] = shapes[_TABLE]
    frequencies = _frequencies(model)
    layers = range(model.transformer.num_layers)
    buffers = {_FREQUENCIES.format(layer=layer) for layer in layers} & files.names
    files.check(shapes | dict.fromkeys(buffers, frequencies.shape))
    if twice and not files.are_equal(_HEAD, _TABLE):
        raise ValueError(
            f"the tensor {_HEAD} in {folder} must equal {_TABLE}, because its config.json has "
            "tie_word_embeddings=true, got other values: write false there, or remove the tensor"
        )
    for name in sorted(buffers):
        found = files.part(name, (slice(None),), np.float64)
        # Half precision keeps three digits.
        if not np.allclose(found, frequencies, rtol=1e-2, atol=1e-6):
            raise ValueError(
                f"the tensor {name} in {folder} must be of the rope_theta="
                f"{model.transformer.rope_theta:g} of its config.json, got other frequencies: "
                "write the one that it was trained with"
            )


def _frequencies(model: language_model.LanguageModel) -> np.ndarray:
    """Of the rotary positions, as transformer.Transformer has them: [head_dim / 2], radians."""
    size = model.transformer.head_dim
    return model.transformer.rope_theta ** -(np.arange(0, size, 2) / size)


def _part(
    files: weight_files.WeightFiles, source: _Stored, index: list[slice], dtype: jnp.dtype
) -> np.ndarray:
    """The part `index` of a parameter."""
    names, inner = source.names, tuple(index)
    if source.is_stacked:
        names, inner = names[index[0]], inner[1:]
    if source.is_transposed:
        inner = inner[::-1]
    parts = [files.part(name, inner, dtype) for name in names]
    if source.is_transposed:
        parts = [part.T for part in parts]
    return np.stack(parts) if source.is_stacked else parts[0]


@functools.lru_cache(maxsize=4)
def _stored(model: language_model.LanguageModel) -> dict[str, _Stored]:
    """Path of every parameter -> where it is stored."""
    shapes = sharding.unbox(language_model.abstract_params(model))
    stored = {}
    for path, leaf in zip(fingerprints.paths(shapes), jax.tree.leaves(shapes)):
        template, is_transposed = _TENSORS[path]
        is_stacked = template.startswith(_LAYER)
        layers = range(model.transformer.num_layers) if is_stacked else range(1)
        shape = leaf.shape[1:] if is_stacked else leaf.shape
        stored[path] = _Stored(
            tuple(template.format(layer=layer) for layer in layers),
            shape[::-1] if is_transposed else shape,
            is_stacked,
            is_transposed,
        )
    return stored


def _tensors_of(model, leaves: Mapping[str, Any], wanted: set[str]) -> dict[str, np.ndarray]:
    """The tensors `wanted`, from parameters by path."""
    tensors = {}
    for path, source in _stored(model).items():
        for layer, name in enumerate(source.names):
            if name in wanted:
                leaf = leaves[path][layer] if source.is_stacked else leaves[path]
                array = np.asarray(jax.device_get(leaf))
                tensors[name] = np.ascontiguousarray(array.T if source.is_transposed else array)
    return tensors


def _split(sizes: Mapping[str, int], max_file_bytes: int) -> dict[str, list[str]]:
    """File -> tensors, in their order, each file as full as it may be."""
    groups, filled = [[]], 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > max_file_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {folders.SINGLE_NAME: groups[0]}
    return {
        f"model-{index:05d}-of-{len(groups):05d}.safetensors": names
        for index, names in enumerate(groups, 1)
    }


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    atomic.write_text(path, json.dumps(content, indent=2) + "\n")


def _limits(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The index of a device's part as what can be a key: equal parts are read once."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
