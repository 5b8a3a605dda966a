# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Dialogs of Fish Fillets: of the level and the language of the sound, and who says them."""

from data_pipelines.inputs.debian import dialogs

_GAME = "usr/share/games/fillets-ng"


def _rows(tmp_path, scripts, *sounds):
    for name, text in scripts.items():
        path = tmp_path / _GAME / "script" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = dialogs.rows(str(tmp_path), [f"{_GAME}/sound/{sound}" for sound in sounds])
    return {
        row.file.removeprefix(f"{_GAME}/sound/"): (
            [text.content for text in row.texts],
            row.labels,
        )
        for row in found
    }


def _dialog(name, font, words):
    return f'dialogId("{name}", "{font}", "English.")\ndialogStr("{words}")\n\n\n'


def test_a_dialog_is_of_its_level_and_language(tmp_path):
    scripts = {
        "city/dialogs_cs.lua": _dialog("a-m-x", "font_small", "Malá.")
        + _dialog("a-hs-y", "font_statue", 'Socha říká \\"ne\\" v C:\\\\X.'),
        "keys/dialogs_cs.lua": _dialog("a-m-x", "font_big", "Velká."),
        "city/dialogs_nl.lua": _dialog("a-m-x", "font_small", "Kleine."),
        "share/bore_dialogs_cs.lua": _dialog("b-0", "font_big", "Nuda."),
    }
    sounds = ("city/cs/a-m-x.ogg", "city/cs/a-hs-y.ogg", "keys/cs/a-m-x.ogg")
    small = {"role": "small", "speaker": "fillets-cs-small"}
    big = {"role": "big", "speaker": "fillets-cs-big"}
    assert _rows(tmp_path, scripts, *sounds, "share/borejokes/cs/b-0.ogg") == {
        "city/cs/a-m-x": (["Malá."], small),
        "city/cs/a-hs-y": (['Socha říká "ne" v C:\\X.'], {"role": "statue"}),
        "keys/cs/a-m-x": (["Velká."], big),
        "share/borejokes/cs/b-0": (["Nuda."], big),
    }


def test_a_sound_without_words_has_what_its_name_tells_of_its_speaker(tmp_path):
    scripts = {
        "city/dialogs_nl.lua": _dialog("z-c-1", "", "")
        + _dialog("b1-h", "font_yellow", "H%1.")
        + _dialog("absent", "font_big", "Weg.")
    }
    sounds = ("z-c-1", "b1-h", "bar_v_foto", "ted5-m", "laser")
    assert _rows(tmp_path, scripts, *(f"city/nl/{name}.ogg" for name in sounds)) == {
        "city/nl/z-c-1": ([], {}),
        "city/nl/b1-h": (["H."], {"role": "yellow"}),
        "city/nl/absent": (["Weg."], {"role": "big", "speaker": "fillets-nl-big"}),
        "city/nl/bar_v_foto": ([], {"role": "big", "speaker": "fillets-nl-big"}),
        "city/nl/ted5-m": ([], {"role": "small", "speaker": "fillets-nl-small"}),
    }


def test_a_dialog_that_is_commented_out_or_not_closed_takes_no_other_ones_words(tmp_path):
    scripts = {
        "city/dialogs_cs.lua": '-- dialogId("a-m-x", "font_big", "No.")\n-- dialogStr("Ne.")\n'
        'dialogId("a-m-y", "font_small", "First.")\n'
        + _dialog("a-m-x", "font_small", "Ano.")
        + 'dialogStr("Nikdo.")\n'
    }
    assert _rows(tmp_path, scripts, "city/cs/a-m-x.ogg") == {
        "city/cs/a-m-x": (["Ano."], {"role": "small", "speaker": "fillets-cs-small"})
    }
