# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpora: speech, digits, music and sound events made from a seed, where there is no data.

    generate("speech", 17, seed=0, sample_rate=16_000)

A clip is a function of (corpus, seed, index) alone: alone or after others, here or in a worker
process, the same clip is the same numbers. Every index is valid; a corpus has no end.
"""

import dataclasses

import numpy as np

from data_pipelines.embedded.music import music
from data_pipelines.embedded.sound_events import sound_events
from data_pipelines.embedded.speech import digits
from data_pipelines.embedded.speech import speech

_SOURCES = {"speech": speech, "digits": digits, "music": music, "events": sound_events}
CORPORA = tuple(_SOURCES)

_MIN_SAMPLE_RATE = 8_000  # Hz; below it the sounds lose what names them
_MAX_SAMPLE_RATE = 192_000  # Hz


@dataclasses.dataclass(frozen=True)
class Clip:
    """A synthesised sound with its annotation.

    Attributes:
        key: unique name, "<corpus>-<seed>-<index>".
        waveform: [samples] float32, mono, strictly inside [-1, 1].
        text: what is said, or a caption of what is heard; lower case, no punctuation.
        text_kind: one of records.sound.TEXT_KINDS.
        labels: label name to value, both strings.
    """

    key: str
    waveform: np.ndarray
    text: str
    text_kind: str
    labels: dict[str, str]


def available(name: str) -> str | None:
    """Returns None when the corpus can be made here, else a sentence saying what is missing."""
    return _source(name).missing()


def says(name: str) -> tuple[str, ...]:
    """Returns what every clip of a corpus has: the names of its labels, and the kind of its text."""
    source = _source(name)
    return (*source.LABELS, source.TEXT_KIND)


def stratum(name: str, index: int, *, seed: int) -> str:
    """Returns what a clip is a part of, before it is made: its corpus, and the language of speech."""
    return f"{name} {speech.language_of(index, seed=seed)}" if name == "speech" else name


def generate(name: str, index: int, *, seed: int, sample_rate: int) -> Clip:
    """Returns clip `index` of a corpus.

    Args:
        name: one of CORPORA.
        index: which clip, 0 or more.
        seed: another seed gives other clips.
        sample_rate: Hz, 8000 to 192000.

    Returns:
        The clip; 0.4 to 8 seconds, peak at -20 to -1 dBFS.

    Raises:
        ValueError: an unknown corpus, a negative index or a rate out of range.
        ModuleNotFoundError: the corpus needs an extra that is not installed.
    """
    source = _source(name)
    if index < 0:
        raise ValueError(f"index of a clip of corpus {name!r} must be 0 or more, got {index}")
    if not _MIN_SAMPLE_RATE <= sample_rate <= _MAX_SAMPLE_RATE:
        raise ValueError(
            f"sample_rate of an embedded corpus must be {_MIN_SAMPLE_RATE} to {_MAX_SAMPLE_RATE} "
            f"Hz, got {sample_rate}"
        )
    reason = source.missing()
    if reason:
        raise ModuleNotFoundError(reason)
    waveform, text, labels = source.generate(index, seed=seed, sample_rate=sample_rate)
    return Clip(
        key=f"{name}-{seed}-{index:07d}",
        waveform=waveform,
        text=text,
        text_kind=source.TEXT_KIND,
        labels=labels,
    )


def _source(name: str):
    if name not in _SOURCES:
        raise ValueError(f"embedded corpus must be one of {CORPORA}, got {name!r}")
    return _SOURCES[name]
