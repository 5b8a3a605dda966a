# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The ways of making a sound again that stand beside each other in an evaluation."""

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import functools
import os
from typing import Any
import zlib

import jax
import numpy as np

from f3tok_jax.evaluation import baselines
from f3tok_jax.evaluation import distributions
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import opus
from f3tok_jax.inference import codec as codec_lib

NOISE_SEED = 0
ALPHAS = (0.0, 0.25, 0.5, 1.0)  # rms of the noise on latents, over that of the latents
_SILENCE_SECONDS = 2.0
_LEAST_DB = -200.0  # dBFS, of what is nothing at all

Waveforms = list[np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: its name, a title, one sentence on it, and sounds in, sounds out."""

    name: str
    title: str
    description: str
    reconstruct: Callable[[Sequence[examples_lib.Example]], Waveforms]


class Model:
    """An autoencoder on batches of examples, with or without noise on the latents."""

    def __init__(self, codec: codec_lib.Codec, *, batch_size: int, num_samples: int):
        """Compiles nothing yet.

        Args:
            codec: the autoencoder.
            batch_size: sounds coded at a time.
            num_samples: of the longest sound, which decides the shapes of what is compiled.
        """
        self.codec, self._batch_size, self._num_samples = codec, batch_size, num_samples
        self.latent_rms = 1.0  # that of normalised frames
        self._heard: tuple[list[str], Waveforms, list[float]] = ([], [], [])

    def measure(self, examples: Sequence[examples_lib.Example]) -> None:
        """Takes the rms of all latents of the examples for the scale of the noise: of a bottleneck that
        does not hold them at 1."""
        moments = distributions.Moments(self.codec.autoencoder.latent_dim)
        for first in range(0, len(examples), self._batch_size):
            batch = examples[first : first + self._batch_size]
            for latents in self._encode([example.waveform for example in batch])[0]:
                moments.add(latents)
        self.latent_rms = float(np.sqrt(np.mean(np.diag(moments.second_moment))))

    def encode(self, examples: Sequence[examples_lib.Example]) -> list[np.ndarray]:
        """Clean latents [t, d] of each sound."""
        return self._encoded(examples)[0]

    def _encoded(self, examples: Sequence[examples_lib.Example]) -> tuple[Waveforms, list[float]]:
        """Of each sound its latents, and its gain."""
        keys = [example.key for example in examples]
        if self._heard[0] != keys:  # the rows of the table share one encoding
            self._heard = keys, *self._encode([example.waveform for example in examples])
        return self._heard[1:]

    def reconstruct(self, examples: Sequence[examples_lib.Example], *, alpha: float) -> Waveforms:
        """Decodes latents + alpha * latent_rms * noise; an example's noise depends on its key alone."""
        latents, gains = self._encoded(examples)
        if alpha:
            noise = (_noise(e.key, row.shape) for e, row in zip(examples, latents))
            scale = alpha * self.latent_rms
            latents = [row + scale * more for row, more in zip(latents, noise)]
        return self._decode(latents, gains, examples)

    def reconstruct_at(
        self, examples: Sequence[examples_lib.Example], *, level_db: float
    ) -> Waveforms:
        """Codes each sound with its peak at `level_db` dBFS, and brings it back to its own level."""
        peaks = [float(np.abs(example.waveform).max()) for example in examples]
        gains = [10 ** (level_db / 20) / peak if peak else 1.0 for peak in peaks]
        sounds = [
            (gain * example.waveform).astype(np.float32) for gain, example in zip(gains, examples)
        ]
        decoded = self._decode(*self._encode(sounds), examples)
        return [sound / gain for sound, gain in zip(decoded, gains)]

    def silence_db(self) -> float:
        """Rms of what digital silence comes out as, dBFS."""
        silence = np.zeros(round(_SILENCE_SECONDS * self.codec.sample_rate), np.float32)
        latents, gains = self.codec.encode_with_gains([silence])
        (sound,) = self.codec.decode(latents, gains=gains)
        power = float(np.mean(np.square(sound[: len(silence)], dtype=np.float64)))
        return max(10 * np.log10(power), _LEAST_DB) if power else _LEAST_DB

    def _encode(self, sounds: Waveforms) -> tuple[Waveforms, list[float]]:
        """Of each sound its latents, and its gain."""
        options = dict(batch_size=self._batch_size, expected=self._num_samples)
        return self.codec.encode_with_gains(sounds, **options)

    def _decode(
        self,
        latents: Sequence[np.ndarray],
        gains: Sequence[float],
        examples: Sequence[examples_lib.Example],
    ) -> Waveforms:
        longest = self.codec.num_latents(self._num_samples)
        options = dict(batch_size=self._batch_size, expected=longest)
        decoded = self.codec.decode(latents, gains=gains, **options)
        return [sound[: len(example.waveform)] for sound, example in zip(decoded, examples)]


def make_rows(
    model: Model,
    pca: baselines.PcaCodec,
    mel: baselines.MelCodec,
    *,
    levels_db: Sequence[float] = (),
) -> list[Row]:
    """The rows of the table, in order; those of Opus where its programs are.

    Args:
        model: the autoencoder.
        pca: reference.
        mel: reference.
        levels_db: dBFS of the peak, at which the model hears every sound in a row each.
    """
    noisy = "The decoder given latents with Gaussian noise added, whose rms is {:g} times that of clean "
    noisy += f"latents, {model.latent_rms:.3g}: how much a generator may err."
    rows = [
        Row(
            name=f"model_alpha_{alpha:g}" if alpha else "model",
            title=f"model, noise {alpha:g}" if alpha else "model",
            description=noisy.format(alpha) if alpha else "Clean latents through the decoder.",
            reconstruct=functools.partial(model.reconstruct, alpha=alpha),
        )
        for alpha in ALPHAS
    ]

    rows += [
        Row(
            name=f"model_peak_{level:g}",
            title=f"model, peak {level:g} dBFS",
            description=f"Each sound heard with its peak at {level:g} dBFS, and brought back to the "
            "level of its recording: what the model makes of quiet and of loud sound.",
            reconstruct=functools.partial(model.reconstruct_at, level_db=level),
        )
        for level in levels_db
    ]
    return [
        *rows,
        Row(
            name="pca",
            title="PCA of raw frames",
            reconstruct=_each(pca),
            description=f"The first {len(pca.components)} principal components of raw frames of "
            f"{len(pca.mean)} samples, fitted on {pca.num_frames} frames of the training data: the "
            "best linear code of the same rate and width.",
        ),
        Row(
            name="mel_griffin_lim",
            title="mel + Griffin-Lim",
            reconstruct=_each(mel),
            description=f"{mel.num_mels} mel bands every {mel.hop_length} samples, as many values "
            f"per second as the latents, and {mel.num_iterations} iterations of Griffin-Lim to "
            "find a phase.",
        ),
        *([] if opus.missing() else _opus_rows(mel.sample_rate)),
    ]


def _opus_rows(sample_rate: int) -> list[Row]:
    return [
        Row(
            name=f"opus_{kilobits}",
            title=f"Opus, {kilobits} kbit/s",
            reconstruct=_each(opus.OpusCodec(sample_rate=sample_rate, kilobits=kilobits)),
            description=f"The codec of calls and browsers at {kilobits} kbit/s, its own mode and "
            "bandwidth; latents are no bits, so it stands beside them by ear, not by rate.",
        )
        for kilobits in opus.KILOBITS
    ]


def _each(codec: Any) -> Callable[[Sequence[examples_lib.Example]], Waveforms]:
    """What codes one sound after the other, on all cores."""

    def reconstruct(examples: Sequence[examples_lib.Example]) -> Waveforms:
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda e: codec.reconstruct(e.waveform), examples))

    return reconstruct


def _noise(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise from an example's key alone: the same for every run and alpha."""
    example = jax.random.fold_in(jax.random.key(NOISE_SEED), zlib.crc32(key.encode()))
    return np.asarray(jax.random.normal(example, shape))
