# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Levels of sound: how loud it is, and how much of it is clipped, off centre or lost in the mix.

What the channels and the converter did is measured on the source's samples; loudness, offset and
bandwidth on those of the record, where sums of integers are exact. All is rounded, so that the same
sound has the same figures on every machine.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import fractions
import math

import numpy as np

from data_pipelines.records import pcm16
from data_pipelines.sound import refusals

# Name -> decimals that are kept.
FIGURES = dict(peak_db=1, rms_db=1, clipped=5, dc=4, bandwidth=0, mix_loss_db=1)
LEAST_DB = -120.0  # of nothing but zeros, too; the least step of PCM16 is at -90.3 dBFS
MAX_PEAK_DB = 24.0  # above it is no loud recording: floats were not scaled to [-1, 1], or are noise

# Bandwidth as in NeMo's Speech Data Explorer (tools/speech_data_explorer, eval_bandwidth): the
# highest bin of the mean spectrum within 50 dB of the strongest, 512 points, Blackman-Harris. Here
# of some frames only, and without the offset, which would be the strongest.
_NUM_POINTS, _NUM_FRAMES, _FLOOR = 512, 16, 10.0**-5.0
_TURNS = 2.0 * np.pi * np.arange(_NUM_POINTS) / _NUM_POINTS
_WINDOW = sum(
    factor * np.cos(order * _TURNS)
    for order, factor in enumerate((0.35875, -0.48829, 0.14128, -0.01168))
)
_CHUNK = 2**16  # samples, of which the sum of PCM16 is at least -2**31, and at most below 2**31


@dataclasses.dataclass(slots=True)
class Sums:
    """What figures are made of; sums of stretches are those of the whole.

    Attributes:
        peak: largest magnitude of the source's samples, over the channels that are used.
        num_values: samples of the source over those channels.
        num_clipped: of them, at full scale or beyond.
        channel_power: mean over the channels of the sums of their squares; 0 of one channel.
        mix_power: sum of the squares of their mix; 0 of one channel.
        num_samples: of the record.
        total: sum of its PCM16 samples.
        squares: sum of their squares.
        bandwidth: Hz.
    """

    peak: float = 0.0
    num_values: int = 0
    num_clipped: int = 0
    channel_power: float = 0.0
    mix_power: float = 0.0
    num_samples: int = 0
    total: int = 0
    squares: int = 0
    bandwidth: float = 0.0

    def add(self, other: "Sums") -> None:
        """Adds a stretch."""
        self.peak = max(self.peak, other.peak)
        self.num_values += other.num_values
        self.num_clipped += other.num_clipped
        self.channel_power += other.channel_power
        self.mix_power += other.mix_power
        self.num_samples += other.num_samples
        self.total += other.total
        self.squares += other.squares
        self.bandwidth = max(self.bandwidth, other.bandwidth)

    def add_record(self, pcm: np.ndarray, sample_rate: int) -> None:
        """Adds the samples of a record, [samples] int16, at `sample_rate`, Hz."""
        for start in range(0, pcm.size, _CHUNK):
            chunk = pcm[start : start + _CHUNK].astype(np.int32)
            self.total += int(np.add.reduce(chunk, dtype=np.int32))
            chunk *= chunk
            self.squares += int(np.add.reduce(chunk, dtype=np.int64))
        self.num_samples += pcm.size
        mean = self.total / self.num_samples
        self.bandwidth = max(self.bandwidth, bandwidth(pcm, sample_rate, mean=mean))

    def figures(self) -> dict[str, float]:
        """Returns FIGURES: name -> value.

        dBFS of the peak, above 0 where the source is beyond full scale, and of the root of the mean
        square; the share of clipped samples in [0, 1]; the mean as a share of full scale; Hz; and
        dB by which the mix is below its channels. No decibel is below LEAST_DB.
        """
        num_samples = max(self.num_samples, 1)
        found = dict(
            peak_db=_decibel(self.peak**2),
            rms_db=_decibel(self.squares / num_samples / pcm16.FULL_SCALE**2),
            clipped=self.num_clipped / max(self.num_values, 1),
            dc=self.total / num_samples / pcm16.FULL_SCALE,
            bandwidth=self.bandwidth,
            mix_loss_db=_decibel(self.channel_power) - _decibel(self.mix_power),
        )
        # Not -0.0, which is written otherwise.
        return {name: round(found[name], decimals) + 0.0 for name, decimals in FIGURES.items()}


