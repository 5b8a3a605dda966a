# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What follows the text is told from what follows the noise."""

import numpy as np
import pytest

from f3tok_jax.evaluation import metrics
from f3tok_jax.evaluation import text_sensitivity

_RATE = 16_000


def _tone(pitch: float, seconds: float = 0.5, noise: int = 0) -> np.ndarray:
    """A harmonic tone, with a little noise of its own."""
    time = np.arange(int(seconds * _RATE)) / _RATE
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8))
    hiss = np.random.default_rng(noise).normal(size=len(time))
    return (0.1 * tone + 0.01 * hiss).astype(np.float32)


def _measure(speak, texts=(0, 1, 2)) -> dict[str, float]:
    """Of texts said by `speak(text, noise)`."""

    def generate(numbers, seed):
        return [speak(texts[number], seed + place) for place, number in enumerate(numbers)]

    first = generate(range(len(texts)), 5)
    said = dict(texts=[str(text) for text in texts], seed=5, sample_rate=_RATE)
    return text_sensitivity.measure(first, generate, **said)


def test_sound_that_follows_its_text_is_sensitive():
    found = _measure(lambda text, noise: _tone(150 * 2**text, noise=noise))
    assert found["distance_other_text"] > 3 * found["distance_other_seed"]
    assert found["text_sensitivity"] > 3


def test_sound_that_follows_its_noise_alone_is_not():
    found = _measure(lambda text, noise: _tone(150 * 2 ** (noise % 3), noise=noise))
    assert found["distance_other_text"] == 0
    assert found["text_sensitivity"] < 1
    both = _measure(lambda text, noise: _tone(200, noise=noise + 100 * text))
    assert both["text_sensitivity"] == pytest.approx(1, abs=0.2)


def test_a_text_that_many_say_is_no_other_text_of_itself():
    speak = lambda text, noise: _tone(150 * 2**text, noise=noise)
    found = _measure(speak, (0, 0, 0, 1, 1))
    assert found["distance_other_text"] == pytest.approx(
        _measure(speak, (0, 1))["distance_other_text"], rel=0.1
    )
    assert found["text_sensitivity"] > 3


def test_where_all_say_one_text_there_is_no_other():
    speak = lambda text, noise: _tone(200, noise=noise)
    assert _measure(speak, (0,)) == _measure(speak, (1, 1)) == {}


def test_sounds_are_compared_along_their_best_alignment():
    slow = np.concatenate([_tone(150, 0.6), _tone(600, 0.6)])
    fast = np.concatenate([_tone(150, 0.3, 1), _tone(600, 0.3, 1)])
    other = np.concatenate([_tone(600, 0.3, 1), _tone(150, 0.3, 1)])
    near = text_sensitivity.aligned_distance(slow, fast, _RATE)
    assert near == pytest.approx(text_sensitivity.aligned_distance(fast, slow, _RATE))
    assert near < 0.4 * text_sensitivity.aligned_distance(slow, other, _RATE)


def test_the_alignment_is_the_cheapest_of_all():
    """Against every path, of sounds of a few frames."""
    rng = np.random.default_rng(3)
    one, other = (rng.normal(size=n).astype(np.float32) * 0.1 for n in (700, 500))
    rows, columns = (metrics.mel_cepstra(sound, _RATE) for sound in (one, other))
    costs = metrics.cepstral_distances(rows[:, None], columns[None])

    def cheapest(i: int, j: int) -> float:
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        ways = [cheapest(*place) for place in before if min(place) >= 0]
        return costs[i, j] + (min(ways) if ways else 0.0)

    wanted = cheapest(len(rows) - 1, len(columns) - 1) / max(costs.shape)
    assert text_sensitivity.aligned_distance(one, other, _RATE) == pytest.approx(wanted)
