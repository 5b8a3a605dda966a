# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents on disk: an .npz with the arrays and what it takes to turn them back into the same
file."""

import pathlib
import zipfile

import numpy as np

from data_pipelines.records import atomic
from f3tok_jax.inference import frames

_VERSION = 2


def save(found: frames.Frames, path: str | pathlib.Path) -> None:
    """Writes the frames of one sound, a row for each channel; the file is whole or absent."""
    if len(set(found.num_samples)) != 1:
        raise ValueError(
            f"a file of latents holds channels of one length, got {sorted(set(found.num_samples))} "
            f"samples for {path}: save each sound by itself"
        )
    with atomic.replacing(pathlib.Path(path)) as partial, open(partial, "wb") as file:
        np.savez(
            file,
            version=_VERSION,
            latents=np.stack(found.rows),
            latent_rate=found.latent_rate,
            sample_rate=found.sample_rate,
            num_samples=found.num_samples[0],
            fingerprint=found.fingerprint,
            kind=found.kind,
        )


def load(path: str | pathlib.Path) -> frames.Frames:
    """Reads what `save` wrote; nothing is unpickled.

    Raises:
        ValueError: where the file is missing, damaged or something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} must be an .npz that f3tok encode wrote, got no such file")
    names = ("latents", "latent_rate", "sample_rate", "num_samples", "fingerprint", "kind")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, *others = (arrays[name] for name in names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be an .npz that f3tok encode wrote, got: {error}") from error
    if latents.ndim != 3 or latents.dtype != np.float32 or not np.isfinite(latents).all():
        raise ValueError(
            f"{path} must hold finite float32 latents [channels, frames, width], "
            f"got {latents.dtype} of shape {latents.shape}"
        )
    latent_rate, sample_rate, num_samples, fingerprint, kind = others
    return frames.Frames(
        rows=list(latents),
        num_samples=[int(num_samples)] * len(latents),
        sample_rate=int(sample_rate),
        latent_rate=float(latent_rate),
        fingerprint=str(fingerprint),
        kind=str(kind),
    )