class Meter:
    """Measures a source while it is read, each record's stretch of it by itself."""

    def __init__(self, *, full_scale: float, stretch: fractions.Fraction):
        """Prepares for a sound.

        Args:
            full_scale: from where on a sample counts as clipped.
            stretch: samples of the source per record.
        """
        self._full_scale, self._stretch = full_scale, stretch
        self._position = self._boundary = 0
        self.stretches: list[Sums] = []

    def add(self, channels: np.ndarray, mono: np.ndarray) -> tuple[float, float, float]:
        """Adds a block: the channels that are used, [samples, channels], and their mix, [samples].

        Returns:
            The largest magnitude in the channels; the lowest and the highest sample of the mix, NaN
            or infinite exactly if one is.
        """
        start, found = 0, []
        while start < len(channels):
            if self._position == self._boundary:
                self.stretches.append(Sums())
                self._boundary = math.ceil(len(self.stretches) * self._stretch)
            end = min(start + self._boundary - self._position, len(channels))
            found.append(self._add_stretch(channels[start:end], mono[start:end]))
            self._position += end - start
            start = end
        peaks, lowest, highest = zip(*found)
        return max(peaks), float(np.min(lowest)), float(np.max(highest))

    def _add_stretch(self, channels: np.ndarray, mono: np.ndarray) -> tuple[float, float, float]:
        sums = self.stretches[-1]
        lowest, highest = float(mono.min()), float(mono.max())
        peak = max(highest, -lowest)
        if channels.shape[1] > 1:
            peak = max(float(channels.max()), -float(channels.min()))
            sums.channel_power += _power(channels.reshape(-1)) / channels.shape[1]
            sums.mix_power += _power(mono)
        sums.peak = max(sums.peak, peak)
        sums.num_values += channels.size
        if peak >= self._full_scale:
            sums.num_clipped += int(np.count_nonzero(np.abs(channels) >= self._full_scale))
        return peak, lowest, highest


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is refused by its figures; None is no limit.

    Attributes:
        max_clipped: share of clipped samples.
        min_rms_db: dBFS.
        max_dc: magnitude of the offset, as a share of full scale.
        min_bandwidth: Hz.
        max_mix_loss_db: dB by which the mix of the channels may be below them.
    """

    max_clipped: float | None = None
    min_rms_db: float | None = None
    max_dc: float | None = None
    min_bandwidth: float | None = None
    max_mix_loss_db: float | None = None

    def broken(self, figures: dict[str, float]) -> Iterator[tuple[str, str]]:
        """Yields (reason, detail) of each limit that a sound of these figures is beyond."""
        for reason, (name, figure, words) in REASONS.items():
            limit, value = getattr(self, name), figures[figure]
            is_beyond = (
                value < (limit or 0.0)
                if name.startswith("min")
                else abs(value) > (math.inf if limit is None else limit)
            )
            if limit is not None and is_beyond:
                yield reason, f"{words.format(value)}, the limit is --{name}={limit:g}"

    def check(self, figures: dict[str, float]) -> None:
        """Raises refusals.Refused where a sound of these figures is beyond a limit."""
        for reason, detail in self.broken(figures):
            raise refusals.Refused(reason, detail)


# Reason of a refusal -> the limit's name, the figure's, and how that is said.
REASONS = {
    "clipped": ("max_clipped", "clipped", "{:.1%} of the samples are at full scale or beyond"),
    "quiet": ("min_rms_db", "rms_db", "{:.1f} dBFS"),
    "dc_offset": ("max_dc", "dc", "an offset of {:.3f} of full scale"),
    "narrow": ("min_bandwidth", "bandwidth", "nothing above {:.0f} Hz"),
    "mix_loss": ("max_mix_loss_db", "mix_loss_db", "mixing the channels loses {:.1f} dB"),
}


def noteworthy(sample_rate: int) -> Limits:
    """The limits beyond which a sound is used and said, at the records' rate, Hz."""
    # 4.5 kHz is above what telephones let through and below what any other microphone hears.
    return Limits(
        max_clipped=0.01,
        min_rms_db=-60.0,
        max_dc=0.02,
        min_bandwidth=min(4500.0, 0.4 * sample_rate),
        max_mix_loss_db=10.0,
    )


def whole(stretches: Iterable[Sums]) -> Sums:
    """The sums of a sound."""
    sums = Sums()
    for stretch in stretches:
        sums.add(stretch)
    return sums


def bandwidth(pcm: np.ndarray, sample_rate: int, *, mean: float = 0.0) -> float:
    """Returns the frequency, Hz, above which nothing is within 50 dB of the strongest.

    Args:
        pcm: [samples], int16.
        sample_rate: Hz.
        mean: of the samples, which is taken away: an offset would be the strongest.
    """
    if pcm.size < _NUM_POINTS:
        pcm = np.pad(pcm, (0, _NUM_POINTS - pcm.size))
    rows = pcm[: pcm.size // _NUM_POINTS * _NUM_POINTS].reshape(-1, _NUM_POINTS)
    count = min(_NUM_FRAMES, len(rows))
    frames = rows[np.arange(count) * len(rows) // count] - mean
    frames *= _WINDOW
    spectrum = np.fft.rfft(frames).view(np.float64)
    spectrum *= spectrum
    power = np.add.reduce(spectrum)
    power = power[::2] + power[1::2]
    above = (power > power.max() * _FLOOR).nonzero()[0]
    return float(above[-1] * sample_rate / _NUM_POINTS) if above.size else 0.0


def _power(samples: np.ndarray) -> float:
    return float(np.einsum("i,i->", samples, samples, dtype=np.float64))


def _decibel(power: float) -> float:
    return max(10.0 * math.log10(power), LEAST_DB) if power > 0.0 else LEAST_DB
