# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files in and out of a tokenizer, of any rate, in bounded memory."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np
import soundfile

from data_pipelines.records import atomic
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.inference import frames
from f3tok_jax.inference import generate
from f3tok_jax.inference import rates

CHANNEL_POLICIES = ("mix", "keep")
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}


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
    codec: codec_lib.Codec, path: str | pathlib.Path, *, channels: str = "mix"
) -> frames.Frames:
    """Encodes a sound file of any rate that libsndfile reads: a row for each channel.

    Args:
        codec: to encode with.
        path: of the sound.
        channels: "mix" encodes the mean of all channels, "keep" every channel by itself.

    Raises:
        ValueError: where the file is not sound, or holds nothing that can be encoded.
    """
    if channels not in CHANNEL_POLICIES:
        raise ValueError(f"channels must be one of {CHANNEL_POLICIES}, got {channels!r}")
    num_samples = 0

    def blocks(sound: audio_files.Sound) -> Iterator[np.ndarray]:
        nonlocal num_samples
        for block in sound.blocks:
            if not np.isfinite(block).all():
                raise refusals.Refused("not_finite", f"after {num_samples} samples")
            num_samples += len(block)
            yield block.mean(axis=1)[None] if channels == "mix" else block.T

    try:
        with audio_files.opened(path) as sound:
            if sound.problem:
                raise sound.problem
            resampled = rates.resampled(blocks(sound), sound.sample_rate, codec.sample_rate)
            parts = list(codec.encode_stream(resampled))
        if not parts:
            raise refusals.Refused("no_samples", "")
    except refusals.Refused as refusal:
        detail = f" ({refusal.detail})" if refusal.detail else ""
        raise ValueError(
            f"{path} cannot be encoded: {refusals.REASONS[refusal.reason]}{detail}"
        ) from refusal
    latents = np.concatenate(parts, axis=1)
    return codec.frames_of(latents, [num_samples] * len(latents), sample_rate=sound.sample_rate)


def decode_file(codec: codec_lib.Codec, source: frames.Frames, path: str | pathlib.Path) -> None:
    """Writes the sound of `source`, of exactly its rate, channels and length.

    Args:
        codec: to decode with.
        source: latents of the same weights.
        path: .wav or .flac (16-bit PCM) or .ogg; written whole or not at all.

    Raises:
        ValueError: for latents of other weights, or a file ending that cannot be written.
    """
    codec.check(source)
    decoded = codec.decode_stream([np.stack(source.rows)])
    blocks = rates.resampled(decoded, codec.sample_rate, source.sample_rate)
    with sound_file(path, source.sample_rate, channels=len(source.rows)) as file:
        for block in rates.exactly(blocks, source.num_samples[0]):
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
    format_of(path)
    max_patches = generator.patches_for(request, max_seconds, say=say)
    blocks = generator.stream(request, max_patches=max_patches, **options)
    first = next(blocks)  # what is wrong with the request shows here
    codec, num_samples = generator.codec, 0
    with sound_file(path, codec.sample_rate, in_place=stream) as file:
        for block in itertools.chain([first], blocks):
            file.write(block)
            num_samples += len(block)
            if stream:
                file.flush()
    most = max_patches * generator.generator.patch * codec.autoencoder.samples_per_latent
    return Written(
        num_samples=num_samples, sample_rate=codec.sample_rate, is_cut=num_samples >= most
    )


def format_of(path: str | pathlib.Path) -> str:
    """Returns libsndfile's name of the format that a file's ending asks for.

    Raises:
        ValueError: for an ending that cannot be written.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(f"{path} must end in one of {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


@contextlib.contextmanager
def sound_file(
    path: str | pathlib.Path, sample_rate: int, *, channels: int = 1, in_place: bool = False
) -> Iterator[soundfile.SoundFile]:
    """A sound file to write; it appears when it is whole, or at once where `in_place`."""
    path, form = pathlib.Path(path), format_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext(path) if in_place else atomic.replacing(path) as target:
        with soundfile.SoundFile(target, "w", sample_rate, channels, format=form) as file:
            yield file
