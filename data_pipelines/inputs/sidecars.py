# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files with the text of one sound each, beside it or in a folder of their own."""

from collections.abc import Sequence
import json
import os
import re

from data_pipelines.inputs import tables
from data_pipelines.inputs import text_files
from data_pipelines.records import sound as sound_records

# A line of HTK, TIMIT or Audacity: where it begins and ends, in units of 100 ns, samples or seconds.
_TIMED = re.compile(r"\s*(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)(?:\s+(.*))?$")
_HAS_LETTER = re.compile(r"[^\W\d_]").search
_LEAST_SAMPLES = 1_000  # of a sound of which a label has its length; less are figures that are said
_ROW = re.compile(r"\S+\s+\w+\s+(?:\S+\s+)?\d+\.\d+\s+\d+\.\d+\s+\S")  # of NIST's CTM and STM
_TIMES = re.compile(r".*\d:\d\d[.,]\d+\s*-->|\[\d+:\d\d(?:[.:]\d+)?\]")  # of subtitles, of lyrics
_FORMATS = {  # how files begin that programs write and people do not speak -> what they are
    "{\\rtf": "RTF",
    "<?xml": "XML",
    "<!doctype": "HTML",
    'file type = "ootextfile': "a TextGrid",
}


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
        ValueError: if one is no text, is of a format with more than it, has times of parts of the
            sound, or several lines that may be captions.
    """
    rows = []
    for path in paths:
        lines = lines_of(path, text_files.read(path))
        if len(lines) > 1 and text_kind == sound_records.CAPTION:
            raise ValueError(
                f"{path} must be one caption on one line, got {len(lines)} lines: several captions "
                "of a sound go into a table, a row or a column each"
            )
        kind = text_kind or sound_records.TRANSCRIPT
        texts = (sound_records.Text(" ".join(lines), kind),) if lines else ()
        name = os.path.abspath(path).removesuffix(ending)
        rows.append(tables.Row(path, 1, name, texts, {}))
    return tables.Table(tuple(rows))


def lines_of(where: str, text: str) -> list[str]:
    """Returns what is said or heard, by lines, without the times of the whole sound before it.

    Raises:
        ValueError: naming `where` it is from, if it is of a format with more than that.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    found = _no_text(lines)
    if found:
        raise ValueError(f"{where} must be the text of a sound and nothing else, got {found}")
    return _of_whole_sound(lines)


def _no_text(lines: Sequence[str]) -> str:
    """What the lines of a file are that holds more than a text, or ""."""
    start = lines[0].casefold() if lines else ""
    kind = next((kind for mark, kind in _FORMATS.items() if start.startswith(mark)), "")
    if start.startswith(("{", "[")) and _is_json("\n".join(lines)):
        kind = "JSON: give it by --metadata, with the name of the sound in it"
    times = next((line for line in lines if _TIMES.match(line)), "")
    if times and not kind:
        kind = f"times, {times[:40]!r}"
    is_table = start.split()[:2] == ["start", "end"] or (lines and all(map(_ROW.match, lines)))
    return kind or ("labels with times" if is_table or _has_times(lines) else "")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _has_times(lines: Sequence[str]) -> bool:
    """Whether lines are labels of parts of the sound, and no figures that are said."""
    found = [found.groups("") for found in map(_TIMED.match, lines) if found]
    if not found or len(found) < len(lines) or not any(_HAS_LETTER(label) for *_, label in found):
        return False
    times = [(float(start), float(end)) for start, end, _ in found]
    if len(found) == 1:
        is_measured = "." in found[0][0] + found[0][1] or times[0][1] >= _LEAST_SAMPLES
        return is_measured and _of_whole_sound(lines) == lines
    return all(start <= end for start, end in times) and times == sorted(times)


def _of_whole_sound(lines: list[str]) -> list[str]:
    """The lines without the times of one that is said from the beginning to the end, as in TIMIT."""
    found = _TIMED.match(lines[0]) if len(lines) == 1 else None
    if not found or float(found[1]) != 0.0 or not _HAS_LETTER(found[3] or ""):
        return lines
    is_measured = "." in found[2] or float(found[2]) >= _LEAST_SAMPLES
    return [found[3]] if is_measured and len(found[3].split()) > 1 else lines
