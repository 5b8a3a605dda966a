# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What RQ-MTP asks for: labels of a batch, from statistics that are measured once per run."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from f3tok_jax.models import rq_mtp
from f3tok_jax.models import whitening
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.runs import lineage
from f3tok_jax.training import stage

NORMALIZATIONS = ("whiten", "leading", "standardize")


class Targets:
    """Labels of latents, or of log-mel frames, by a table that is random and stays so."""

    def __init__(self, config: ml_collections.ConfigDict, frozen: frozen_lib.FrozenModels):
        """Takes the config of a run with this loss, and the models that it hears with."""
        self._config, self._frozen = config, frozen
        self._is_of_latents = config.rq.target == "latents"
        kind = config.rq.normalization
        self._is_standardized = kind == "standardize"
        self._directions = config.rq.directions if kind == "leading" else 0
        if self._directions > self._dim:
            raise ValueError(
                f"config.rq.directions must be at most {self._dim}, the width of the target "
                f"{config.rq.target!r}, got {self._directions}"
            )

    @property
    def _dim(self) -> int:
        rq, of_latents = self._config.rq, self._frozen.sound.latent_dim
        return of_latents if self._is_of_latents else rq.mel_bands * rq.mel_frames

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what `load` gives."""
        rq, width = self._config.rq, self._dim
        size = rq.num_codebooks * rq.codebook_size
        shapes = {name: jax.ShapeDtypeStruct((width,), jnp.float32) for name in ("mean", "std")}
        return {"table": jax.ShapeDtypeStruct((width, size), jnp.float32)} | shapes

    def load(self, shardings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        """The table and the statistics, each where it belongs.

        Args:
            shardings: a tree that has all of `abstract()`, and perhaps more.
            measured: what `finish` gave when the run began, and the rms of the latents.
        """
        rq = self._config.rq
        arrays = {name: np.asarray(measured[name], np.float32) for name in ("mean", "std")}
        arrays["table"] = rq_mtp.make_table(
            self._config.seed,
            input_dim=self._dim,
            num_codebooks=rq.num_codebooks,
            codebook_size=rq.codebook_size,
            code_dim=rq.code_dim,
        )
        if not self._is_standardized:
            matrix = np.asarray(measured["matrix"], np.float32)
            arrays["table"] = whitening.into_table(matrix, arrays["std"], arrays["table"])
        if self._is_of_latents:
            # Measured as the autoencoder gives them; what is labelled has been divided by this.
            rms = np.float32(measured.get(lineage.LATENT_RMS, 1.0))
            arrays |= {name: arrays[name] / rms for name in ("mean", "std")}
        return jax.device_put(arrays, {name: shardings[name] for name in arrays})

    def sums(
        self, batch: stage.Batch, latents: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of what is quantized of a batch; add those of all on the host, in float64, for `finish`.

        Args:
            batch: as the pipeline gives it.
            latents: of it, [b, t, d], as the autoencoder gives them.
            mask: of these, [b, t].
        """
        is_standard = self._is_standardized
        measure = rq_mtp.measure_statistics if is_standard else whitening.measure
        return measure(self.values(batch, latents), mask)

    def finish(self, sums: Sequence[np.ndarray]) -> dict[str, list]:
        """What `load` reads, of added `sums`; refuses too few frames by ValueError."""
        if self._is_standardized:
            mean, std = rq_mtp.finish_statistics(sums)
            return {"mean": mean.tolist(), "std": std.tolist()}
        try:
            mean, matrix = whitening.finish(sums, directions=self._directions)
        except whitening.TooFewFramesError as error:
            raise ValueError(
                f"{error}: give config.data.train={self._config.data.train!r} more sound, raise "
                "config.rq.statistics_frames, or set config.rq.normalization='standardize'"
            ) from error
        return {"mean": mean.tolist(), "std": [1.0] * len(mean), "matrix": matrix.tolist()}

    def labels(self, frozen: Any, values: jax.Array) -> jax.Array:
        """Labels [b, t, G] int32, each of its frame alone.

        Args:
            frozen: arrays of `load`, among others.
            values: [b, t, width], what is quantized.
        """
        rq = self._config.rq
        norm = rq.layer_norm and self._is_standardized
        features = rq_mtp.standardize(values, frozen["mean"], frozen["std"], layer_norm=norm)
        return rq_mtp.codes_of(features, frozen["table"], num_codebooks=rq.num_codebooks)

    def values(self, batch: stage.Batch, latents: jax.Array) -> jax.Array:
        """What is quantized of a batch, [b, t, width].

        Args:
            batch: as the pipeline gives it.
            latents: of it, [b, t, d].
        """
        if self._is_of_latents:
            return latents
        return rq_mtp.log_mel_frames(
            self._frozen.heard(batch),  # No label is of a level that the encoder cannot know.
            sample_rate=self._frozen.sound.sample_rate,
            samples_per_latent=self._frozen.sound.samples_per_latent,
            num_mels=self._config.rq.mel_bands,
            frames_per_latent=self._config.rq.mel_frames,
        )
