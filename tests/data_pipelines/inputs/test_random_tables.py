# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Random tables in every layout: read back exactly, and damaged ones refused by their line."""

import csv
import io
import json
import random
import re

import pytest

from data_pipelines.inputs import folders
from data_pipelines.inputs import joining
from data_pipelines.inputs import matching
from data_pipelines.inputs import tables

_NAMES = "abcxyzABCXYZ0123456789_-. äöüßéñçøΩжя日本語한"
_WORDS = "abcdefgh ABCDEFGH 0123456789 .,;:!?'()&%$#@*+=~^ äöüßéñ 日本語 한국 \u2028\u0085 👍"
_LAYOUTS = {}


def _layout(forbidden: str = "", num_captions: int = 0):
    """Registers a writer of [(name, texts)] whose texts may hold what is not forbidden."""

    def register(write):
        _LAYOUTS[write.__name__.strip("_")] = (write, forbidden, num_captions)
        return write

    return register


def _csv(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL):
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


@_layout(forbidden='|\n\t"')
def _ljspeech(rows, rng):
    raw = [text.upper() if rng.random() < 0.5 else text for _, (text,) in rows]
    lines = [f"{name}|{first}|{text}" for (name, (text,)), first in zip(rows, raw)]
    return "metadata.csv", "\n".join(lines) + "\n"


@_layout(forbidden="\n\t")
def _librispeech(rows, rng):
    return "1-2.trans.txt", "".join(f"{name} {text}\n" for name, (text,) in rows)


@_layout()
def _nemo(rows, rng):
    objects = [{"audio_filepath": f"/x/{name}.wav", "text": text} for name, (text,) in rows]
    lines = [json.dumps(line, ensure_ascii=rng.random() < 0.5) for line in objects]
    return "manifest.json", "\n".join(lines) + "\n"


@_layout(forbidden="\n\t")
def _common_voice(rows, rng):
    lines = [f"c{place}\t{name}.wav\t{text}\t{place}" for place, (name, (text,)) in enumerate(rows)]
    return "validated.tsv", "client_id\tpath\tsentence\tup_votes\n" + "\n".join(lines)


@_layout()
def _audio_folder(rows, rng):
    table = [["file_name", "text", "speaker"], *([f"{n}.wav", t, "ann"] for n, (t,) in rows)]
    return "metadata.csv", _csv(table)


@_layout(num_captions=5)
def _clotho(rows, rng):
    table = [["file_name", *(f"caption_{place + 1}" for place in range(5))]]
    return "captions.csv", _csv(table + [[f"{name}.wav", *texts] for name, texts in rows])


@_layout()
def _tabs_in_quotes(rows, rng):
    table = [["id", "transcript"], *([name, text] for name, (text,) in rows)]
    return "texts.tsv", _csv(table, "\t", csv.QUOTE_ALL)


@_layout(forbidden="\n")
def _json_array(rows, rng):
    objects = [{"audio": {"path": f"./{name}.wav"}, "sentence": text} for name, (text,) in rows]
    return "metadata.json", json.dumps(objects, indent=rng.choice([None, 1]), ensure_ascii=False)


@_layout(forbidden='|\n\t"')
def _no_header(rows, rng):
    return "texts.csv", _csv([[f"{name}.wav", text] for name, (text,) in rows])


@_layout(forbidden='\n\t"')
def _semicolons(rows, rng):
    table = [["path", "text"], *([f".\\{name}.wav", text] for name, (text,) in rows)]
    return "texts.csv", _csv(table, ";")


def _rows(layout, rng):
    """Random names, all different, and their texts."""
    _, forbidden, num_captions = _LAYOUTS[layout]
    names = set()
    while len(names) < rng.randint(3, 9):
        name = "".join(rng.choices(_NAMES, k=rng.randint(3, 12))).strip(" .")
        name = name.replace(" ", "_") if layout in ("librispeech", "nemo") else name
        folded = {other.casefold() for other in names}
        # Names like ".x" are hidden, and the ending of "a.b" is not told from a part of its name.
        if len(name) > 2 and name.casefold() not in folded and "." not in name[:1]:
            names.add(f"{name}{len(names)}")
    marks = [mark for mark in _WORDS + '"|\t\n' if mark not in forbidden]
    rows = []
    for name in sorted(names, key=lambda _: rng.random()):
        texts = {}
        while len(texts) < (num_captions or 1):
            text = "".join(rng.choices(marks, k=rng.randint(1, 30))).strip()
            if text and not (layout == "common_voice" and text[0] == "\ufeff"):
                texts[text] = None
        rows.append((name, tuple(texts)))
    return rows


