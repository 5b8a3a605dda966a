# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents on disk: an .npz with the arrays and what it takes to turn them back into the same
file."""

import dataclasses
import pathlib
import zipfile

import numpy as np

from data_pipelines.records import atomic

LATENTS, REPRESENTATIONS = "latents", "representations"

_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentFile:
    """Latents of one sound, and the contract of its rates and lengths.

    Attributes:
        latents: [channels, t, latent_dim] float32, clean.
        latent_rate: Hz.
        sample_rate: Hz, of the sound that was encoded.
        num_samples: per channel, at `sample_rate`; decoding gives back exactly as many.
        fingerprint: of the autoencoder's weights; others decode to noise.
        kind: LATENTS, or REPRESENTATIONS, which no decoder understands.
    """

    latents: np.ndarray
    latent_rate: float
    sample_rate: int
    num_samples: int
    fingerprint: str
    kind: str = LATENTS

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the file, whole or not at all."""
        with atomic.replacing(pathlib.Path(path)) as partial, open(partial, "wb") as file:
            np.savez(file, version=_VERSION, **dataclasses.asdict(self))


def load(path: str | pathlib.Path) -> LatentFile:
    """Reads what `LatentFile.save` wrote; nothing is unpickled.

    Raises:
        ValueError: where the file is missing, damaged or something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} must be an .npz that f3tok encode wrote, got no such file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {field.name: arrays[field.name] for field in dataclasses.fields(LatentFile)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be an .npz that f3tok encode wrote, got: {error}") from error
    latents = values["latents"]
    if latents.ndim != 3 or latents.dtype != np.float32 or not np.isfinite(latents).all():
        raise ValueError(
            f"{path} must hold finite float32 latents [channels, frames, width], "
            f"got {latents.dtype} of shape {latents.shape}"
        )
    return LatentFile(
        latents=latents,
        latent_rate=float(values["latent_rate"]),
        sample_rate=int(values["sample_rate"]),
        num_samples=int(values["num_samples"]),
        fingerprint=str(values["fingerprint"]),
        kind=str(values["kind"]),
    )
