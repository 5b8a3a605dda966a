# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files in and out of a tokenizer."""

from collections.abc import Iterable, Iterator
import itertools
import pathlib

import numpy as np

from data_pipelines.sound import audio_files
from data_pipelines.sound import transforms

CHANNEL_POLICIES = ("mix", "keep")
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}


def format_of(path: pathlib.Path) -> str:
    """Returns libsndfile's name of the format that a file's ending asks for.

    Raises:
        ValueError: for an ending that cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path} must end in one of {', '.join(_FORMATS)}")
    return _FORMATS[path.suffix.lower()]


class Input:
    """A sound file as blocks [channels, k] at another rate, its samples counted on the way."""

    def __init__(self, sound: audio_files.Sound, sample_rate: int, *, mix: bool):
        self._sound = sound
        self._sample_rate = sample_rate
        self._mix = mix
        self._blocks = iter(sound.blocks)
        self._first = next(self._blocks, None)
        self.num_samples = 0
        self.num_channels = 1 if mix or self._first is None else self._first.shape[1]

    def resampled(self) -> Iterator[np.ndarray]:
        if self._first is None:
            return
        resamplers = [
            transforms.Resampler(self._sound.sample_rate, self._sample_rate)
            for _ in range(self.num_channels)
        ]
        for block, last in with_last(itertools.chain([self._first], self._blocks)):
            if not np.isfinite(block).all():
                raise audio_files.Refused("not_finite", f"after {self.num_samples} samples")
            self.num_samples += len(block)
            rows = block.mean(axis=1)[None] if self._mix else block.T
            yield np.stack([resample(row, last=last) for resample, row in zip(resamplers, rows)])


def with_last(items: Iterable) -> Iterator:
    """Pairs every item with whether it is the last."""
    items = iter(items)
    held = next(items, None)
    while held is not None:
        following = next(items, None)
        yield held, following is None
        held = following
