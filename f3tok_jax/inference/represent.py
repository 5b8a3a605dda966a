# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A representation encoder in use: lists and streams of latents to representations."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.inference import batched
from f3tok_jax.models import representation_encoder
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import lineage

_CHUNK_LATENTS = 50  # per compiled step: 2 s at 25 Hz
_WHOLE_LATENTS = 1500  # of a sound that is represented in one piece at most: a minute at 25 Hz


class Representer:
    """A representation encoder with its weights."""

    def __init__(
        self,
        encoder: representation_encoder.RepresentationEncoder,
        params: Any,
        *,
        step: int | None = None,
        latent_rms: float = 1.0,
    ):
        """Takes a module and its parameters.

        Args:
            encoder: the module.
            params: its parameters.
            step: after which they were saved, if they were.
            latent_rms: of latents, by which they are divided; see lineage.Lineage.latent_rms.
        """
        self.encoder, self.step, self._params = encoder, step, params
        self._latent_rms = np.float32(latent_rms)
        self._step = jax.jit(functools.partial(encoder.apply, method="step"))
        self._represent = batched.Lists(
            self._latents_to_representations,
            params,
            stream=lambda latents: self.stream(latents[None])[0],
            longest=_WHOLE_LATENTS,
        )

    @classmethod
    def load(cls, run: lineage.Lineage, *, say: Callable[[str], None] = print) -> "Representer":
        """Loads the averaged weights of a run of the representation stage; see Codec.load."""
        encoder, params, found = pretrained_representation.load_encoder(run, say=say)
        return cls(encoder, params, step=found.step, latent_rms=found.latent_rms)

    def represent(self, latents: Sequence[np.ndarray], *, batch_size: int = 8) -> list[np.ndarray]:
        """Representations [t, width] float32 of each sequence of latents [t, latent_dim]."""
        return self._represent(latents, batch_size=batch_size)

    def stream(self, latents: np.ndarray) -> np.ndarray:
        """Representations [c, t, width] float32 of latents [c, t, latent_dim], piece by piece."""
        channels, total, _ = latents.shape
        # Room in powers of two: few programs for all lengths.
        room = _CHUNK_LATENTS * 2 ** max(0, int(np.ceil(np.log2(max(1.0, total / _CHUNK_LATENTS)))))
        cache = self.encoder.initial_cache(channels, room)
        parts = []
        for start in range(0, total, _CHUNK_LATENTS):
            chunk = latents[:, start : start + _CHUNK_LATENTS]
            count = chunk.shape[1]
            mask = np.broadcast_to(np.arange(_CHUNK_LATENTS) < count, (channels, _CHUNK_LATENTS))
            chunk = np.pad(chunk, ((0, 0), (0, _CHUNK_LATENTS - count), (0, 0)))
            chunk = chunk / self._latent_rms
            states, cache = self._step({"params": self._params}, chunk, cache, mask=mask)
            parts.append(np.asarray(states, np.float32)[:, :count])
        return np.concatenate(parts, axis=1)

    def _latents_to_representations(self, params, latents, mask) -> jax.Array:
        latents = latents / self._latent_rms
        found = self.encoder.apply({"params": params}, latents, segments=mask.astype(jnp.int32))
        return found.astype(jnp.float32)
