# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The parts that the embedded sounds are made of: decaying modes, wavetables, shaped noise, rooms.

Everything is a vectorised expression over whole clips, because the corpora are made while somebody
waits: no loop over samples. Times are seconds and frequencies Hz, unless a name says samples.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib

import numpy as np

_BLOCK = 256  # samples; any value near the square root of a clip's length is fast
_TABLE = 4096  # points of a wavetable: linear interpolation stays 80 dB below the fundamental


def generator(*names: str | int) -> np.random.Generator:
    """Returns a random generator that depends on `names` alone, whatever the process."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def balanced_choice(names: Sequence[str], *, stream: str, seed: int, index: int) -> str:
    """Returns the name of clip `index`: every block of len(names) clips has each name once."""
    block, position = divmod(index, len(names))
    return names[generator(stream, seed, "block", block).permutation(len(names))[position]]


def wavetable(harmonics: np.ndarray) -> np.ndarray:
    """Returns one period, [_TABLE], of sum_h harmonics[h - 1] sin(h x)."""
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[1 : len(harmonics) + 1] = -0.5j * _TABLE * harmonics
    return np.fft.irfft(spectrum)


def band(low: float, high: float, *, slope: float = 4.0) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a band-pass response for `noise`: 1 between the edges, f**-slope far outside."""

    def response(frequencies: np.ndarray) -> np.ndarray:
        below = 1.0 + (low / frequencies) ** (2.0 * slope)
        return 1.0 / np.sqrt(below * (1.0 + (frequencies / high) ** (2.0 * slope)))

    return response


