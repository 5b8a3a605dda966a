# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Published measures of a sound beside its original, by the packages that compute them.

Two packages must be compiled where they are installed, so they are extras: pesq (`eval`), and
visqol-python (`visqol`), which needs libsvm-official.
"""

import functools
import warnings

import numpy as np
import soxr


class Undefined(Exception):
    """A metric has no value for an example; the message says why."""


def stoi(
    reference: np.ndarray, estimate: np.ndarray, sample_rate: int, *, extended: bool = False
) -> float:
    """Short-time objective intelligibility, about [0, 1], by the package pystoi.

    Source: Taal et al., 2011; `extended`: Jensen and Taal, 2016.
    """
    import pystoi  # pylint: disable=g-import-not-at-top: an extra

    if not np.any(reference):
        raise Undefined("the reference is silent")
    reference, estimate = (sound.astype(np.float64) for sound in (reference, estimate))
    with warnings.catch_warnings():
        # pystoi warns and returns 1e-5, which would pass for a value, where it has too few frames.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            value = float(pystoi.stoi(reference, estimate, sample_rate, extended=extended))
        except (RuntimeWarning, ValueError, IndexError) as error:
            raise Undefined("fewer than 30 frames (0.4 s) that are not silent") from error
    if not np.isfinite(value):
        raise Undefined("no finite value, as of an estimate that is silent")
    return value


def estoi(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """`stoi`, extended."""
    return stoi(reference, estimate, sample_rate, extended=True)


def pesq(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Wideband PESQ (ITU-T P.862.2), 1.04 to 4.64, by the package pesq, at 16 kHz."""
    import pesq as package  # pylint: disable=g-import-not-at-top: an extra

    if not np.any(estimate):
        raise Undefined("the estimate is silent")
    reference, estimate = (resampled(sound, sample_rate, 16_000) for sound in (reference, estimate))
    try:
        return float(package.pesq(16_000, reference, estimate, "wb"))
    except package.PesqError as error:
        raise Undefined(f"PESQ: {_one_line(error)}") from error


def visqol(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """ViSQOL in audio mode (48 kHz), 1 to about 4.75, by the package visqol-python."""
    reference, estimate = (resampled(sound, sample_rate, 48_000) for sound in (reference, estimate))
    if not np.any(reference) or not np.any(estimate):
        raise Undefined("the reference or the estimate is silent")
    try:
        result = _visqol_model().measure_from_arrays(
            reference.astype(np.float64), estimate.astype(np.float64), sample_rate=48_000
        )
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise Undefined(f"ViSQOL: {_one_line(error)}") from error
    if not np.isfinite(result.moslqo):
        raise Undefined("ViSQOL: not a finite score")
    return float(result.moslqo)


def resampled(waveform: np.ndarray, sample_rate: int, to: int) -> np.ndarray:
    """A waveform [n] at another rate, Hz: float32."""
    waveform = waveform.astype(np.float32)
    return waveform if sample_rate == to else soxr.resample(waveform, sample_rate, to)


@functools.lru_cache(maxsize=1)
def _visqol_model():
    from visqol import VisqolApi  # pylint: disable=g-import-not-at-top,g-importing-member: an extra

    model = VisqolApi()
    model.create(mode="audio")
    return model


def _one_line(error: Exception) -> str:
    text = error.args[0] if error.args else type(error).__name__
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return " ".join(text.split()) or type(error).__name__
