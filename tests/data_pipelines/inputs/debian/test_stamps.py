# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Texts of Tux Paint's stamps: the line of the language that a sound's name has."""

import pytest

from data_pipelines.inputs.debian import stamps
from data_pipelines.records import sound as sound_records

_STAMPS = "usr/share/tuxpaint/stamps"
_COW = "A cow.\nfr.utf8=Une vache.\nde.utf8=\npt_BR.utf8=Uma vaca.\nca@valencia.utf8=Vaca.\n"
_NINE = "Nine.\nfr.utf8=Neuf.\nen_GB.utf8=Nine!\nzh_TW.utf8=九\n"


@pytest.mark.parametrize(
    "name, words",
    [
        ("animals/cow_desc_fr.ogg", "Une vache."),
        ("animals/cow_desc_pt_BR.wav", "Uma vaca."),
        ("animals/cow_desc.ogg", "A cow."),
        ("animals/cow_desc_en_AU.ogg", "A cow."),
        ("animals/cow_desc_pt.ogg", None),  # Another country's words are not those that are said.
        ("animals/cow_desc_de.ogg", None),
        ("animals/cow_desc_ca.ogg", None),
        ("animals/horse_desc_fr.ogg", None),
        ("symbols/math/9.ogg", "Nine."),
        ("symbols/math/9_fr.ogg", "Neuf."),
        ("symbols/math/9_en_GB.ogg", "Nine!"),
        ("symbols/math/9_zh_tw.ogg", "九"),
        ("symbols/math/9_desc_fr.ogg", "Neuf."),
    ],
)
def test_what_is_read_out_is_the_line_of_its_language(name, words, tmp_path):
    found = _texts(tmp_path, name)
    assert found == ([sound_records.Text(words, sound_records.TRANSCRIPT)] if words else [])


def test_an_effect_has_the_english_line_as_its_caption(tmp_path):
    caption = sound_records.Text("A cow.", sound_records.CAPTION)
    assert _texts(tmp_path, "animals/cow.ogg") == [caption]


def _texts(root, name):
    for stamp, lines in (("animals/cow", _COW), ("symbols/math/9", _NINE)):
        path = root / _STAMPS / f"{stamp}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    rows = stamps.rows(str(root), [f"{_STAMPS}/{name}"])
    assert all(row.file == f"{_STAMPS}/{name}".rpartition(".")[0] for row in rows)
    return [text for row in rows for text in row.texts]
