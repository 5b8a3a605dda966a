# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound of any kind, read block by block and turned into PCM16 at one rate, or refused."""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import math
import numbers
import os
from typing import BinaryIO

import numpy as np
import soundfile

from data_pipelines.records import pcm16
from data_pipelines.sound import transforms

# Endings that are taken for sound. libsndfile cannot read the second group; such files are refused
# by name rather than passed over, because their owner will miss them.
READABLE = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64".split()
)
UNREADABLE = frozenset(".m4a .mp4 .aac .wma .webm .amr .ape .wv .tta .dsf .ac3".split())

# Why sound is refused, as manifests and refusals.jsonl spell it.
REASONS = {
    "empty": "the file has no bytes",
    "unsupported": "a format, rate or number of channels that is not read",
    "undecodable": "damaged, truncated or not sound",
    "unreadable": "the operating system would not give the file",
    "no_samples": "a header without samples",
    "not_finite": "NaN or infinite samples",
    "out_of_range": "most samples lie beyond full scale",
    "silent": "every sample is the same",
    "too_short": "shorter than min_seconds",
    "too_long": "longer than max_seconds by its header or while it was read",
    "crashed": "the decoder took the worker process with it",
}

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz; telephone archives start at 6 kHz
_MAX_CHANNELS = 64
_BLOCK_VALUES = 2**19  # samples over all channels that are decoded at a time: 2 MB of float32
_UNKNOWN_LENGTH = 2**62  # libsndfile's count for a stream whose header gives none is near 2**63


class Refused(Exception):
    """Sound that cannot be used; `reason` is a key of REASONS, `detail` one clause for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How sound becomes records.

    Attributes:
        sample_rate: Hz, of the records.
        segment_length: samples per record at `sample_rate`.
        mono: one of transforms.MONO_POLICIES.
        min_seconds: shorter sound is refused.
        max_seconds: longer sound is refused, from its header where that tells.
    """

    sample_rate: int
    segment_length: int
    mono: str
    min_seconds: float
    max_seconds: float


@dataclasses.dataclass(frozen=True)
class Sound:
    """Sound that is being read.

    Attributes:
        sample_rate: Hz.
        num_frames: samples per channel as the header has it, None if it does not say.
        blocks: arrays [samples, channels], float32, full scale [-1, 1].
        text: transcript or caption, "" if none.
        task: what the text is to the sound, "" if unknown.
        labels: names to values.
    """

    sample_rate: int
    num_frames: int | None
    blocks: Iterator[np.ndarray]
    text: str = ""
    task: str = ""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def opened(file: str | os.PathLike | BinaryIO) -> Iterator[Sound]:
    """Opens a sound file, by its path or as a binary stream.

    Raises:
        Refused: if it is not sound that can be read.
    """
    if not hasattr(file, "read"):
        file = os.fspath(file)
        _check_path(file)
    try:
        sound_file = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise Refused("undecodable", _sentence(error)) from None
    except OSError as error:
        raise Refused("unreadable", _sentence(error)) from None
    with sound_file:
        if not 1 <= sound_file.channels <= _MAX_CHANNELS:
            detail = f"{sound_file.channels} channels, at most {_MAX_CHANNELS} are read"
            raise Refused("unsupported", detail)
        num_frames = sound_file.frames if 0 <= sound_file.frames < _UNKNOWN_LENGTH else None
        yield Sound(sound_file.samplerate, num_frames, _decoded_blocks(sound_file, num_frames))


def _check_path(path: str) -> None:
    ending = os.path.splitext(path)[1].lower()
    try:
        num_bytes = os.stat(path).st_size
    except OSError as error:
        raise Refused("unreadable", _sentence(error)) from None
    if num_bytes == 0:
        raise Refused("empty", "0 bytes")
    if ending in UNREADABLE:
        raise Refused("unsupported", f"{ending} is not read by libsndfile: convert it to flac")


