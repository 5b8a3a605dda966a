# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Texts that cannot be those of their sounds."""

from data_pipelines.inputs.debian import doubts
from data_pipelines.records import sound as sound_records
from tests.support import debs


def _found(root, sounds):
    texts = {}
    for name, (content, *words) in sounds.items():
        (root / name).write_bytes(content)
        kind = sound_records.CAPTION if name.startswith("effect") else sound_records.TRANSCRIPT
        texts[name] = tuple(sound_records.Text(text, kind) for text in words)
    return doubts.found(str(root), texts)


def test_more_letters_than_anyone_says_in_the_time_are_doubtful(tmp_path):
    assert _found(
        tmp_path,
        {
            "just.wav": (debs.sound("wav", 2.0), "a" * 44 + " , . !"),
            "more.ogg": (debs.sound("ogg", 2.0), "я" * 45),
            "effect.wav": (debs.sound("wav", 0.2, hertz=200.0), "A bassoon that is far away."),
            "none.wav": (debs.sound("wav", 0.2, hertz=250.0),),
            "damaged.wav": (b"RIFF", "a" * 99),
        },
    ) == {"more.ogg": doubts.TOO_MANY}


def test_copies_with_other_words_are_doubtful_all_of_them(tmp_path):
    # libsndfile gives each stream of Ogg another serial number.
    bear = [debs.sound("ogg", 1.0, hertz=200.0) for _ in range(2)]
    gull = debs.sound("wav", 1.0, hertz=250.0)
    assert bear[0] != bear[1]
    assert _found(
        tmp_path,
        {
            "a.ogg": (bear[0], "A badger."),
            "b.ogg": (bear[1], "A bear."),
            "c.wav": (gull, "A gull."),
            "d.wav": (gull, "a gull"),
            "e.wav": (gull,),
            "f.wav": (debs.sound("wav", 1.0, hertz=350.0), "A bear."),
        },
    ) == dict.fromkeys(("a.ogg", "b.ogg"), doubts.OF_COPIES)
