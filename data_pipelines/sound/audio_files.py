# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files of any kind, read block by block or refused."""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import itertools
import numbers
import os
import stat
from typing import BinaryIO

import numpy as np
import soundfile

from data_pipelines.containers import content
from data_pipelines.containers import streams
from data_pipelines.containers import walk as walk_lib
from data_pipelines.records import pcm16
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import decoder_reports
from data_pipelines.sound import interrupts
from data_pipelines.sound import refusals

# Endings that are taken for sound. libsndfile cannot read the second group; such files are refused
# by name rather than passed over, because their owner will miss them.
READABLE = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .mpga .aif .aiff .aifc .au .snd .caf .w64 .rf64 "
    ".bw64 .sph .nist".split()
)
UNREADABLE = frozenset(".m4a .mp4 .aac .wma .webm .amr .ape .wv .tta .dsf .ac3".split())
ENDINGS = READABLE | UNREADABLE  # of what is taken for sound

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz; telephone archives start at 6 kHz
MAX_CHANNELS = 64
_BLOCK_VALUES = 2**19  # samples over all channels that are read at a time: 2 MB of float32
_BUFFER_BYTES = 2**16
_STEPS = 20  # per second, in which damaged sound is decoded to find the damage
# Largest samples of formats that hold less than 16 bits do.
_FULL_SCALES = dict(PCM_S8=127 / 128, PCM_U8=127 / 128, ULAW=32124 / 32768, ALAW=32256 / 32768)
_UNKNOWN_LENGTH = 2**62  # libsndfile's count for a stream whose header gives none is near 2**63


