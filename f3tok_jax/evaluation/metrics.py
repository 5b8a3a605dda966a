# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How near a decoded sound is to its original, one example at a time, in NumPy on the host."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import importlib.util
import threading

import numpy as np

from data_pipelines.sound import levels
from f3tok_jax.evaluation import published
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of a table.

    Attributes:
        function: (reference [n], estimate [n], sample_rate) -> value; raises
            published.Undefined.
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


def mel_distance(
    reference: np.ndarray, estimate: np.ndarray, sample_rate: int, *, up_to: float = np.inf
) -> float:
    """Mean absolute log10-mel difference, summed over `MEL_WINDOWS` with `MEL_BANDS`.

    Magnitude spectra, mel filters of peak 1, floor 1e-5: `losses.multi_scale_mel` without unit
    area. Of `up_to` Hz the bands whose peak lies there, at least the first of each window.
    """

    def log_mel(waveform: np.ndarray, window: int, bands: int) -> np.ndarray:
        filters = spectra.mel_filterbank(sample_rate, window, bands, unit_area=False)
        if np.isfinite(up_to):
            heard = spectra.hz_to_mel(up_to) / spectra.hz_to_mel(sample_rate / 2) * (bands + 1)
            filters = filters[:, : max(1, int(heard))]
        return np.log10(np.maximum(np.abs(_stft(waveform, window)) @ filters, _FLOOR))

    return sum(
        _frame_mean(
            np.abs(log_mel(reference, window, bands) - log_mel(estimate, window, bands)),
            len(reference),
            window // 4,
        )
        for window, bands in zip(MEL_WINDOWS, MEL_BANDS)
    )


def mel_distance_in_band(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """`mel_distance` up to where the reference ends, see `levels.bandwidth`.

    Of material of 8 kHz in files of 24 kHz two thirds of the bands hold nothing, and what a codec
    leaves there, far below what is heard, is most of the distance over the full band.
    """
    if not np.any(reference):
        raise published.Undefined("the reference is silent")
    # Where a spectrum is told by the strongest of its lines an offset would be that.
    waveform = reference.astype(np.float64)
    up_to = levels.bandwidth(waveform, sample_rate, mean=float(np.mean(waveform)))
    return mel_distance(reference, estimate, sample_rate, up_to=up_to)


def mel_distance_at_one_level(
    reference: np.ndarray, estimate: np.ndarray, sample_rate: int
) -> float:
    """`mel_distance` after the estimate was given the root mean square of the reference."""
    gain = _rms(reference) / _rms(estimate)
    return mel_distance(reference, (gain * estimate).astype(np.float32), sample_rate)


def level_difference(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """How much louder or softer the estimate is, dB of the root mean square, without a sign."""
    del sample_rate
    return float(abs(20.0 * np.log10(_rms(estimate) / _rms(reference))))


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
        raise published.Undefined("the reference is silent")
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
    distance = cepstral_distances(*(mel_cepstra(one, sample_rate) for one in (reference, estimate)))
    return _frame_mean(distance[:, None], len(reference), _cepstral_window(sample_rate) // 4)


def mel_cepstra(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """[frames, 13] of a sound [n], without the level; a frame every 8 ms."""
    window = _cepstral_window(sample_rate)
    filters = spectra.mel_filterbank(sample_rate, window, _CEPSTRAL_BANDS)
    transform = _cosine_transform(_CEPSTRAL_BANDS, _CEPSTRAL_COEFFICIENTS)
    return np.log(np.maximum(np.abs(_stft(waveform, window)) @ filters, _FLOOR)) @ transform


def cepstral_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of cepstra [..., 13], in dB."""
    return (10.0 / np.log(10.0)) * np.sqrt(2.0 * np.sum((one - other) ** 2, axis=-1))


def _cepstral_window(sample_rate: int) -> int:
    return 4 * round(sample_rate * 0.008)


def phase_coherence(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Cosine of the phase difference, weighted by both magnitudes, over all bins: in [-1, 1].

    1 for equal phases whatever the magnitudes, about 0 for unrelated phases.
    """
    del sample_rate
    a, b = _stft(reference, PHASE_WINDOW), _stft(estimate, PHASE_WINDOW)
    weight = np.sum(np.abs(a) * np.abs(b))
    if weight == 0.0:
        raise published.Undefined("the reference or the estimate is silent")
    return float(np.sum((a * np.conj(b)).real) / weight)


METRICS: Mapping[str, Metric] = {
    "mel_distance": Metric(
        function=mel_distance,
        title="mel distance",
        higher_is_better=False,
        explanation="Mean absolute difference of log10 mel spectra, summed over five windows of "
        "64 to "
        "1024 samples: how far the sound is from the original as heard, at all scales.",
    ),
    "mel_distance_in_band": Metric(
        function=mel_distance_in_band,
        title="mel distance in band",
        higher_is_better=False,
        explanation="The mel distance up to where the original ends: of a recording of a telephone, "
        "below 4 kHz, whatever the rate of its file.",
    ),
    "mel_distance_at_one_level": Metric(
        function=mel_distance_at_one_level,
        title="mel distance at one level",
        higher_is_better=False,
        explanation="The mel distance after the sound was made as loud as the original: what is left "
        "if somebody turns a knob.",
    ),
    "level_difference": Metric(
        function=level_difference,
        title="level difference",
        unit="dB",
        higher_is_better=False,
        explanation="How much louder or softer than the original, by the root mean square.",
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
        function=published.stoi,
        title="STOI",
        higher_is_better=True,
        package="pystoi",
        extra="eval",
        explanation="Short-time objective intelligibility of speech, 0 to 1.",
    ),
    "estoi": Metric(
        function=published.estoi,
        title="ESTOI",
        higher_is_better=True,
        package="pystoi",
        extra="eval",
        explanation="Extended STOI, 0 to 1: as STOI, where noise comes and goes, and stricter.",
    ),
    "pesq": Metric(
        function=published.pesq,
        title="PESQ",
        higher_is_better=True,
        package="pesq",
        extra="eval",
        explanation="Wideband PESQ at 16 kHz, predicted opinion of speech quality, 1.0 to 4.6.",
    ),
    "visqol": Metric(
        function=published.visqol,
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
        except published.Undefined as reason:
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


def _rms(waveform: np.ndarray) -> float:
    """Root mean square; raises published.Undefined for silence, which has no level."""
    if not np.any(waveform):
        raise published.Undefined("the reference or the estimate is silent")
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


@functools.lru_cache(maxsize=4)
def _cosine_transform(num_bands: int, num_coefficients: int) -> np.ndarray:
    k = np.arange(1, num_coefficients + 1)
    position = (np.arange(num_bands)[:, None] + 0.5) / num_bands
    return (2.0 / num_bands) * np.cos(np.pi * k * position)
