# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files with the text of one sound each, beside it or in a folder of their own."""

from collections.abc import Sequence
import os
import re

from data_pipelines.inputs import tables
from data_pipelines.inputs import text_files
from data_pipelines.records import sound as sound_records

# A label file of HTK: a line per phone, with where it begins and ends in units of 100 ns.
_TIMED = re.compile(r"\s*\d+\s+\d+\s+\S+")


def ending_of(pattern: str) -> str:
    """What follows the name of the sound in the names of sidecars: ".txt" of "txt/**/*.txt"."""
    return os.path.basename(pattern).rpartition("*")[2]


def read(paths: Sequence[str], ending: str, text_kind: str) -> tables.Table:
    """Reads sidecars as the rows of a table.

    Args:
        paths: of files whose names are those of sounds and `ending`.
        ending: such as ".txt" or ".normalized.txt".
        text_kind: of the texts; "" for transcripts. The lines of a transcript become one.

    Raises:
        ValueError: if one is no text, has times in it, or several lines that may be captions.
    """
    rows = []
    for path in paths:
        lines = [line.strip() for line in text_files.read(path).split("\n") if line.strip()]
        if lines and all(map(_TIMED.match, lines)):
            raise ValueError(f"{path} must be the text of a sound, got labels with times")
        if len(lines) > 1 and text_kind == sound_records.CAPTION:
            raise ValueError(
                f"{path} must be one caption on one line, got {len(lines)} lines: several captions "
                "of a sound go into a table, a row or a column each"
            )
        kind = text_kind or sound_records.TRANSCRIPT
        texts = (sound_records.Text(" ".join(lines), kind),) if lines else ()
        name = os.path.abspath(path).removesuffix(ending)
        rows.append(tables.Row(path, 1, name, texts, {}))
    return tables.Table("", tuple(rows))
