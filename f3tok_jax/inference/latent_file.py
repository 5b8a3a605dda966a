# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents on disk: an .npz of the arrays and of what turns them back into the same sound file."""

import pathlib

import numpy as np

from data_pipelines.records import atomic
from data_pipelines.sound import audio_files
from f3tok_jax.inference import frames
from f3tok_jax.inference import npz

_VERSION = 3
_WITH_GAINS = 3  # the first version that has them
_FRAMES_CHECKED = 2**12  # at a time
_MAX_GAIN = 1e6  # beyond all of signal.level; what is decoded stays finite without it


def save(found: frames.Frames, path: str | pathlib.Path) -> None:
    """Writes the frames of one sound, a row for each channel; the file is whole or absent."""
    if len(set(found.num_samples)) != 1:
        raise ValueError(
            f"a file of latents holds channels of one length, got {sorted(set(found.num_samples))} "
            f"samples for {path}: save each sound by itself"
        )
    gains = np.asarray(found.gains, np.float64)
    _check_gains(gains, f" for {path}")
    with atomic.replacing(pathlib.Path(path)) as partial, open(partial, "wb") as file:
        np.savez(
            file,
            version=_VERSION,
            # One row is not copied: it may be of an hour.
            latents=found.rows[0][None] if len(found.rows) == 1 else np.stack(found.rows),
            latent_rate=float(found.latent_rate),
            sample_rate=int(found.sample_rate),
            num_samples=int(found.num_samples[0]),
            gains=gains,
            fingerprint=found.fingerprint,
            kind=found.kind,
        )


def load(path: str | pathlib.Path, *, name: str = "") -> frames.Frames:
    """Reads what `save` wrote; nothing is unpickled, and no size is believed.

    Args:
        path: of the file.
        name: of it in messages; default its path.

    Raises:
        ValueError: where the file is missing, damaged, of a newer version or something else.
    """
    name, path = name or str(path), pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{name} must be an .npz that f3tok encode wrote, got no such file")
    try:
        with npz.opened(path) as arrays:
            return _frames(arrays)
    except ValueError as error:
        raise ValueError(f"{name} must be an .npz that f3tok encode wrote, got: {error}") from error


def _frames(arrays: npz.Arrays) -> frames.Frames:
    """What is in a file, if it can be."""
    version = _value(arrays, "version", np.integer)
    if not 1 <= version <= _VERSION:
        raise ValueError(
            f"version {version}, where 1 to {_VERSION} are read: a newer f3tok reads those that it "
            "writes"
        )
    sample_rate = _value(arrays, "sample_rate", np.integer)
    latent_rate = _value(arrays, "latent_rate", np.floating)
    num_samples = _value(arrays, "num_samples", np.integer)
    fingerprint, kind = (_value(arrays, name, np.str_) for name in ("fingerprint", "kind"))
    if not audio_files.is_rate(sample_rate):
        limits = f"{audio_files.MIN_RATE} to {audio_files.MAX_RATE}"
        raise ValueError(f"sound of {sample_rate} Hz, where {limits} are read")
    if not 0 < latent_rate <= audio_files.MAX_RATE:  # not so of NaN
        raise ValueError(f"latents at {latent_rate} Hz")
    if kind not in (frames.LATENTS, frames.REPRESENTATIONS) or not fingerprint.isprintable():
        raise ValueError(f"{kind!r} of weights {fingerprint!r}")
    latents = arrays.array("latents")
    shape, most = latents.shape, audio_files.MAX_CHANNELS
    if latents.dtype != np.float32 or len(shape) != 3 or not 1 <= shape[0] <= most:
        raise ValueError(
            f"latents of {latents.dtype} {list(shape)}, which must be float32 [1 to {most} "
            "channels, frames, width]"
        )
    if not latents.size or not _are_finite(latents):
        raise ValueError(f"latents {list(shape)} of which there must be some, and all be finite")
    # The model hears whole samples of its own rate, which may be the least that there is.
    each, slack = sample_rate / latent_rate, 1 + sample_rate / audio_files.MIN_RATE
    held = shape[1] * each
    if not max(1, held - each - slack) <= num_samples <= held + slack:
        raise ValueError(
            f"{num_samples} samples, where {shape[1]} frames at {latent_rate:g} Hz hold {held:.0f}"
        )
    gains = _gains(arrays, len(latents)) if version >= _WITH_GAINS else ()
    return frames.Frames(
        rows=list(latents),
        num_samples=[num_samples] * len(latents),
        sample_rate=sample_rate,
        latent_rate=latent_rate,
        fingerprint=fingerprint,
        kind=kind,
        gains=gains,
    )


def _gains(arrays: npz.Arrays, count: int) -> list[float]:
    """Of each channel."""
    gains = arrays.array("gains")
    if gains.dtype != np.float64 or gains.shape != (count,):
        raise ValueError(
            f"gains of {gains.dtype} {list(gains.shape)}, which must be float64 [{count}], of each "
            "channel"
        )
    _check_gains(gains)
    return gains.tolist()


def _check_gains(gains: np.ndarray, of: str = "") -> None:
    if not ((gains >= 1 / _MAX_GAIN) & (gains <= _MAX_GAIN)).all():  # not so of NaN
        raise ValueError(
            f"gains {gains.tolist()}{of}, which must be {1 / _MAX_GAIN:g} to {_MAX_GAIN:g}"
        )


def _are_finite(latents: np.ndarray) -> bool:
    """Whether all of [c, t, d] are, some frames at a time."""
    starts = range(0, latents.shape[1], _FRAMES_CHECKED)
    return all(np.isfinite(latents[:, i : i + _FRAMES_CHECKED]).all() for i in starts)


def _value(arrays: npz.Arrays, name: str, kind: type):
    """One value of a NumPy kind, as Python's."""
    array = arrays.scalar(name)
    if not np.issubdtype(array.dtype, kind):
        raise ValueError(f"{name} must be {kind.__name__}, got {array.dtype}")
    return array.item()
