# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds of a set, and what an autoencoder makes of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import pcm16
from f3tok_jax.inference import batched
from f3tok_jax.inference import tokenizer as tokenizer_lib


def read_sounds(folder: str, *, sample_rate: int, num_sounds: int, shortest: int) -> list:
    """Waveforms [n] float32 of evenly spaced records of a set.

    Args:
        folder: of the set.
        sample_rate: Hz.
        num_sounds: at most; 0 for all.
        shortest: samples; shorter sounds are left out.

    Raises:
        ValueError: if it holds latents, or nothing that is long enough.
    """
    source = sources.open_source(folder, sample_rate=sample_rate)
    if isinstance(source, sources.LatentSet):
        raise ValueError(f"{folder} must hold sound, got latents: they cannot be disturbed")
    indices = sources.spaced(len(source), num_sounds or len(source))
    found = [pcm16.to_float(source[index].waveform) for index in indices]
    found = [sound for sound in found if len(sound) >= shortest]
    if not found:
        raise ValueError(f"{folder} has no sound of at least {shortest} samples")
    return found


class Hearing:
    """Sounds and their latents, in batches of one shape."""

    def __init__(
        self, tokenizer: tokenizer_lib.F3Tokenizer, sounds: Sequence[np.ndarray], batch_size: int
    ):
        """Encodes sounds [n]."""
        hop = tokenizer.run.sound.samples_per_latent
        latents = tokenizer.codec.encode(sounds, batch_size=batch_size)
        length = max(map(len, latents))
        self._parts = []
        for start in range(0, len(sounds), batch_size):
            some = slice(start, start + batch_size)
            waveform, mask = batched.padded(sounds[some], batch_size, length * hop)
            values, valid = batched.padded(latents[some], batch_size, length)
            self._parts.append(({"waveform": waveform, "mask": mask}, values, valid))

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        """Batch of sound, latents [b, t, d] and their mask [b, t]."""
        return iter(self._parts)
