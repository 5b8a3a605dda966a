# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files in and out of a tokenizer, of any rate; in bounded memory, where it can stream."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import fractions
import itertools
import pathlib
from typing import Any

import numpy as np

from data_pipelines.sound import audio_files
from data_pipelines.sound import conversion
from data_pipelines.sound import levels
from data_pipelines.sound import refusals
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.inference import frames
from f3tok_jax.inference import generate
from f3tok_jax.inference import rates
from f3tok_jax.inference import sound_formats
from f3tok_jax.signal import level

CHANNEL_POLICIES = ("mix", "keep")
_PIECE_LATENTS = 1000  # that are handed on at a time
_MIX_LOSS_DB = 12.0  # eight channels that have nothing in common lose 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A sound file that was generated.

    Attributes:
        num_samples: of it.
        sample_rate: Hz.
        is_cut: whether it had to end before the model would have ended it.
    """

    num_samples: int
    sample_rate: int
    is_cut: bool

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def ending(self) -> str:
        """How it ended, for the console."""
        return "cut at its limit" if self.is_cut else "ended by itself"


def encode_file(
    codec: codec_lib.Codec,
    path: str | pathlib.Path,
    *,
    channels: str = "mix",
    name: str = "",
    say: Callable[[str], None] = print,
) -> frames.Frames:
    """Encodes a sound file of any rate that libsndfile reads: a row for each channel.

    Args:
        codec: to encode with.
        path: of the sound.
        channels: "mix" encodes the mean of all channels, "keep" every channel by itself.
        name: of the file in messages; default its path.
        say: where messages to the user go: that channels cancel each other.

    Raises:
        ValueError: where the file is not sound, or holds nothing that can be encoded.
    """
    if channels not in CHANNEL_POLICIES:
        raise ValueError(f"channels must be one of {CHANNEL_POLICIES}, got {channels!r}")
    name, heard = name or str(path), _Heard(path, channels, codec.sample_rate)
    try:
        gains = _gains(codec, heard) if codec.autoencoder.level_db else ()
        latents = _rows(codec.encode_blocks(heard.blocks(), gain=gains or 1.0))
        if not latents:
            raise refusals.Refused("no_samples", "")
    except refusals.Refused as refusal:
        detail = f" ({refusal.detail})" if refusal.detail else ""
        raise ValueError(
            f"{name} cannot be encoded: {refusals.REASONS[refusal.reason]}{detail}"
        ) from refusal
    lost = heard.mix_loss_db
    if channels == "mix" and lost > _MIX_LOSS_DB:
        say(f"{name}: its channels cancel each other, their mean is {lost:.0f} dB below them")
    counts = [heard.num_samples] * len(latents)
    return codec.frames_of(latents, counts, sample_rate=heard.sample_rate, gains=gains)


class _Heard:
    """A sound file at the rate of a model, read as often as it is asked for.

    Attributes:
        num_samples: at its own rate, in the last reading.
        sample_rate: Hz, its own.
        mix_loss_db: dB by which the mean of its channels is below them.
    """

    def __init__(self, path: str | pathlib.Path, channels: str, model_rate: int):
        self._path, self._channels, self._model_rate = path, channels, model_rate
        self.num_samples, self.sample_rate, self.mix_loss_db = 0, 0, 0.0

    def blocks(self) -> Iterator[np.ndarray]:
        """[channels, any number] at the model's rate; raises refusals.Refused for what is no sound."""
        # One stretch of any length; clipping is counted by nobody here.
        meter = levels.Meter(full_scale=np.inf, stretch=fractions.Fraction(2**62))
        self.num_samples = 0
        with audio_files.opened(self._path) as sound:
            if sound.problem:
                raise sound.problem
            audio_files.check_rate(sound.sample_rate)
            self.sample_rate = sound.sample_rate
            yield from rates.resampled(
                self._checked(sound, meter), sound.sample_rate, self._model_rate
            )
        if meter.stretches:
            self.mix_loss_db = meter.stretches[0].figures()["mix_loss_db"]

    def _checked(self, sound: audio_files.Sound, meter: levels.Meter) -> Iterator[np.ndarray]:
        """[channels, any number] at the sound's own rate."""
        for block in sound.blocks:
            if not np.isfinite(block).all():
                raise refusals.Refused("not_finite", f"after {self.num_samples} samples")
            mono = block.mean(axis=1)
            peak, *_ = meter.add(block, mono)
            conversion.check_peak(peak)
            self.num_samples += len(block)
            yield mono[None] if self._channels == "mix" else block.T


