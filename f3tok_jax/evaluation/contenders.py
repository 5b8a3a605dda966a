# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The codecs that an evaluation compares: a model, the model under latent noise, two references."""

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import functools
import os
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.evaluation import baselines
from f3tok_jax.evaluation import examples as examples_lib

NOISE_SEED = 0
ALPHAS = (0.0, 0.25, 0.5, 1.0)  # strengths of latent noise; a clean latent has rms 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table: its name, a title, one sentence on it, and sounds in, sounds out."""

    name: str
    title: str
    description: str
    reconstruct: Callable[[Sequence[examples_lib.Example]], list[np.ndarray]]


class Model:
    """An autoencoder that codes lists of sounds in batches of one shape."""

    def __init__(self, module, params, *, batch_size: int, num_samples: int):
        """Compiles nothing yet.

        Args:
            module: with methods waveform_to_latents and latents_to_waveform.
            params: of the module.
            batch_size: sounds coded at a time.
            num_samples: to which every sound is padded.
        """
        self._batch_size, self._num_samples = batch_size, num_samples
        self.samples_per_latent = module.samples_per_latent
        self._encode = jax.jit(
            functools.partial(module.apply, {"params": params}, method="waveform_to_latents")
        )
        self._decode = jax.jit(
            functools.partial(module.apply, {"params": params}, method="latents_to_waveform")
        )
        self._latents: tuple[list[str], jax.Array] = ([], jnp.zeros(()))

    def encode(self, examples: Sequence[examples_lib.Example]) -> jax.Array:
        """At most a batch of sounds -> clean latents [batch_size, t, d]."""
        keys = [example.key for example in examples]
        if self._latents[0] != keys:  # the rows of the table share one encoding
            batch = np.zeros((self._batch_size, self._num_samples), np.float32)
            for row, example in enumerate(examples):
                batch[row, : len(example.waveform)] = example.waveform
            self._latents = keys, self._encode(jnp.asarray(batch))
        return self._latents[1]

    def frames(self, examples: Sequence[examples_lib.Example]) -> list[np.ndarray]:
        """The latent frames [t, d] of each sound without those that are all padding."""
        latents = np.asarray(self.encode(examples), np.float64)
        return [
            latents[row, : -(-len(example.waveform) // self.samples_per_latent)]
            for row, example in enumerate(examples)
        ]

    def reconstruct(
        self, examples: Sequence[examples_lib.Example], *, alpha: float
    ) -> list[np.ndarray]:
        """Decodes latents + alpha * noise; an example's noise depends on its key alone."""
        latents = self.encode(examples)
        if alpha:
            noise = [_noise(example.key, latents.shape[1:]) for example in examples]
            noise += [np.zeros(latents.shape[1:], np.float32)] * (self._batch_size - len(noise))
            latents = latents + alpha * jnp.asarray(np.stack(noise))
        waveform = np.asarray(self._decode(latents))
        return [waveform[row, : len(example.waveform)] for row, example in enumerate(examples)]


def make_contenders(
    model: Model,
    pca: baselines.PcaCodec,
    mel: baselines.MelCodec,
) -> list[Contender]:
    """The rows of the table, in order."""
    contenders = []
    for alpha in ALPHAS:
        description = (
            "Clean latents through the decoder."
            if not alpha
            else (
                f"The decoder given latents with Gaussian noise of rms {alpha:g} added, where "
                "clean latents have rms 1: how much a generator may err."
            )
        )
        contenders.append(
            Contender(
                name=f"model_alpha_{alpha:g}" if alpha else "model",
                title=f"model, noise {alpha:g}" if alpha else "model",
                description=description,
                reconstruct=functools.partial(model.reconstruct, alpha=alpha),
            )
        )

    def each(codec) -> Callable[[Sequence[examples_lib.Example]], list[np.ndarray]]:
        def reconstruct(examples: Sequence[examples_lib.Example]) -> list[np.ndarray]:
            with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(pool.map(lambda e: codec.reconstruct(e.waveform), examples))

        return reconstruct

    contenders.append(
        Contender(
            name="pca",
            title="PCA of raw frames",
            reconstruct=each(pca),
            description=f"The first {len(pca.components)} principal components of raw frames of "
            f"{len(pca.mean)} samples, fitted on {pca.num_frames} frames of the training data: the "
            "best linear code of the same rate and width.",
        )
    )
    contenders.append(
        Contender(
            name="mel_griffin_lim",
            title="mel + Griffin-Lim",
            reconstruct=each(mel),
            description=f"{mel.num_mels} mel bands every {mel.hop_length} samples, as many values "
            f"per second as the latents, and {mel.num_iterations} iterations of Griffin-Lim to "
            "find a phase.",
        )
    )
    return contenders


def _noise(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise from an example's key alone: the same for every run and alpha."""
    example = jax.random.fold_in(jax.random.key(NOISE_SEED), zlib.crc32(key.encode()))
    return np.asarray(jax.random.normal(example, shape))