def _decoded_blocks(file: soundfile.SoundFile, num_frames: int | None) -> Iterator[np.ndarray]:
    block_frames = max(_BLOCK_VALUES // file.channels, 1)
    num_read = 0
    while True:
        try:
            block = file.read(block_frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise Refused("undecodable", f"{_sentence(error)} after {num_read} samples") from None
        if not len(block):
            break
        num_read += len(block)
        yield block
    # The header of an MP3 only estimates. Elsewhere a shortfall means that the end is missing.
    if num_frames is not None and 0 < num_read < num_frames and file.format not in ("MP3", "MPEG"):
        raise Refused("undecodable", f"truncated: {num_read} of {num_frames} samples are there")


def wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Returns the bytes of a 16-bit WAV file of [samples] in [-1, 1]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def pcm16_blocks(
    sound: Sound, conversion: Conversion, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    """Yields a sound as mono PCM16 at the conversion's rate, in blocks of bounded size.

    Whether the sound is refused is known only when the blocks are exhausted: keep them apart until
    then.

    Args:
        sound: what to read.
        conversion: rate, channel policy and limits.
        counts: "clipped_samples" is added to.

    Yields:
        [samples], int16.

    Raises:
        Refused: whatever is wrong with the sound, also what the decoder raised unforeseen.
    """
    try:
        yield from _pcm16_blocks(sound, conversion, counts)
    except Refused:
        raise
    except Exception as error:  # One bad file never ends a build, whatever libsndfile makes of it.
        raise Refused("undecodable", f"{type(error).__name__}: {_sentence(error)}") from error


def _pcm16_blocks(
    sound: Sound, conversion: Conversion, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    rate = sound.sample_rate
    _check_header(sound, conversion)
    resampler = transforms.Resampler(rate, conversion.sample_rate)
    num_read, num_clipped, num_written = 0, 0, 0
    lowest, highest, loudest = math.inf, -math.inf, 0
    blocks = iter(sound.blocks)
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)
        mono = transforms.to_mono(block, policy=conversion.mono)
        num_read += len(mono)
        if num_read > conversion.max_seconds * rate:
            raise Refused("too_long", f"more than {conversion.max_seconds:g} s")
        block_lowest, block_highest = float(mono.min()), float(mono.max())
        # The extremes are NaN or infinite exactly if a sample is.
        if not (math.isfinite(block_lowest) and math.isfinite(block_highest)):
            raise Refused("not_finite", f"NaN or infinite samples before {num_read / rate:.2f} s")
        lowest, highest = min(lowest, block_lowest), max(highest, block_highest)
        pcm, clipped = pcm16.from_float(resampler(mono, last=following is None))
        num_clipped += clipped
        if pcm.size:
            num_written += pcm.size
            loudest = max(loudest, int(pcm.max()), -int(pcm.min()))
            yield pcm
        block = following
    if num_read == 0:
        raise Refused("no_samples", "the header is followed by no samples")
    seconds = num_read / rate
    if seconds < conversion.min_seconds or num_written == 0:
        raise Refused("too_short", f"{seconds:.4f} s, the limit is {conversion.min_seconds:g} s")
    if lowest == highest or loudest == 0:
        raise Refused("silent", f"{seconds:.2f} s in which every sample is the same")
    if num_clipped > num_written // 2:
        detail = f"{num_clipped} of {num_written} samples lie beyond full scale: rescale it"
        raise Refused("out_of_range", detail)
    counts["clipped_samples"] += num_clipped


def is_rate(rate: float) -> bool:
    """Whether sound of that rate, Hz, is read: a whole number within the bounds."""
    return isinstance(rate, numbers.Real) and MIN_RATE <= rate <= MAX_RATE and rate == int(rate)


def _check_header(sound: Sound, conversion: Conversion) -> None:
    rate = sound.sample_rate
    if rate < 1:
        raise Refused("unsupported", f"a sample rate of {rate} Hz")
    if sound.num_frames is not None:
        seconds = sound.num_frames / rate
        if seconds > conversion.max_seconds:
            by = f"{seconds:.0f} s by its header ({sound.num_frames} samples at {rate} Hz)"
            raise Refused("too_long", f"{by}, the limit is {conversion.max_seconds:g} s")
        if 0 < seconds < conversion.min_seconds:
            limit = f"the limit is {conversion.min_seconds:g} s"
            raise Refused("too_short", f"{seconds:.4f} s, {limit}")
    if not is_rate(rate):
        detail = f"a sample rate of {rate} Hz, {MIN_RATE} to {MAX_RATE} are read"
        raise Refused("unsupported", detail)


def _sentence(error: Exception) -> str:
    """The error's message on one line, without the path that the refusal names anyway."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(getattr(error, "error_string", error)).split())[:300]
