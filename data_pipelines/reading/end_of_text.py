# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which token ends a text: the usual one, or what the files beside a tokenizer say."""

from collections.abc import Iterator
import os
import pathlib

import tokenizers

from data_pipelines.records import json_object

USUAL = "<|endoftext|>"
# File beside tokenizer.json -> its key; the first that names a token of the tokenizer is followed.
KEYS = {
    "tokenizer_config.json": "eos_token",
    "generation_config.json": "eos_token_id",
    "config.json": "eos_token_id",
}


def find(path: str | os.PathLike, tokenizer: tokenizers.Tokenizer) -> int | None:
    """Returns the token that ends a text, None where nothing says which it is.

    Args:
        path: tokenizer.json, or the folder of a model that has one.
        tokenizer: of it.

    Raises:
        ValueError: for a file beside it that is damaged.
    """
    path = pathlib.Path(path)
    found = tokenizer.token_to_id(USUAL)
    return found if found is not None else next(_named(path, tokenizer), None)


def _named(path: pathlib.Path, tokenizer: tokenizers.Tokenizer) -> Iterator[int]:
    """The tokens that the files beside a tokenizer name, as far as it has them."""
    folder = path if path.is_dir() else path.parent
    for name, key in KEYS.items():
        if not (folder / name).is_file():
            continue
        value = json_object.read(folder / name).get(key)
        if isinstance(value, dict):  # an added token with its options
            value = value.get("content")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                one = tokenizer.token_to_id(one)
            is_id = type(one) is int and 0 <= one < 2**32
            if is_id and tokenizer.id_to_token(one) is not None:
                yield one
