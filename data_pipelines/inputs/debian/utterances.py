# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is said in recordings that voices and recognisers were built from, by Festival or Sphinx.

    ( ru_0002 "Она завела, прядь волнистых вол+ос за ухо." )      etc/txt.done.data, sounds in wav/
    <s> ten of clubs </s> (001)                                   *transcription, sounds beside it

Festival's voices mark the stress with "+" before its vowel, which nobody reads: it is left out.
"""

from collections.abc import Sequence
import os
import pathlib
import re

from data_pipelines.inputs import tables
from data_pipelines.inputs import text_files
from data_pipelines.records import sound as sound_records

_FESTIVAL = re.compile(r'\(\s*(?P<name>\S+)\s+"(?P<text>(?:[^"\\]|\\.)*)"\s*\)\s*')
_SPHINX = re.compile(r"(?:<s>)?(?P<text>[^<>]*?)(?:</s>)?\s*\((?P<name>[^()\s]+)\)\s*")
_STRESS = re.compile(r"\+(?=\w)")


def rows(root: str, sounds: Sequence[str]) -> list[tables.Row]:
    """Returns a row for each utterance.

    Args:
        root: folder of the package with the texts.
        sounds: paths of sounds in their package.

    Raises:
        ValueError: naming a line that is otherwise.
    """
    found = []
    for folder in sorted({os.path.dirname(path) for path in sounds}):
        place = pathlib.Path(root, folder)
        for path in (place.parent / "etc" / "txt.done.data", *sorted(place.glob("*transcription"))):
            if path.is_file():
                found += _of_file(str(path), folder)
    return found


def _of_file(path: str, folder: str) -> list[tables.Row]:
    pattern = _SPHINX if path.endswith("transcription") else _FESTIVAL
    found = []
    for number, line in enumerate(text_files.read(path).splitlines(), start=1):
        if not line.strip():
            continue
        match = pattern.fullmatch(line.strip())
        if not match:
            raise ValueError(
                f"{path}, line {number}, must be a name and its words, got {line[:60]!r}"
            )
        words = " ".join(match["text"].replace('\\"', '"').split())
        words = words if pattern is _SPHINX else _STRESS.sub("", words)
        texts = (sound_records.Text(words, sound_records.TRANSCRIPT),) if words else ()
        found.append(tables.Row(path, number, f"{folder}/{match['name']}", texts, {}))
    return found
