# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How near a decoded sound is to its original, one example at a time, in NumPy on the host.

Two packages must be compiled where they are installed, so they are extras: pesq (`eval`), and
visqol-python (`visqol`), which needs libsvm-official.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import importlib.util
import threading
import warnings

import numpy as np
import soxr

from f3tok_jax.signal import spectra

# The mel distance of every table is quoted at these windows and bands.
MEL_WINDOWS = (64, 128, 256, 512, 1024)  # samples; the hop is a quarter
MEL_BANDS = (10, 20, 40, 80, 80)
STFT_WINDOWS = (2048, 512)  # samples (DAC); the hop is a quarter
PHASE_WINDOW = 1024  # samples; the hop is a quarter
_FLOOR = 1e-5  # of magnitudes, before a logarithm (DAC)
_CEPSTRAL_BANDS = 40
_CEPSTRAL_COEFFICIENTS = 13
_PACKAGE_LOCK = threading.Lock()


class Undefined(Exception):
    """A metric has no value for an example; the message says why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of a table.

    Attributes:
        function: (reference [n], estimate [n], sample_rate) -> value; raises Undefined.
        title: for a table's head.
        unit: "" for a pure number.
        higher_is_better: which way is good.
        package: module that must be there, "" for none.
        extra: of f3tok_jax that brings it.
        explanation: one sentence for somebody who was not there.
    """

    function: Callable[[np.ndarray, np.ndarray, int], float]
    title: str
    unit: str = ""
    higher_is_better: bool
    package: str = ""
    extra: str = ""
    explanation: str


