# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpora as an input."""

import collections

import numpy as np
import pytest

from data_pipelines.building import split
from data_pipelines.embedded import corpora
from data_pipelines.embedded.speech import espeak
from data_pipelines.embedded.speech import speech
from data_pipelines.inputs import embedded
from data_pipelines.records import sound as sound_records


def test_embedded_clips_are_the_corpus_own():
    source = embedded.choose(
        ["events"], num_clips=2, hours=0.0, seed=5, sample_rate=16_000, say=print
    )
    items = source.listed().items
    clip = corpora.generate("events", 1, seed=5, sample_rate=16_000)
    assert items[1].key == clip.key
    with source.opened(items[1]) as sound:
        np.testing.assert_array_equal(np.concatenate(list(sound.blocks))[:, 0], clip.waveform)
        assert sound.texts == (sound_records.Text(clip.text, clip.text_kind),)
        assert sound.labels == {"corpus": "events", **clip.labels}


def test_embedded_hours_are_met_roughly():
    source = embedded.choose(
        ["events"], num_clips=0, hours=0.1, seed=0, sample_rate=8_000, say=print
    )
    assert 360 / 8 <= source.num_clips[0] <= 360 / 0.4  # a clip has 0.4 to 8 seconds


def test_corpora_that_cannot_be_made_are_said_or_refused(monkeypatch):
    reason = "install the extra demo"
    reasons = {"speech": reason, "digits": reason, "music": None, "events": None}
    monkeypatch.setattr(corpora, "available", reasons.get)
    said = []
    options = dict(num_clips=1, hours=0.0, seed=0, sample_rate=16_000, say=said.append)
    assert embedded.choose([], **options).corpora == ("music", "events")
    assert said == [f"without the {name} corpus: {reason}" for name in ("speech", "digits")]
    with pytest.raises(ValueError, match="speech cannot be made: install the extra demo"):
        embedded.choose(["speech", "music"], **options)


@pytest.mark.parametrize("num_clips, hours", [(0, 0.0), (3, 1.0)])
def test_embedded_corpora_need_one_size(num_clips, hours):
    with pytest.raises(ValueError, match="either --num_clips or --hours"):
        embedded.choose([], num_clips=num_clips, hours=hours, seed=0, sample_rate=16_000, say=print)


@pytest.mark.parametrize("seed", range(3))
def test_no_voice_and_no_sentence_is_on_two_sides(seed, monkeypatch):
    # What is said, by whom, does not depend on how it sounds.
    monkeypatch.setattr(speech, "say", lambda text, **options: np.zeros(8, np.float32))
    monkeypatch.setattr(espeak, "missing", lambda: None)
    source = embedded.Embedded(("speech", "digits", "events"), (400, 30, 40), seed, 16_000)
    said = []
    divided = split.split(
        source,
        source.listed(),
        split.Holdout(0.1, "voice,transcript"),
        num_workers=0,
        say=said.append,
    )
    # Of events, which have neither, none is made.
    assert said == ["opening 430 sounds for their labels 'voice', 'transcript'"]
    found = {part: collections.defaultdict(set) for part in ("train", "test")}
    for part, items in divided.parts.items():
        for item in items:
            found[part]["corpus"].add(item.key.partition("-")[0])
            if not item.key.startswith("events"):
                with source.opened(item) as sound:
                    found[part]["text"].update(text.content for text in sound.texts)
                    for label in ("voice", "language"):
                        found[part][label].add(sound.labels[label])
    train, test = found["train"], found["test"]
    assert not train["voice"] & test["voice"] and not train["text"] & test["text"]
    assert train["language"] == test["language"] and {"speech", "events"} <= test["corpus"]
    num_left_out = sum(divided.skipped.values())
    assert sum(map(len, divided.parts.values())) + num_left_out == 470
    assert 36 <= len(divided.parts["test"]) <= 50 and num_left_out < 20
