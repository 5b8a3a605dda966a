# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files of any kind, read block by block or refused."""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import numbers
import os
from typing import BinaryIO

import numpy as np
import soundfile

from data_pipelines.records import sound as sound_records
from data_pipelines.sound import refusals

# Endings that are taken for sound. libsndfile cannot read the second group; such files are refused
# by name rather than passed over, because their owner will miss them.
READABLE = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64".split()
)
UNREADABLE = frozenset(".m4a .mp4 .aac .wma .webm .amr .ape .wv .tta .dsf .ac3".split())

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz; telephone archives start at 6 kHz
_MAX_CHANNELS = 64
_BLOCK_VALUES = 2**19  # samples over all channels that are decoded at a time: 2 MB of float32
# Largest samples of formats that hold less than 16 bits do.
_FULL_SCALES = dict(PCM_S8=127 / 128, PCM_U8=127 / 128, ULAW=32124 / 32768, ALAW=32256 / 32768)
_UNKNOWN_LENGTH = 2**62  # libsndfile's count for a stream whose header gives none is near 2**63


@dataclasses.dataclass(frozen=True)
class Sound:
    """Sound that is being read.

    Attributes:
        sample_rate: Hz.
        num_frames: samples per channel as the header has it, None if it does not say.
        blocks: arrays [samples, channels], float32, full scale [-1, 1].
        full_scale: the largest sample of its format, or of 16 bits if it holds larger ones.
        texts: transcripts and captions.
        labels: names to values.
    """

    sample_rate: int
    num_frames: int | None
    blocks: Iterator[np.ndarray]
    texts: tuple[sound_records.Text, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    full_scale: float = 1.0 - 2.0**-15


@contextlib.contextmanager
def opened(file: str | os.PathLike | BinaryIO) -> Iterator[Sound]:
    """Opens a sound file, by its path or as a binary stream.

    Raises:
        refusals.Refused: if it is not sound that can be read.
    """
    if not hasattr(file, "read"):
        file = os.fspath(file)
        _check_path(file)
    try:
        sound_file = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise refusals.Refused("undecodable", sentence(error)) from None
    except OSError as error:
        raise refusals.Refused("unreadable", sentence(error)) from None
    with sound_file:
        if not 1 <= sound_file.channels <= _MAX_CHANNELS:
            detail = f"{sound_file.channels} channels, at most {_MAX_CHANNELS} are read"
            raise refusals.Refused("unsupported", detail)
        num_frames = sound_file.frames if 0 <= sound_file.frames < _UNKNOWN_LENGTH else None
        blocks = _decoded_blocks(sound_file, num_frames)
        full_scale = _FULL_SCALES.get(sound_file.subtype, Sound.full_scale)
        yield Sound(sound_file.samplerate, num_frames, blocks, full_scale=full_scale)


def _check_path(path: str) -> None:
    ending = os.path.splitext(path)[1].lower()
    try:
        num_bytes = os.stat(path).st_size
    except OSError as error:
        raise refusals.Refused("unreadable", sentence(error)) from None
    if num_bytes == 0:
        raise refusals.Refused("empty", "0 bytes")
    if ending in UNREADABLE:
        raise refusals.Refused(
            "unsupported", f"{ending} is not read by libsndfile: convert it to flac"
        )


def _decoded_blocks(file: soundfile.SoundFile, num_frames: int | None) -> Iterator[np.ndarray]:
    block_frames = max(_BLOCK_VALUES // file.channels, 1)
    num_read = 0
    while True:
        try:
            block = file.read(block_frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise refusals.Refused(
                "undecodable", f"{sentence(error)} after {num_read} samples"
            ) from None
        if not len(block):
            break
        num_read += len(block)
        yield block
    # The header of an MP3 only estimates. Elsewhere a shortfall means that the end is missing.
    if num_frames is not None and 0 < num_read < num_frames and file.format not in ("MP3", "MPEG"):
        raise refusals.Refused(
            "undecodable", f"truncated: {num_read} of {num_frames} samples are there"
        )


def wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Returns the bytes of a 16-bit WAV file of [samples] in [-1, 1]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def is_rate(rate: float) -> bool:
    """Whether sound of that rate, Hz, is read: a whole number within the bounds."""
    return isinstance(rate, numbers.Real) and MIN_RATE <= rate <= MAX_RATE and rate == int(rate)


def sentence(error: Exception) -> str:
    """The error's message on one line, without the path that the refusal names anyway."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(getattr(error, "error_string", error)).split())[:300]
