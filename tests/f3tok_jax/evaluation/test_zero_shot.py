# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts of held-out speakers: whose, with what text, how long; and what a voice is like."""

import functools
import types

import numpy as np
import pytest

from data_pipelines.reading import tasks
from f3tok_jax.evaluation import examples
from f3tok_jax.evaluation import zero_shot
from tests.support import sounds

_RATE = 16_000


def _generator(tmp_path, *, seconds: float = 10.0, max_tokens: int = 60):
    return types.SimpleNamespace(
        text=tasks.TextTasks(sounds.tokenizer(tmp_path / "text"), {"digit": 1.0}, max_tokens),
        codec=types.SimpleNamespace(sample_rate=_RATE),
        config=types.SimpleNamespace(text=types.SimpleNamespace(max_tokens=max_tokens)),
        trained_seconds=seconds,
    )


class _Source(list):
    name = "shards"

    def is_whole(self, record):
        return True


def _source(*rows: tuple[str, str, float]) -> _Source:
    """Records of (speaker, text, seconds)."""
    return _Source(
        types.SimpleNamespace(
            key=str(place),
            waveform=np.full(round(seconds * _RATE), 100, np.int16),
            labels={"speaker": speaker} if speaker else {},
            text=text,
            texts=(),
        )
        for place, (speaker, text, seconds) in enumerate(rows)
    )


def _pairs(source, generator, num_examples: int = 100) -> list[tuple[str, str]]:
    said = []
    found = zero_shot.read_pairs(
        source,
        generator,
        num_examples=num_examples,
        text_of=lambda record: ("digit", record.text) if record.text else None,
        say=said.append,
    )
    assert all(pair.prompt.labels == pair.target.labels for pair in found)
    return [(pair.prompt.key, pair.target.key) for pair in found]


def test_a_prompt_is_another_recording_of_the_speaker_with_another_text(tmp_path):
    source = _source(
        ("ann", "one", 1), ("bob", "two", 1), ("ann", "one", 1), ("ann", "six", 1), ("bob", "", 1),
        ("", "two", 1), ("eve", "two", 1),
    )  # fmt: skip
    generator = _generator(tmp_path)
    assert _pairs(source, generator) == [("3", "0"), ("3", "2"), ("0", "3")]
    assert _pairs(source, generator) == _pairs(source, generator)
    assert _pairs(source, generator, num_examples=1) == [("3", "0")]


def test_what_is_longer_together_than_training_is_left_out(tmp_path):
    source = _source(("ann", "one", 1), ("ann", "two", 3), ("ann", "six", 2))
    assert _pairs(source, _generator(tmp_path, seconds=3.5)) == [("2", "0"), ("0", "2")]
    # "digit:", a gap, "one two" and the end: 15 tokens.
    assert _pairs(source, _generator(tmp_path, max_tokens=15))
    for generator in (_generator(tmp_path, max_tokens=14), _generator(tmp_path, seconds=2.0)):
        with pytest.raises(ValueError, match="--zero_shot needs .* two recordings of one speaker"):
            _pairs(source, generator)


def _voice(hertz: float, *, seconds: float = 0.5, gain: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * _RATE)) / _RATE
    partials = [np.sin(2 * np.pi * hertz * n * time) / n for n in range(1, 8)]
    noise = 0.01 * np.random.default_rng(0).normal(size=len(time))
    return (gain * (sum(partials) / 3 + noise)).astype(np.float32)


def test_a_voice_is_like_itself_at_any_level_and_unlike_another():
    low, high = _voice(110), _voice(290)
    similarity = zero_shot.VoiceSimilarity(
        prompts=[low, high],
        recordings=[_voice(110, seconds=0.8), _voice(290, seconds=0.3)],
        embed=functools.partial(zero_shot.spectral_voice, sample_rate=_RATE),
    )
    same = similarity([_voice(110, seconds=0.7, gain=0.1), _voice(290, gain=0.9)])
    swapped = similarity([_voice(290), _voice(110)])
    assert same > 0.9 > 0.0 > swapped
    assert np.isfinite(similarity([np.zeros(1, np.float32)] * 2))


def _pair(speaker: str, level: float) -> zero_shot.Pair:
    one = examples.Example(
        key=f"{speaker}{level}", waveform=np.array([level]), labels={"speaker": speaker}
    )
    return zero_shot.Pair(prompt=one, target=one)


def test_others_are_of_other_speakers():
    pairs = [_pair("ann", 1.0), _pair("ann", 2.0), _pair("bob", 3.0)]
    assert [float(found[0]) for found in zero_shot.others(pairs)] == [3.0, 3.0, 1.0]
    assert zero_shot.others(pairs[:2]) == [] == zero_shot.others([])


def test_a_result_says_who_judged_or_that_nobody_did():
    pairs = [_pair("ann", 1.0)]
    assert zero_shot.told(pairs, {"character_error_rate": len}).words == "character error rate"
    assert "was not measured; give --transcribe" in zero_shot.told(pairs, {}).words
