# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Texts of Festival's voices and of Sphinx's tests."""

import pytest

from data_pipelines.inputs.debian import utterances


def _write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def _said(root, *sounds):
    found = utterances.rows(str(root), sounds)
    return {row.file: [text.content for text in row.texts] for row in found}


def test_festival_says_them_by_name_without_marks_of_stress(tmp_path):
    text = '( ru_0001 "Прядь вол+ос,  2 + 2 \\"да\\"." )\n\n( ru_0002 "Она." )\n'
    _write(tmp_path, {"voice/etc/txt.done.data": text})
    assert _said(tmp_path, "voice/wav/ru_0001.wav", "voice/wav/ru_0002.wav") == {
        "voice/wav/ru_0001": ['Прядь волос, 2 + 2 "да".'],
        "voice/wav/ru_0002": ["Она."],
    }


def test_sphinx_says_them_behind_marks_of_a_sentence(tmp_path):
    _write(
        tmp_path,
        {
            "a/a.transcription": "<s> ten of clubs  </s> (001)\nfour (002)\n",
            "b/transcription": "<s> he was not </s> (sense_01-0880)\n",
        },
    )
    assert _said(tmp_path, "a/001.wav", "a/002.wav", "b/sense_01-0880.wav") == {
        "a/001": ["ten of clubs"],
        "a/002": ["four"],
        "b/sense_01-0880": ["he was not"],
    }


def test_a_line_of_something_else_is_refused_by_its_number(tmp_path):
    _write(tmp_path, {"voice/etc/txt.done.data": '( a "A." )\nname text\n'})
    with pytest.raises(ValueError, match="txt.done.data, line 2, must be a name and its words"):
        _said(tmp_path, "voice/wav/a.wav")
