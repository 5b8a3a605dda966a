# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whole files come whole, to the sample; cut and damaged ones are refused or have their length.

Every kind of container, with random lengths, rates, widths, channels and damage from fixed seeds.
"""

import contextlib
import io
import zlib

import numpy as np
import pytest

from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals
from tests.support import containers

_DAMAGES = ("cut", "flip", "zero", "remove", "repeat", "insert")
_FEW, _MANY = 7, 46  # of each kind: 308 and 2,024 files in all, half of them damaged
_SEEDS = [
    *range(_FEW),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(_FEW, _MANY)),
]


def _random(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(kind.encode()), seed])


def _read(file) -> tuple[np.ndarray, int]:
    with audio_files.opened(file) as sound:
        blocks = list(sound.blocks)
        if sound.num_frames is not None:
            assert sum(map(len, blocks)) == sound.num_frames
        return np.concatenate(blocks), sound.sample_rate


def _damaged(made: containers.Made, how: str, rng: np.random.Generator) -> bytes:
    """The file with one damage behind the bytes that nothing vouches for."""
    content, end = made.content, len(made.content)
    place = int(rng.integers(made.header, end))
    length = int(rng.integers(1, min(400, end - place) + 1))
    before, after = content[:place], content[place + length :]
    if how == "flip":
        changed = bytearray(content)
        for place in rng.integers(made.header, end, 3):
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    return {
        "cut": before,
        "zero": before + bytes(length) + after,
        "remove": before + after,
        "repeat": content[: place + length] + content[place:],
        "insert": before + rng.bytes(length) + content[place:],
    }[how]


def _repeats(sound: np.ndarray) -> bool:
    """Whether a stretch of 128 samples comes twice: noise repeats nothing but silence."""
    content, width = np.ascontiguousarray(sound).tobytes(), 4 * sound.shape[1]
    for start in range(0, len(content) - 128 * width, 512 * width):
        stretch = content[start : start + 128 * width]
        if len(set(stretch)) > 32 and content.find(stretch, start + width) >= 0:
            return True
    return False


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("kind", containers.KINDS)
def test_a_whole_file_comes_whole(kind, seed, tmp_path):
    made = containers.KINDS[kind](_random(kind, seed))
    (tmp_path / "sound").write_bytes(made.content)
    for file in (tmp_path / "sound", io.BytesIO(made.content)):
        sound, rate = _read(file)
        assert (len(sound), rate) == (made.num_frames, made.rate)
        if made.sound is not None:
            np.testing.assert_array_equal(sound, made.sound)


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("kind", containers.KINDS)
def test_damage_is_refused_or_leaves_the_length(kind, seed, tmp_path):
    rng = _random(kind, seed + 1_000)
    made = containers.KINDS[kind](rng)
    # What a pipe leaves does not say how long it is: no cut of it can show.
    how = str(rng.choice(_DAMAGES if made.counts else ("flip", "zero")))
    (tmp_path / "sound").write_bytes(_damaged(made, how, rng))
    with contextlib.suppress(refusals.Refused):
        sound, rate = _read(tmp_path / "sound")
        assert (len(sound), rate) == (made.num_frames, made.rate), how
        assert not _repeats(sound)
        if made.sums:
            np.testing.assert_array_equal(sound, _read(io.BytesIO(made.content))[0])


def test_stretches_that_repeat_are_seen():
    sound = containers.noise(np.random.default_rng(0), 10_000, 2) + np.float32(1e-3)
    assert not _repeats(sound)
    assert _repeats(np.concatenate([sound[:8_000], sound[4_000:6_000]]))


@pytest.mark.parametrize("kind", [kind for kind in containers.KINDS if "piped" not in kind])
def test_a_cut_is_refused_by_its_reason(kind):
    made = containers.KINDS[kind](_random(kind, 0))
    for share in (0.5, 0.9, 0.99):
        content = made.content[: int(share * len(made.content)) + 1]
        with pytest.raises(refusals.Refused) as refusal:
            _read(io.BytesIO(content))
        assert refusal.value.reason == "truncated"


@pytest.mark.parametrize("form", ["WAV", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"])
def test_what_stands_before_a_cut_is_given_before_the_refusal(form):
    sound = containers.noise(np.random.default_rng(0), 60_000, 1)
    content = containers.encoded(sound, 16_000, form)
    whole, _ = _read(io.BytesIO(content))
    blocks = []
    with audio_files.opened(io.BytesIO(content[: len(content) * 3 // 4])) as opened:
        assert opened.problem.reason == "truncated"
        with pytest.raises(refusals.Refused, match="truncated"):
            blocks.extend(opened.blocks)
    front = np.concatenate(blocks)
    assert 25_000 < len(front) < 50_000
    if form != "MP3":  # its decoder may end otherwise than it goes on
        np.testing.assert_array_equal(front, whole[: len(front)])