def _gains(codec: codec_lib.Codec, heard: _Heard) -> list[float]:
    """Of each channel, known at the end of the file, which is read once for them."""
    meters: list[level.Meter] = []
    for block in heard.blocks():
        meters = meters or [codec.meter() for _ in block]
        for meter, row in zip(meters, block, strict=True):
            meter.add(row)
    return [meter.gain for meter in meters]


def _rows(parts: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Parts [c, k, d] float32 as c rows [t, d], none where there are none.

    Bytes are appended to in place: of an hour nothing is held twice.
    """
    rows, width = [], 1
    for part in parts:
        rows, width = rows or [bytearray() for _ in part], part.shape[2]
        for row, found in zip(rows, part, strict=True):
            row += found.tobytes()
    return [np.frombuffer(row, np.float32).reshape(-1, width) for row in rows]


def decode_file(codec: codec_lib.Codec, source: frames.Frames, path: str | pathlib.Path) -> None:
    """Writes the sound of `source`, of exactly its rate, channels and length.

    Args:
        codec: to decode with.
        source: latents of the same weights.
        path: .wav or .flac (16-bit PCM) or .ogg; written whole or not at all.

    Raises:
        ValueError: for latents of other weights, or what cannot be written in such a file.
    """
    channels, num_samples = len(source.rows), source.num_samples[0]
    sound_formats.check(path, source.sample_rate, channels)
    codec.check(source)
    starts = range(0, len(source.rows[0]), _PIECE_LATENTS)
    pieces = (
        np.stack([row[start : start + _PIECE_LATENTS] for row in source.rows]) for start in starts
    )
    decoded = codec.decode_blocks(pieces, gain=source.gains)
    blocks = rates.resampled(decoded, codec.sample_rate, source.sample_rate)
    with sound_formats.written(
        path, source.sample_rate, channels=channels, num_samples=num_samples
    ) as file:
        for block in rates.exactly(blocks, num_samples):
            file.write(np.clip(block.T, -1.0, 1.0))


def generate_file(
    generator: generate.TextToSound,
    request: generate.Request,
    path: str | pathlib.Path,
    *,
    max_seconds: float,
    stream: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Written:
    """Generates a sound file.

    Args:
        generator: to generate with.
        request: what is generated.
        path: .wav, .flac or .ogg.
        max_seconds: of what follows; the language model's window may allow less, which is said.
        stream: write each block as it is made; otherwise the file appears when it is whole.
        say: where messages to the user go.
        **options: `seed` and `sampler`; see generate.TextToSound.pieces.

    Raises:
        ValueError: for what cannot be generated, before anything is written.
    """
    codec, num_samples = generator.codec, 0
    sound_formats.check(path, codec.sample_rate, channels=1)
    max_patches = generator.patches_for(request, max_seconds, say=say)
    blocks = generator.stream(request, max_patches=max_patches, **options)
    first = next(blocks)  # what is wrong with the request shows here
    most = max_patches * generator.generator.patch * codec.autoencoder.samples_per_latent
    with sound_formats.written(path, codec.sample_rate, num_samples=most, in_place=stream) as file:
        for block in itertools.chain([first], blocks):
            file.write(block)
            num_samples += len(block)
            if stream:
                file.flush()
    return Written(
        num_samples=num_samples, sample_rate=codec.sample_rate, is_cut=num_samples >= most
    )
