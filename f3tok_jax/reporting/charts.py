# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, spectrograms as PNG and sounds as WAV, as data URIs for the inside of a page.

Charts have no background and follow the page from light to dark; spectrograms are grey, and the
page colours them. The same numbers make the same bytes.
"""

import base64
from collections.abc import Callable, Sequence
import dataclasses
import io
from typing import Any

import numpy as np

from data_pipelines.sound import audio_files
from f3tok_jax.reporting import colors

DECIBELS = 75.0  # from the loudest to the quietest that a spectrogram shows

_INK, _GRID = colors.LIGHT["soft"], colors.LIGHT["line"]
_SIZE = (4.2, 2.4)  # inches of 72 units
_MAX_POINTS = 300  # per curve; more cannot be seen
_LOGARITHMIC_FROM = 30.0  # ratio of the largest to the smallest value
_SHADES = 32  # of a spectrogram: more only make the file larger
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "f3tok",
    "text.parse_math": False,
    "font.size": 9,
    "font.sans-serif": ["system-ui", "DejaVu Sans"],
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "ytick.major.size": 0,
}
_UNDATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: points in order of x, and how to draw them."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str  # one of colors.SERIES
    marked: bool = False  # a dot on each point, for few points


def line_chart(series: Sequence[Series], *, x_title: str = "step") -> str:
    """Draws curves; the vertical axis is logarithmic where positive values span more than 30 times.

    Args:
        series: at least one, each with at least one point, all finite.
        x_title: under the horizontal axis.
    """

    def draw(axes: Any) -> None:
        values = np.concatenate([np.asarray(one.y, float) for one in series])
        if values.min() > 0 and values.max() > _LOGARITHMIC_FROM * values.min():
            axes.set_yscale("log")
        for one in series:
            x, y = thinned(np.asarray(one.x, float), np.asarray(one.y, float))
            dot = "o" if one.marked else "x" if len(x) == 1 else ""
            axes.plot(x, y, color=colors.LIGHT[one.color], linewidth=1.4, marker=dot, markersize=4)

    is_whole = all(float(place).is_integer() for one in series for place in one.x)
    return _chart(draw, x_title, is_whole=is_whole)


def bar_chart(values: Sequence[float], *, x_title: str, color: str = "series-1") -> str:
    """Draws one bar per value, from zero, numbered from 0; at least one value."""

    def draw(axes: Any) -> None:
        axes.bar(range(len(values)), values, color=colors.LIGHT[color])

    return _chart(draw, x_title, is_whole=True)


def _chart(draw: Callable[[Any], None], x_title: str, *, is_whole: bool) -> str:
    # Late, as jinja2: training writes metrics through `runs` without either.
    import matplotlib
    from matplotlib import figure
    from matplotlib import ticker

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        drawing = figure.Figure(figsize=_SIZE)
        drawing.subplots_adjust(left=0.13, right=0.98, top=0.96, bottom=0.2)
        axes = drawing.add_subplot()
        draw(axes)
        axes.set_xlabel(x_title)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=is_whole))
        if is_whole:
            axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        drawing.savefig(buffer, format="svg", transparent=True, metadata=_UNDATED)
    drawn = colors.as_variables(buffer.getvalue().decode())
    return _data_uri("image/svg+xml", drawn.encode())


def spectrogram(levels: np.ndarray, *, top: float) -> str:
    """A grey PNG of levels [bands, columns] in dB, low bands last: white at `top` and above."""
    from matplotlib import image

    share = np.clip((levels - top) / DECIBELS + 1.0, 0.0, 1.0)
    share, buffer = np.round(share * _SHADES) / _SHADES, io.BytesIO()
    options = dict(cmap="gray", vmin=0, vmax=1, metadata={"Software": None})
    image.imsave(buffer, share, format="png", **options)
    return _data_uri("image/png", buffer.getvalue())


def shades() -> dict[str, dict[str, str]]:
    """For light and dark, how grey is coloured: tables of an SVG filter for "R", "G" and "B"."""
    import matplotlib

    maps, places = {"light": "Blues", "dark": "magma"}, np.linspace(0.0, 1.0, 17)
    colored = {scheme: matplotlib.colormaps[name](places)[:, :3] for scheme, name in maps.items()}
    return {
        scheme: {
            channel: " ".join(f"{value:.3f}" for value in table)
            for channel, table in zip("RGB", tables.T)
        }
        for scheme, tables in colored.items()
    }


def sound(waveform: np.ndarray, sample_rate: int) -> str:
    """A 16-bit WAV of [n] samples."""
    return _data_uri("audio/wav", audio_files.wav(waveform, sample_rate))


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbouring points where there are more than can be seen."""
    if len(x) <= _MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _MAX_POINTS)
    return tuple(np.array([values[part].mean() for part in parts]) for values in (x, y))


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