def mel_distance(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Mean absolute log10-mel difference, summed over `MEL_WINDOWS` with `MEL_BANDS`.

    Magnitude spectra, mel filters of peak 1, floor 1e-5: `losses.multi_scale_mel` without unit
    area.
    """

    def log_mel(waveform: np.ndarray, window: int, bands: int) -> np.ndarray:
        filters = spectra.mel_filterbank(sample_rate, window, bands, unit_area=False)
        return np.log10(np.maximum(np.abs(_stft(waveform, window)) @ filters, _FLOOR))

    return sum(
        _frame_mean(
            np.abs(log_mel(reference, window, bands) - log_mel(estimate, window, bands)),
            len(reference),
            window // 4,
        )
        for window, bands in zip(MEL_WINDOWS, MEL_BANDS)
    )


def stft_distance(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """`losses.multi_resolution_stft` at `STFT_WINDOWS`: magnitudes and log10 squared magnitudes."""
    del sample_rate
    total = 0.0
    for window in STFT_WINDOWS:
        a, b = np.abs(_stft(reference, window)), np.abs(_stft(estimate, window))
        log_difference = np.log10(np.maximum(a, _FLOOR)) - np.log10(np.maximum(b, _FLOOR))
        difference = np.abs(a - b) + 2.0 * np.abs(log_difference)
        total += _frame_mean(difference, len(reference), window // 4)
    return total


def si_sdr(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio, dB, of signals without their means.

    Limited to [-100, 100] dB, so that an exact or an absent reconstruction still averages.

    Source: Le Roux et al., "SDR - half-baked or well done?", 2019.
    """
    del sample_rate
    reference, estimate = reference.astype(np.float64), estimate.astype(np.float64)
    reference, estimate = reference - np.mean(reference), estimate - np.mean(estimate)
    energy = np.sum(reference**2, dtype=np.float64)
    if energy == 0.0:
        raise Undefined("the reference is silent")
    target = (np.sum(reference * estimate, dtype=np.float64) / energy) * reference
    signal = np.sum(target**2, dtype=np.float64)
    distortion = np.sum((estimate - target) ** 2, dtype=np.float64)
    if signal == 0.0:
        return -100.0
    return float(np.clip(10.0 * np.log10(signal / max(distortion, 1e-300)), -100.0, 100.0))


def mel_cepstral_distortion(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Root mean square difference, dB, of smoothed log mel envelopes without level.

    Cepstra are c_k = (2 / M) sum_m ln(mel_m) cos(pi k (m + 1/2) / M) of M = 40 magnitude mel bands
    (frames of 32 ms every 8 ms), k = 1 to 13, and the distance is (10 / ln 10) sqrt(2 sum_k
    dc_k^2). The frames are compared one to one: a codec does not warp time. All frames count,
    pauses too.

    Source: Kubichek, 1993; our own cepstra, so values compare within this project only.
    """
    window = 4 * round(sample_rate * 0.008)
    filters = spectra.mel_filterbank(sample_rate, window, _CEPSTRAL_BANDS)
    transform = _cosine_transform(_CEPSTRAL_BANDS, _CEPSTRAL_COEFFICIENTS)

    def cepstra(waveform: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(np.abs(_stft(waveform, window)) @ filters, _FLOOR)) @ transform

    squared = np.sum((cepstra(reference) - cepstra(estimate)) ** 2, axis=-1, keepdims=True)
    distance = (10.0 / np.log(10.0)) * np.sqrt(2.0 * squared)
    return _frame_mean(distance, len(reference), window // 4)


def phase_coherence(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Cosine of the phase difference, weighted by both magnitudes, over all bins: in [-1, 1].

    1 for equal phases whatever the magnitudes, about 0 for unrelated phases.
    """
    del sample_rate
    a, b = _stft(reference, PHASE_WINDOW), _stft(estimate, PHASE_WINDOW)
    weight = np.sum(np.abs(a) * np.abs(b))
    if weight == 0.0:
        raise Undefined("the reference or the estimate is silent")
    return float(np.sum((a * np.conj(b)).real) / weight)


def stoi(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility, about [0, 1], by the package pystoi (not extended)."""
    import pystoi  # pylint: disable=g-import-not-at-top: an extra

    if not np.any(reference):
        raise Undefined("the reference is silent")
    with warnings.catch_warnings():
        # pystoi warns and returns 1e-5, which would pass for a value, where it has too few frames.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(
                pystoi.stoi(reference.astype(np.float64), estimate.astype(np.float64), sample_rate)
            )
        except (RuntimeWarning, ValueError, IndexError) as error:
            raise Undefined("fewer than 30 frames (0.4 s) that are not silent") from error


def pesq(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Wideband PESQ (ITU-T P.862.2), 1.04 to 4.64, by the package pesq, at 16 kHz."""
    import pesq as package  # pylint: disable=g-import-not-at-top: an extra

    if not np.any(estimate):
        raise Undefined("the estimate is silent")
    reference, estimate = _resample(reference, estimate, sample_rate, 16_000)
    try:
        return float(package.pesq(16_000, reference, estimate, "wb"))
    except package.PesqError as error:
        raise Undefined(f"PESQ: {_one_line(error)}") from error


def visqol(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """ViSQOL in audio mode (48 kHz), 1 to about 4.75, by the package visqol-python."""
    reference, estimate = _resample(reference, estimate, sample_rate, 48_000)
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


METRICS: Mapping[str, Metric] = {
    "mel_distance": Metric(
        function=mel_distance,
        title="mel distance",
        higher_is_better=False,
        explanation="Mean absolute difference of log10 mel spectra, summed over five windows of "
        "64 to "
        "1024 samples: how far the sound is from the original as heard, at all scales.",
    ),
    "stft_distance": Metric(
        function=stft_distance,
        title="STFT distance",
        higher_is_better=False,
        explanation="Difference of magnitude and log magnitude spectra, windows of 2048 and 512 "
        "samples: like the mel distance, but every frequency counts alike.",
    ),
    "si_sdr": Metric(
        function=si_sdr,
        title="SI-SDR",
        unit="dB",
        higher_is_better=True,
        explanation="Energy of the original over the energy of the error, sample by sample. Codecs "
        "that invent the phase score low here even where they sound right.",
    ),
    "mel_cepstral_distortion": Metric(
        function=mel_cepstral_distortion,
        title="MCD",
        unit="dB",
        higher_is_better=False,
        explanation="Mel-cepstral distortion: difference of the smoothed spectral envelopes.",
    ),
    "phase_coherence": Metric(
        function=phase_coherence,
        title="phase coherence",
        higher_is_better=True,
        explanation="Cosine of the phase difference weighted by magnitude: 1 is the same phase, 0 "
        "is "
        "unrelated phase.",
    ),
    "stoi": Metric(
        function=stoi,
        title="STOI",
        higher_is_better=True,
        package="pystoi",
        extra="eval",
        explanation="Short-time objective intelligibility of speech, 0 to 1.",
    ),
    "pesq": Metric(
        function=pesq,
        title="PESQ",
        higher_is_better=True,
        package="pesq",
        extra="eval",
        explanation="Wideband PESQ at 16 kHz, predicted opinion of speech quality, 1.0 to 4.6.",
    ),
    "visqol": Metric(
        function=visqol,
        title="ViSQOL",
        higher_is_better=True,
        package="visqol",
        extra="visqol",
        explanation="ViSQOL in audio mode, predicted opinion of quality, 1 to 4.7.",
    ),
}


def missing() -> dict[str, str]:
    """Returns the metrics that cannot be computed here, each with what to install."""
    return {
        name: f"not installed: pip install -e '.[{metric.extra}]' in the checkout"
        for name, metric in METRICS.items()
        if metric.package and importlib.util.find_spec(metric.package) is None
    }


def compare(
    reference: np.ndarray,
    estimate: np.ndarray,
    *,
    sample_rate: int,
    names: tuple[str, ...] = tuple(METRICS),
) -> tuple[dict[str, float], dict[str, str]]:
    """Computes metrics of one example.

    Args:
        reference: [n], float in [-1, 1], n at least 1; no padding.
        estimate: [n], the same.
        sample_rate: Hz.
        names: keys of `METRICS`, all of them installed.

    Returns:
        name -> value, and name -> why there is none.

    Raises:
        ValueError: if the shapes differ or the estimate is not finite.
    """
    if reference.ndim != 1 or reference.shape != estimate.shape or not reference.size:
        raise ValueError(
            f"reference and estimate must be [n] of one length, got {reference.shape} and "
            f"{estimate.shape}; trim both to the valid samples"
        )
    if not np.all(np.isfinite(estimate)):
        raise ValueError("the estimate has NaN or infinite samples; the model's weights are broken")
    reference, estimate = reference.astype(np.float32), estimate.astype(np.float32)
    values, undefined = {}, {}
    for name in names:
        try:
            # Other people's packages need not be safe to call from several threads at once.
            with _PACKAGE_LOCK if METRICS[name].package else contextlib.nullcontext():
                values[name] = METRICS[name].function(reference, estimate, sample_rate)
        except Undefined as reason:
            undefined[name] = str(reason)
    return values, undefined


def effective_rank(covariance: np.ndarray) -> float:
    """Returns exp(entropy) of the normalised singular values of the centred data.

    Args:
        covariance: [d, d], of d channels; its eigenvalues are squared singular values.

    Returns:
        Between 1 (one direction carries everything) and d (all alike); 0 if nothing varies.

    Source: Roy and Vetterli, "The effective rank", 2007.
    """
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0))
    total = np.sum(singular)
    if total == 0.0:
        return 0.0
    share = singular[singular > 0.0] / total
    return float(np.exp(-np.sum(share * np.log(share))))


def _stft(waveform: np.ndarray, window: int) -> np.ndarray:
    return spectra.centered_stft_on_host(waveform, frame_length=window, hop_length=window // 4)


def _frame_mean(values: np.ndarray, num_samples: int, hop: int) -> float:
    """Mean over bins and frames; the last frame counts as much as its hop has samples."""
    weight = np.full(len(values), hop, np.float64)
    weight[-1] = num_samples - (len(values) - 1) * hop
    return float(np.mean(values, axis=-1) @ weight / num_samples)


@functools.lru_cache(maxsize=4)
def _cosine_transform(num_bands: int, num_coefficients: int) -> np.ndarray:
    k = np.arange(1, num_coefficients + 1)
    position = (np.arange(num_bands)[:, None] + 0.5) / num_bands
    return (2.0 / num_bands) * np.cos(np.pi * k * position)


@functools.lru_cache(maxsize=1)
def _visqol_model():
    from visqol import VisqolApi  # pylint: disable=g-import-not-at-top,g-importing-member: an extra

    model = VisqolApi()
    model.create(mode="audio")
    return model


def _resample(
    reference: np.ndarray, estimate: np.ndarray, sample_rate: int, to: int
) -> tuple[np.ndarray, np.ndarray]:
    if sample_rate == to:
        return reference.astype(np.float32), estimate.astype(np.float32)
    both = np.stack([reference, estimate], axis=1).astype(np.float32)
    both = soxr.resample(both, sample_rate, to)
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def _one_line(error: Exception) -> str:
    text = error.args[0] if error.args else type(error).__name__
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return " ".join(text.split()) or type(error).__name__