@dataclasses.dataclass(frozen=True)
class Sound:
    """Sound that is being read.

    Attributes:
        sample_rate: Hz.
        num_frames: samples per channel that come, None if that is not known before.
        blocks: arrays [samples, channels], float32, full scale [-1, 1]; where the sound is not
            whole, what stands before the problem, and then a refusal is raised.
        full_scale: the largest sample of its format, or of 16 bits if it holds larger ones.
        texts: transcripts and captions.
        labels: names to values.
        problem: why it is not whole, where that is known before anything is decoded.
    """

    sample_rate: int
    num_frames: int | None
    blocks: Iterator[np.ndarray]
    texts: tuple[sound_records.Text, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    full_scale: float = 1.0 - 2.0**-15
    problem: refusals.Refused | None = None


class _Forward(soundfile.SoundFile):
    """A sound file that is read from start to end: seeking after every block fails in places."""

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def opened(file: str | bytes | os.PathLike | BinaryIO) -> Iterator[Sound]:
    """Opens a sound file, by its path or as a seekable binary stream.

    Raises:
        refusals.Refused: if it is not sound that can be read. Sound that is not whole is opened;
            see Sound.problem and Sound.blocks.
    """
    with contextlib.ExitStack() as stack:
        path = None
        try:
            if not hasattr(file, "read"):
                path = os.fsencode(file)
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise refusals.Refused("unreadable", "not a file but a folder, pipe or device")
                file = stack.enter_context(open(path, "rb"))
            walk = walk_lib.walk(file)
        except OSError as error:
            raise refusals.Refused("unreadable", sentence(error)) from None
        problem = walk.problem and refusals.Refused(walk.problem.reason, walk.problem.detail)
        if not walk.streams:
            ending = os.path.splitext(path or b"")[1].decode("latin-1").lower()
            if problem.reason == "undecodable" and ending in UNREADABLE:
                problem = unsupported(ending)
            raise problem
        decoders = (
            stack.enter_context(_Decoder(walk.kind, stream, file, path)) for stream in walk.streams
        )
        first = next(decoders)
        counts = [stream.num_frames for stream in walk.streams]
        if None in counts:
            counts = [first.num_frames] if len(counts) == 1 else [None]
        yield Sound(
            first.file.samplerate,
            None if None in counts else sum(counts),
            _all_blocks(itertools.chain([first], decoders), problem),
            full_scale=_FULL_SCALES.get(first.file.subtype, Sound.full_scale),
            problem=problem,
        )


def _all_blocks(
    decoders: Iterator["_Decoder"], problem: refusals.Refused | None
) -> Iterator[np.ndarray]:
    layouts = set()
    for decoder in decoders:
        layouts.add((decoder.file.samplerate, decoder.file.channels))
        if len(layouts) > 1:
            raise refusals.Refused("several_streams", streams.several(layouts))
        try:
            yield from decoder.blocks()
        except refusals.Refused as refusal:
            # What the walk found says more than what the decoder made of it.
            raise problem or refusal from None
        decoder.close()
    if problem:
        raise problem


class _Decoder:
    """One stream of a file, decoded and held to its length."""

    def __init__(self, kind: str, stream: streams.Stream, file: BinaryIO, path: bytes | None):
        """Opens the stream; raises refusals.Refused if libsndfile does not read it."""
        self._source, self._reports = path, decoder_reports.Reports() if kind == "mpeg" else None
        if path is None or stream.pieces is not None:
            pieces = stream.pieces or (range(file.seek(0, os.SEEK_END)),)
            # A decoder asks for a frame's header, then for its body: a few bytes at a time.
            self._source = io.BufferedReader(content.PiecesFile(file, pieces), _BUFFER_BYTES)
        self.file = None
        self._open()
        self.num_frames = stream.num_frames
        if self.num_frames is None and 0 <= self.file.frames < _UNKNOWN_LENGTH:
            self.num_frames = self.file.frames
        if not 1 <= self.file.channels <= MAX_CHANNELS:
            detail = f"{self.file.channels} channels, at most {MAX_CHANNELS} are read"
            raise refusals.Refused("unsupported", detail)

    def __enter__(self) -> "_Decoder":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Closes the stream; once more does nothing."""
        if self.file:
            self.file.close()
        if self._reports:
            self._reports.close()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the stream, [samples, channels], float32; raises refusals.Refused at damage."""
        num_read, block_frames = 0, max(_BLOCK_VALUES // self.file.channels, 1)
        while True:
            left = block_frames if self.num_frames is None else self.num_frames - num_read
            # One more than is to come: there must be no more.
            block, refusal = self._block(min(max(left, 0) + 1, block_frames))
            if refusal and refusal.reason == "damaged":
                block, refusal = self._up_to_damage(num_read, block_frames)
            num_read += len(block)
            if len(block):
                yield block
            if refusal:
                raise refusals.Refused(refusal.reason, f"{refusal.detail} after {num_read} samples")
            if not len(block):
                break
        if self.num_frames is not None and num_read != self.num_frames:
            detail = f"{num_read} of {self.num_frames} samples came out"
            raise self._refusal("damaged", detail)

    def _up_to_damage(
        self, num_read: int, block_frames: int
    ) -> tuple[np.ndarray, refusals.Refused]:
        """A block that is damaged once more, in small steps: what stands before, and the damage."""
        self._open()
        for _ in range(num_read // block_frames):
            self._block(block_frames)
        found, refusal = [], None
        while refusal is None:
            step, refusal = self._block(max(self.file.samplerate // _STEPS, 1))
            found.append(step)
            if not len(step):
                refusal = refusal or self._refusal("damaged", "decoded otherwise the second time")
        return np.concatenate(found), refusal

    def _open(self) -> None:
        if self.file:
            self.file.close()
        if self._reports:
            self._reports.damage = None
        if not isinstance(self._source, bytes):
            self._source.seek(0)
        try:
            with interrupts.held(), self._heard():
                self.file = _Forward(self._source)
        except (soundfile.LibsndfileError, TypeError) as error:
            self.close()
            raise self._refusal("undecodable", sentence(error)) from None

    def _block(self, num_frames: int) -> tuple[np.ndarray, refusals.Refused | None]:
        """The next samples, fewer or none at the end; none, and why, where there is damage."""
        # libsndfile makes floats of 16 bits slowly; the samples are the same.
        is_pcm16 = self.file.subtype == "PCM_16"
        dtype = np.int16 if is_pcm16 else np.float32
        block = np.empty((num_frames, self.file.channels), dtype)
        try:
            with interrupts.held(), self._heard():
                block = self.file.read(out=block)
        except soundfile.LibsndfileError as error:
            return block[:0], self._refusal("damaged", sentence(error))
        if self._reports and self._reports.damage:
            return block[:0], self._refusal("damaged", self._reports.damage)
        return (pcm16.to_float(block) if is_pcm16 else block), None

    def _heard(self) -> contextlib.AbstractContextManager[None]:
        return self._reports.heard() if self._reports else contextlib.nullcontext()

    def _refusal(self, reason: str, detail: str) -> refusals.Refused:
        if not isinstance(self._source, bytes) and self._source.raw.error:
            return refusals.Refused("unreadable", sentence(self._source.raw.error))
        return refusals.Refused(reason, detail)


def wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Returns the bytes of a 16-bit WAV file of [samples] in [-1, 1]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def unsupported(ending: str) -> refusals.Refused:
    """The refusal of a file of an UNREADABLE ending."""
    detail = f"{ending} is not read by libsndfile: convert it to flac"
    return refusals.Refused("unsupported", detail)


def is_rate(rate: float) -> bool:
    """Whether sound of that rate, Hz, is read: a whole number within the bounds."""
    return isinstance(rate, numbers.Real) and MIN_RATE <= rate <= MAX_RATE and rate == int(rate)


def check_rate(rate: float) -> None:
    """Raises refusals.Refused for sound of a rate that is not read."""
    if not is_rate(rate):
        raise refusals.Refused(
            "unsupported", f"a sample rate of {rate} Hz, {MIN_RATE} to {MAX_RATE} are read"
        )


def sentence(error: Exception) -> str:
    """The error's message on one line, without the path that the refusal names anyway."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(getattr(error, "error_string", error)).split())[:300]
