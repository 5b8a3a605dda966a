# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is said in Tux Paint's stamps, and what its effects are: a file of all languages for each.

    Nine.               the first line of symbols/math/9.txt, English
    fr.utf8=Neuf.       of 9_fr.ogg or 9_desc_fr.ogg, which are read out

An effect, such as cow.ogg, has the English line of its stamp as its caption.
"""

from collections.abc import Mapping, Sequence
import pathlib
import re

from data_pipelines.inputs import tables
from data_pipelines.inputs import text_files
from data_pipelines.records import sound as sound_records

_LINE = re.compile(r"(?P<language>[a-z]{2,3}(?:_[A-Z]{2})?)\.utf8=(?P<words>.*)")
_SPOKEN = re.compile(r"(?P<stamp>.+?)(?:_desc)?(?:_(?P<language>[a-z]{2}(?:_[A-Za-z]{2})?))?")
_READ_OUT = re.compile(r".*_desc(_[a-z]{2}(_[A-Za-z]{2})?)?|.*/symbols/math/[^/]*")


def rows(root: str, sounds: Sequence[str]) -> list[tables.Row]:
    """Returns a row for each sound whose stamp has a line of its language.

    Args:
        root: folder of the package.
        sounds: their paths in it.
    """
    found = []
    for sound in sounds:
        name = sound.rpartition(".")[0]
        is_speech = bool(_READ_OUT.fullmatch(name))
        spoken = _SPOKEN.fullmatch(name)
        stamp, said = (spoken["stamp"], spoken["language"] or "") if is_speech else (name, "")
        language = said[:2] + said[2:].upper()  # 9_zh_tw.ogg is of zh_TW.
        path = pathlib.Path(root, f"{stamp}.txt")
        lines = _lines(str(path)) if path.is_file() else {}
        choices = (language, *([""] if language[:2] == "en" else []))
        line, words = next((lines[choice] for choice in choices if choice in lines), (0, ""))
        if words:
            kind = sound_records.TRANSCRIPT if is_speech else sound_records.CAPTION
            text = sound_records.Text(words, kind)
            found.append(tables.Row(str(path), line, name, (text,), {}))
    return found


def _lines(path: str) -> Mapping[str, tuple[int, str]]:
    """Language, "" for English, -> number and words of its line."""
    found = {}
    for number, line in enumerate(text_files.read(path).splitlines(), start=1):
        match = _LINE.fullmatch(line.strip())
        if match:
            found.setdefault(match["language"], (number, match["words"].strip()))
        elif number == 1 and line.strip():
            found[""] = (number, line.strip())
    return found
