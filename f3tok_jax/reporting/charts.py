# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, spectrograms as PNG and sounds as WAV, as text for the inside of an HTML page."""

import base64
from collections.abc import Sequence
import dataclasses
import html
import io
import math
import struct
import zlib

import numpy as np
import soundfile

from f3tok_jax.signal import spectra

# Okabe and Ito's palette without its yellow: told apart by all kinds of colour vision, on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555")

_WIDTH, _HEIGHT = 420, 250  # units of the drawing, about pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_MAX_POINTS = 300  # per curve; more cannot be seen
_SPECTROGRAM_BANDS = 96
_SPECTROGRAM_COLUMNS = 360
_DECIBELS = 75.0  # from the darkest to the lightest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: points in order of x, and how to draw them."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    marked: bool = False  # a dot on each point, for few points


def line_chart(series: Sequence[Series], *, title: str, x_title: str = "step") -> str:
    """Draws curves; the vertical axis is logarithmic where positive values span more than 30 times.

    Args:
        series: at least one, each with at least one point, all finite.
        title: of the figure, also read by screen readers.
        x_title: under the horizontal axis.

    Returns:
        An svg element.
    """
    y = np.concatenate([np.asarray(one.y, float) for one in series])
    x = np.concatenate([np.asarray(one.x, float) for one in series])
    logarithmic = y.min() > 0 and y.max() / y.min() > 30
    x_axis = _Axis.linear(x.min(), x.max(), _LEFT, _WIDTH - _RIGHT)
    make = _Axis.logarithmic if logarithmic else _Axis.linear
    y_axis = make(y.min(), y.max(), _HEIGHT - _BOTTOM, _TOP)
    parts = [_open_svg(title), *_grid(x_axis, y_axis, x_title)]
    for one in series:
        parts.append(_curve(one, x_axis, y_axis))
    return "".join([*parts, "</svg>"])


def bar_chart(values: Sequence[float], *, title: str, x_title: str, color: str = COLORS[0]) -> str:
    """Draws one bar per value, from zero, numbered from 0; at least one value."""
    values = np.asarray(values, float)
    x_axis = _Axis.linear(-0.5, len(values) - 0.5, _LEFT, _WIDTH - _RIGHT, nice=False)
    y_axis = _Axis.linear(min(0.0, values.min()), max(0.0, values.max()), _HEIGHT - _BOTTOM, _TOP)
    parts = [_open_svg(title), *_grid(x_axis, y_axis, x_title)]
    width = 0.8 * (x_axis.place(1) - x_axis.place(0))
    zero = y_axis.place(0.0)
    for index, value in enumerate(values):
        top = y_axis.place(value)
        parts.append(
            f'<rect x="{x_axis.place(index) - width / 2:.1f}" y="{min(top, zero):.1f}" '
            f'width="{width:.1f}" '
            f'height="{max(abs(top - zero), 0.5):.1f}" fill="{color}">'
            f"<title>{index}: {value:.3g}</title></rect>"
        )
    return "".join([*parts, "</svg>"])


def decibels(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The picture of a sound: mel bands over time in dB, [bands, columns], low bands last."""
    hop = max(sample_rate // 200, -(-len(waveform) // _SPECTROGRAM_COLUMNS))
    window = max(4 * hop, 2 * (sample_rate // 50))
    spectrum = np.abs(spectra.centered_stft_on_host(waveform, frame_length=window, hop_length=hop))
    mel = spectrum @ spectra.mel_filterbank(sample_rate, window, _SPECTROGRAM_BANDS)
    return 20.0 * np.log10(np.maximum(mel.T[::-1], 1e-8))


def spectrogram_uri(levels: np.ndarray, *, top: float) -> str:
    """A PNG of `decibels` as a data URI; `top` dB and above is darkest."""
    share = np.clip((levels - (top - _DECIBELS)) / _DECIBELS, 0.0, 1.0)
    return _data_uri("image/png", _png(np.round(255 * share).astype(np.uint8)))


def sound_uri(waveform: np.ndarray, sample_rate: int) -> str:
    """A 16-bit WAV of [n] samples as a data URI."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="WAV", subtype="PCM_16")
    return _data_uri("audio/wav", buffer.getvalue())


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A scale from values to places, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    is_log: bool = False

    @classmethod
    def linear(cls, low: float, high: float, start: float, end: float, nice: bool = True):
        if high <= low:
            margin = abs(low) * 0.1 or 1.0
            low, high = low - margin, high + margin
        step = _nice_step((high - low) / 4)
        if nice:
            low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        first = math.ceil(low / step - 1e-9)
        count = math.floor(high / step + 1e-9) - first + 1
        return cls(low, high, start, end, tuple((first + i) * step for i in range(count)))

    @classmethod
    def logarithmic(cls, low: float, high: float, start: float, end: float):
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        stride = -(-(last - first) // 5)
        ticks = tuple(10.0**power for power in range(first, last + 1, stride))
        return cls(10.0**first, 10.0**last, start, end, ticks, is_log=True)

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _open_svg(title: str) -> str:
    title = html.escape(title)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
    )


def _grid(x_axis: _Axis, y_axis: _Axis, x_title: str) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="tick end">{_number(tick)}</text>'
        )
    for tick in x_axis.ticks:
        parts.append(
            f'<text x="{x_axis.place(tick):.1f}" y="{bottom + 15}" class="tick middle">'
            f"{_number(tick)}</text>"
        )
    parts.append(f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" class="axis"/>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 4}" class="tick middle">'
        f"{html.escape(x_title)}</text>"
    )
    return parts


def _curve(one: Series, x_axis: _Axis, y_axis: _Axis) -> str:
    x, y = _thinned(np.asarray(one.x, float), np.asarray(one.y, float))
    places = [(x_axis.place(a), y_axis.place(b)) for a, b in zip(x, y)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts = [
        f'<polyline points="{points}" fill="none" stroke="{one.color}" class="curve">'
        f"<title>{html.escape(one.name)}</title></polyline>"
    ]
    if one.marked or len(x) == 1:
        for (a, b), step, value in zip(places, x, y):
            parts.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{one.color}"><title>'
                f"{html.escape(one.name)}, {_number(step)}: {value:.4g}</title></circle>"
            )
    return "".join(parts)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbouring points where there are more than can be seen."""
    if len(x) <= _MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _MAX_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array(
        [y[part].mean() for part in parts]
    )


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:.4g}"


def _png(indices: np.ndarray) -> bytes:
    """A palette PNG of [height, width] uint8, 0 for white and 255 for darkest."""
    height, width = indices.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), indices], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"PLTE", _PALETTE.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _palette() -> np.ndarray:
    """[256, 3] uint8: white, blue, violet, nearly black, ever darker."""
    stops = np.array(
        [
            [255, 255, 255],
            [202, 222, 240],
            [122, 166, 214],
            [94, 90, 170],
            [76, 30, 100],
            [24, 8, 34],
        ]
    )
    place = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(place, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


_PALETTE = _palette()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