def _read(folder, layout, rows, rng, table=None):
    """Texts of sounds of these names by their table, and what became of its rows."""
    name, text = _LAYOUTS[layout][0](rows, rng)
    path = folder / name
    path.write_bytes(text.encode() if table is None else table)
    keys = [f"{name}.wav" for name, _ in rows]
    sounds = matching.Sounds(str(folder), dict(zip(keys, keys)))
    joined = joining.Joined(sounds, keys)
    found = tables.read(path, tables.Options(), sounds.knows)
    joined.add(joining.Group(str(path), [found]))
    texts = {key[:-4]: tuple(text.content for text in joined.texts(key)) for key in keys}
    return texts, joined.summary()


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_what_was_written_is_read(layout, tmp_path):
    rng = random.Random(layout)
    for _ in range(25):
        rows = _rows(layout, rng)
        texts, counts = _read(tmp_path, layout, rows, rng)
        assert texts == dict(rows)
        assert counts == {"matched": len(rows)}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_a_folder_has_the_texts_of_its_table(layout, tmp_path):
    rng = random.Random(layout)
    rows = _rows(layout, rng)
    name, text = _LAYOUTS[layout][0](rows, rng)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    for sound, _ in rows:
        (tmp_path / f"{sound}.wav").write_bytes(b"x")
    found = folders.Folder(str(tmp_path), metadata=(str(tmp_path / name),)).listed()
    texts = {item.key[:-4]: tuple(text.content for text in item.texts) for item in found.items}
    assert texts == dict(rows)
    assert found.skipped == {"table": 1}


_LITERAL = ("librispeech", "common_voice")  # a quote is part of a text


def _damage(data: bytes, rng) -> tuple[bytes, str, int]:
    """Bytes with one mark removed, doubled or behind a wrong byte; the mark and its line."""
    marks = re.finditer(rb'(?<!\\)[",|\t\n;{}:\[\]]', data)
    place = rng.choice([found.start() for found in marks])
    mark = data[place : place + 1]
    new = rng.choice([b"", mark * 2, b"\xff" + mark, b"\0" + mark])
    line = data.count(b"\n", 0, place) + 1
    return data[:place] + new + data[place + 1 :], mark.decode(), line


def _is_its_own(texts, others, mark, layout) -> bool:
    """Whether texts differ by a mark inside one of them, which is no mark between cells then."""
    others += ("",) * (len(texts) - len(others))  # a text that was no more than that mark
    pairs = [pair for pair in zip(texts, others) if pair[0] != pair[1]]
    if len(pairs) != 1 or len(texts) != len(others) or (mark == '"' and layout not in _LITERAL):
        return False
    short, long = sorted(pairs[0], key=len)
    edits = {long[:place] + long[place + 1 :] for place, char in enumerate(long) if char == mark}
    return short in {edit.strip() for edit in edits}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_damage_is_refused_by_its_line_or_changes_no_text(layout, tmp_path):
    rng = random.Random(layout)
    num_refused = 0
    for _ in range(50):
        rows = _rows(layout, rng)
        _, text = _LAYOUTS[layout][0](rows, rng)
        damaged, mark, line = _damage(text.encode(), rng)
        try:
            texts, counts = _read(tmp_path, layout, rows, rng, damaged)
        except ValueError as error:
            num_refused += 1
            said = re.search(r", line (\d+)", str(error))
            # A cell of several lines is named by its first, or by the one that shows that the quote
            # before it is missing; a header says how wide all others are.
            starts = [text.count("\n", 0, text.find(name)) + 1 for name, _ in rows]
            first = max((start for start in starts if start <= line), default=1)
            last = min((start for start in starts if start > line), default=text.count("\n") + 1)
            assert line == 1 or (said and first <= int(said[1]) <= last), (line, str(error))
            continue
        changed = [(had, texts[name]) for name, had in rows if texts[name] != had]
        lost = [had for had, has in changed if not has and len(changed) == 1]
        own = [pair for pair in changed if _is_its_own(*pair, mark, layout)]
        # One text has lost or doubled a mark of its own, or rows that have lost theirs are counted.
        is_counted = counts.keys() & {"without sound", "sounds without row"}
        assert own == changed or (lost and is_counted), changed
    assert num_refused > 15
