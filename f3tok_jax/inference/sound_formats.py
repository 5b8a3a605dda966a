# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files that are written: what each format can hold, and files that are whole or absent."""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import pathlib

import numpy as np
import soundfile

from data_pipelines.records import atomic
from data_pipelines.sound import interrupts

_BLOCK_FRAMES = 2**16  # libvorbis puts a block on the stack: 3 million samples at once crash it
_WAV_BYTES = 2**32 - 2**12  # of samples; its sizes have 32 bits, and a header counts with them


@dataclasses.dataclass(frozen=True)
class Format:
    """What libsndfile can write in a file with an ending.

    Attributes:
        name: libsndfile's.
        begins: bytes that such a file may begin with.
        max_channels: that it holds.
        max_rate: Hz.
        step: Hz; above 65,535 Hz rates must be multiples of it.
    """

    name: str
    begins: tuple[bytes, ...]
    max_channels: int
    max_rate: int
    step: int = 1


# Found by trying: libvorbis crashes beyond its rate, libFLAC cannot spell other rates in a frame.
FORMATS = {
    ".wav": Format("WAV", (b"RIFF", b"RF64"), 1024, 2**31 - 1),
    ".flac": Format("FLAC", (b"fLaC",), 8, 655_350, 10),
    ".ogg": Format("OGG", (b"OggS",), 255, 200_000),
}


def of(path: str | pathlib.Path) -> Format:
    """Returns the format that a file's ending asks for.

    Raises:
        ValueError: for an ending that cannot be written.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path} must end in one of {', '.join(FORMATS)}, got {suffix!r}")
    return FORMATS[suffix]


def check(path: str | pathlib.Path, sample_rate: int, channels: int) -> None:
    """Raises ValueError for sound that the format of `path` cannot hold."""
    form = of(path)
    if not 1 <= channels <= form.max_channels:
        raise ValueError(
            f"{path} must have 1 to {form.max_channels} channels, as {form.name} has, got "
            f"{channels}: give another ending"
        )
    is_spelt = sample_rate <= 65_535 or sample_rate % form.step == 0
    if not (1 <= sample_rate <= form.max_rate and is_spelt):
        rule = f", above 65535 Hz in steps of {form.step}" if form.step > 1 else ""
        raise ValueError(
            f"{path} must have a rate up to {form.max_rate} Hz{rule}, as {form.name} has, got "
            f"{sample_rate} Hz: give another ending"
        )


def is_of_kind(path: str | pathlib.Path) -> bool:
    """Whether a file begins as those of its ending do, or holds nothing."""
    with open(path, "rb") as file:
        begins = file.read(4)
    return not begins or begins in of(path).begins


class Writer:
    """Sound that is being written."""

    def __init__(self, file: soundfile.SoundFile, target: "_Target"):
        self._file, self._target = file, target

    def write(self, block: np.ndarray) -> None:
        """Appends samples [n] or [n, channels], float in [-1, 1]."""
        for start in range(0, len(block), _BLOCK_FRAMES):
            with interrupts.held():
                self._file.write(block[start : start + _BLOCK_FRAMES])
            self._target.check()

    def flush(self) -> None:
        """Gives what was written to those who read the file by now."""
        self._file.flush()


class _Target(io.FileIO):
    """A file for libsndfile, which does not say why a write failed: the first error is kept."""

    shown = ""  # its name in messages
    error: OSError | None = None

    def write(self, data) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = self.error or error
        return len(data) - len(rest)

    def check(self) -> None:
        if self.error:
            raise OSError(self.error.errno, self.error.strerror, self.shown)


@contextlib.contextmanager
def written(
    path: str | pathlib.Path,
    sample_rate: int,
    *,
    channels: int = 1,
    num_samples: int = 0,
    in_place: bool = False,
) -> Iterator[Writer]:
    """A sound file to write; it appears when it is whole, or at once where `in_place`.

    Args:
        path: .wav or .flac (16-bit PCM), or .ogg; its folder is made.
        sample_rate: Hz.
        channels: of it.
        num_samples: of each channel, at most; a WAV of more than 4 GiB is an RF64.
        in_place: whether it can be read while it is written; what stood there gives way.

    Raises:
        ValueError: for what the format cannot hold, before anything is written.
        OSError: where the disk does not take it; nothing is left behind.
    """
    check(path, sample_rate, channels)
    path, form = pathlib.Path(path), of(path).name
    if form == "WAV" and 2 * channels * num_samples > _WAV_BYTES:
        form = "RF64"
    with _growing(path) if in_place else atomic.replacing(path) as place, _Target(place, "w") as to:
        to.shown = str(path)
        try:
            with soundfile.SoundFile(to, "w", sample_rate, channels, format=form) as file:
                yield Writer(file, to)
                with interrupts.held():
                    file.close()
        except (soundfile.SoundFileError, AssertionError):  # It asserts that all is written.
            to.check()
            raise
        to.check()


@contextlib.contextmanager
def _growing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Like atomic.replacing, but the file has its name from the beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # Others may know what stood there by another name.
    try:
        yield path
    except Exception:  # One that is stopped by hand keeps what was heard.
        path.unlink(missing_ok=True)
        raise
