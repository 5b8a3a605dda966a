# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of GGUF files, put together from their tokens, merges and roles.

Source: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers

# Where texts are cut before pairs are merged, by the name that llama.cpp gives to it.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = {"qwen2": "", "llama-bpe": "{1,3}"}  # at once
_CUTS = ("gpt-2", "smollm", *_DIGITS)
_CONTROL, _USER_DEFINED = 3, 4  # roles of tokens that no merge makes
_ROLES = range(7)
_KEY = "tokenizer.ggml."
_REMEDY = "give the folder that the file was made from"


def make(said: Mapping[str, Any], vocabulary_size: int) -> tokenizers.Tokenizer:
    """Returns byte-level pairs, with the tokens that no merge makes.

    Args:
        said: what the file says, by its keys.
        vocabulary_size: rows of the table.

    Raises:
        ValueError: naming a key that is missing, of another kind, or not in keeping with others.
    """
    kind, cut = said.get(f"{_KEY}model"), said.get(f"{_KEY}pre", "gpt-2")
    if kind != "gpt2" or cut not in _CUTS:
        raise ValueError(
            f"the tokenizer must be of byte-level pairs, cut as {', '.join(_CUTS)}, got "
            f"{_KEY}model={kind!r:.80} and {_KEY}pre={cut!r:.80}: {_REMEDY}"
        )
    words = _words(said, vocabulary_size)
    roles = _listed(said, "token_type", int, f"the roles of {vocabulary_size} tokens, 0 to 6")
    if len(roles) != len(words) or not set(roles) <= set(_ROLES):
        raise _refusal("token_type", f"the roles of {len(words)} tokens, 0 to 6", _shown(roles))
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=_merges(said, vocabulary), ignore_merges=cut == "llama-bpe"
        )
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
    for word, role in zip(words, roles, strict=True):
        if role in (_CONTROL, _USER_DEFINED):
            is_special = role == _CONTROL
            added = tokenizers.AddedToken(word, special=is_special, normalized=False)
            (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([added])
    return tokenizer


def _words(said: Mapping[str, Any], vocabulary_size: int) -> list[str]:
    wanted = (
        f"{vocabulary_size} tokens, one for each row of the table, no two the same and none empty"
    )
    words = _listed(said, "tokens", str, wanted)
    if len(words) != vocabulary_size:
        raise _refusal("tokens", wanted, f"{len(words)}")
    seen = set()
    for index, word in enumerate(words):
        if not word or word in seen:
            raise _refusal("tokens", wanted, f"{word!r:.80} at {index}")
        seen.add(word)
    return words


def _merges(said: Mapping[str, Any], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    wanted = "pairs of tokens with a space between, that are a token together"
    merges = []
    for merge in _listed(said, "merges", str, wanted):
        left, _, right = merge.partition(" ")
        unknown = [word for word in (left, right, left + right) if word not in vocabulary]
        if unknown:
            got = f"{merge!r:.80}, of which {unknown[0]!r:.80} is no token"
            raise _refusal("merges", wanted, got)
        merges.append((left, right))
    return merges


def _listed(said: Mapping[str, Any], name: str, kind: type, wanted: str) -> list:
    """A list that must be there, with something in it, all of one kind."""
    found = said.get(_KEY + name)
    if not isinstance(found, list) or not found:
        raise _refusal(name, wanted, "none" if found in (None, []) else f"{found!r:.80}")
    other = next((one for one in found if type(one) is not kind), None)
    if other is not None:
        raise _refusal(name, wanted, f"{other!r:.80} among them")
    return found


def _refusal(name: str, wanted: str, got: str) -> ValueError:
    return ValueError(f"{_KEY}{name} must be {wanted}, got {got}: {_REMEDY}")


def _shown(roles: Sequence[int]) -> str:
    other = next((role for role in roles if role not in _ROLES), None)
    return f"{len(roles)}" if other is None else f"{other} among them"