def tilt(exponent: float, *, low: float = 30.0) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a response f**exponent above `low` Hz: 0 white, -0.5 pink, -1 brown."""
    return lambda frequencies: np.maximum(frequencies, low) ** exponent * (frequencies > 0.5 * low)


def convolve(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the first len(left) samples of the convolution of two signals."""
    size = _quick_size(len(left) + len(right) - 1)
    return np.fft.irfft(np.fft.rfft(left, size) * np.fft.rfft(right, size), size)[: len(left)]


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of `num_samples` at `sample_rate`, Hz, and the signals that fill it."""

    num_samples: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def times(self) -> np.ndarray:
        """The time of each sample, s."""
        return np.arange(self.num_samples) / self.sample_rate

    def part(self, seconds: float) -> "Span":
        """Another stretch at the same rate."""
        return Span(int(seconds * self.sample_rate), self.sample_rate)

    def modes(
        self,
        frequencies: np.ndarray,
        *,
        amplitudes: np.ndarray,
        decay_times: np.ndarray,
        phases: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """Returns a sum of decaying sinusoids: the free vibration of a string, bar, bell or drop.

        sum_m amplitudes[m] exp(-t / decay_times[m]) sin(2 pi frequencies[m] t + phases[m]); with
        t = block start + offset each term is a product, so the sum is one matrix product.

        Args:
            frequencies: [modes], Hz; modes at or above 0.47 of the sample rate are left out.
            amplitudes: [modes].
            decay_times: [modes], seconds to fall by a factor of e.
            phases: [modes] or one value, radians.

        Returns:
            [num_samples] float64.
        """
        keep = frequencies < 0.47 * self.sample_rate
        rates = 2j * np.pi * frequencies[keep] - 1.0 / decay_times[keep]
        starts = np.exp(1j * np.broadcast_to(phases, frequencies.shape)[keep]) * amplitudes[keep]
        num_blocks = -(-self.num_samples // _BLOCK)
        block_times = np.arange(num_blocks) * (_BLOCK / self.sample_rate)
        offsets = np.arange(_BLOCK) / self.sample_rate
        left = np.exp(block_times[:, None] * rates) * starts
        right = np.exp(rates[:, None] * offsets)
        return (left @ right).imag.reshape(-1)[: self.num_samples]

    def oscillator(
        self, frequency: np.ndarray | float, *, harmonics: np.ndarray, phase: float = 0.0
    ) -> np.ndarray:
        """Returns a periodic tone of moving pitch.

        Args:
            frequency: [num_samples], Hz at each sample, or one value.
            harmonics: [count], amplitudes of the harmonics; those that would alias at the highest
                frequency are left out.
            phase: start, in periods.

        Returns:
            [num_samples] float64.
        """
        frequency = np.broadcast_to(frequency, self.num_samples)
        audible = min(int(0.47 * self.sample_rate / np.max(frequency)), _TABLE // 8, len(harmonics))
        table = wavetable(harmonics[:audible])
        position = (phase + np.cumsum(frequency) / self.sample_rate) % 1.0 * _TABLE
        whole = position.astype(np.int64)
        fraction = position - whole
        whole %= _TABLE
        return table[whole] * (1.0 - fraction) + table[(whole + 1) % _TABLE] * fraction

    def noise(
        self, rng: np.random.Generator, response: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Returns Gaussian noise of rms 1 whose spectrum's magnitude is `response(frequencies, Hz)`."""
        size = _quick_size(self.num_samples)
        gains = response(np.maximum(np.fft.rfftfreq(size, 1.0 / self.sample_rate), 1.0))
        shaped = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * gains, size)
        shaped = shaped[: self.num_samples]
        return shaped / max(float(np.sqrt(np.mean(shaped**2))), 1e-12)

    def band_noise(
        self, rng: np.random.Generator, low: float, high: float, slope: float = 4.0
    ) -> np.ndarray:
        """Returns noise of rms 1 between two edges, Hz; see `band`."""
        return self.noise(rng, band(low, high, slope=slope))

    def slow_random(self, rng: np.random.Generator, rate: float) -> np.ndarray:
        """Returns a smooth random curve, mean 0 and about -2 to 2, that moves `rate` times a second."""
        num_points = max(int(np.ceil(self.num_samples / self.sample_rate * rate)) + 3, 4)
        points = rng.standard_normal(num_points)
        position = np.arange(self.num_samples) * (rate / self.sample_rate)
        whole = position.astype(np.int64)
        fraction = 0.5 - 0.5 * np.cos(np.pi * (position - whole))
        return points[whole] * (1.0 - fraction) + points[whole + 1] * fraction

    def envelope(self, times: Sequence[float], levels: Sequence[float]) -> np.ndarray:
        """Returns the broken line through (times in seconds, levels), [num_samples]."""
        return np.interp(self.times, times, levels)

    def place(self, parts: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
        """Returns the sum of `parts`, each (start in seconds, signal), cut at num_samples."""
        mixed = np.zeros(self.num_samples)
        for start, signal in parts:
            begin = max(int(start * self.sample_rate), 0)
            end = min(begin + len(signal), self.num_samples)
            if end > begin:
                mixed[begin:end] += signal[: end - begin]
        return mixed


def room(waveform: np.ndarray, rng: np.random.Generator, *, sample_rate: int) -> np.ndarray:
    """Returns `waveform` as heard in a random small room: early echoes and a decaying tail."""
    decay_time = rng.uniform(0.05, 0.35)
    span = Span(int(4.0 * decay_time * sample_rate), sample_rate)
    tail = span.band_noise(rng, 150.0, 4000.0, 1.0)
    tail *= np.exp(-span.times / decay_time) * (span.times > 0.004)
    echoes = (rng.uniform(0.004, 0.04, 5) * sample_rate).astype(int)
    tail[echoes[echoes < span.num_samples]] += rng.uniform(2.0, 6.0, 5)[echoes < span.num_samples]
    energy = np.sqrt(np.sum(tail**2))
    return waveform + rng.uniform(0.05, 0.35) * convolve(waveform, tail / max(energy, 1e-9))


def finish(waveform: np.ndarray, rng: np.random.Generator, *, sample_rate: int) -> np.ndarray:
    """Returns `waveform` as a float32 recording: peak -20 to -1 dBFS over a faint noise floor."""
    floor = Span(len(waveform), sample_rate).noise(rng, tilt(-0.4))
    floor *= 10.0 ** (rng.uniform(-78.0, -58.0) / 20.0)
    signal = waveform - np.mean(waveform)
    signal /= max(float(np.max(np.abs(signal))), 1e-9)
    # Clicks and drops are recorded closer than their peak alone would ask, or nothing but the peak
    # would be above the floor.
    crest = -10.0 * np.log10(max(float(np.mean(signal**2)), 1e-9))
    peak = min(rng.uniform(-20.0, -1.0) + 0.7 * max(crest - 18.0, 0.0), -1.0)
    signal = signal * 10.0 ** (peak / 20.0) + floor
    # The floor may lift the peak by a thousandth: scale instead of clipping.
    return (signal * min(1.0, 0.98 / float(np.max(np.abs(signal))))).astype(np.float32)


def _quick_size(count: int) -> int:
    """Returns the next size, at most an eighth above, whose transform has no large prime factor."""
    step = 1 << max(count.bit_length() - 4, 0)
    return -(-count // step) * step
