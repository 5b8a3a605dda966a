# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Charts, spectrograms and sounds: well formed, and showing what they were given."""

import base64
import io
import re
import xml.etree.ElementTree as xml

from matplotlib import image
import numpy as np
import pytest
import soundfile

from f3tok_jax.reporting import charts
from f3tok_jax.signal import spectra


def _series(x, y, **changes):
    return charts.Series(**(dict(name="a <b>", x=x, y=y, color="series-1") | changes))


def _data(uri: str, kind: str) -> bytes:
    assert uri.startswith(f"data:{kind};base64,")
    return base64.b64decode(uri.split(",")[1])


def _drawing(uri: str) -> xml.Element:
    return xml.fromstring(_data(uri, "image/svg+xml"))


def _drawn(uri: str, style: str) -> list[str]:
    """The paths whose style has this part."""
    paths = _drawing(uri).iter("{http://www.w3.org/2000/svg}path")
    return [path.attrib["d"] for path in paths if style in path.attrib.get("style", "")]


def _places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def _points(uri: str) -> list[tuple[float, float]]:
    (curve,) = _drawn(uri, "stroke: var(--series-1); stroke-width: 1.4")
    return _places(curve)


def test_a_rising_curve_rises_inside_the_drawing():
    points = _points(charts.line_chart([_series([0, 1, 2], [1.0, 2.0, 4.0])]))
    x, y = zip(*points)
    assert list(x) == sorted(x) and list(y) == sorted(y, reverse=True)
    assert 0 < min(x) and max(x) < 4.2 * 72 and 0 < min(y) and max(y) < 2.4 * 72


def test_wide_positive_ranges_are_logarithmic():
    points = _points(charts.line_chart([_series([0, 1, 2], [1.0, 10.0, 100.0])]))
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)


@pytest.mark.parametrize(
    "y",
    [
        *([0.0], [5.0], [3.0, 3.0], [-1e-9, 1e-9], [1e12, -1e12], [1e-30, 1e30]),
        *([1e99, -1e99], [1e-300, 1e99], [5e-324, 1.0]),
    ],
)
def test_any_finite_values_can_be_drawn(y):
    drawing = _drawing(charts.line_chart([_series(range(len(y)), y, marked=True)]))
    text = xml.tostring(drawing, encoding="unicode")
    assert "nan" not in text and "inf" not in text
    dots = [one for one in drawing.iter("{http://www.w3.org/2000/svg}use")]
    assert sum("var(--series-1)" in dot.attrib.get("style", "") for dot in dots) == len(y)


def test_long_curves_are_thinned():
    x = np.arange(10_000)
    y = np.sin(x / 2000) + 2
    assert 100 < len(charts.thinned(x, y)[0]) <= 300
    points = _points(charts.line_chart([_series(x, y)]))
    assert 20 < len(points) <= 300


def test_bars_start_at_zero():
    uri = charts.bar_chart([1.0, -2.0, 0.0], x_title="x", color="series-1")
    bars = [[y for _, y in _places(path)] for path in _drawn(uri, "fill: var(--series-1)")]
    assert max(bars[0]) == pytest.approx(min(bars[1]), abs=0.11)
    heights = [max(bar) - min(bar) for bar in bars]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.3)


@pytest.mark.parametrize("x_title", ["step", "$\\broken{", "<script>alert(1)</script>"])
def test_the_same_numbers_make_the_same_bytes_and_nothing_active(x_title):
    uris = {charts.line_chart([_series([1, 2], [3.0, 4.0])], x_title=x_title) for _ in range(2)}
    (uri,) = uris
    text = _data(uri, "image/svg+xml").decode()
    assert "<script" not in text and "<metadata" not in text and x_title[:6].strip("<") in text
    assert not re.search(r'href="(?!#)', text)


def test_spectrogram_is_a_png_of_the_sound():
    time = np.arange(16_000) / 16_000
    levels = spectra.mel_levels_on_host(np.sin(2 * np.pi * 1000 * time), 16_000)
    data = _data(charts.spectrogram(levels, top=float(levels.max())), "image/png")
    picture = image.imread(io.BytesIO(data))[..., :3].sum(axis=-1)
    assert picture.shape == levels.shape
    # The tone is one bright line; far from it the picture is black.
    middle = picture.shape[1] // 2
    assert np.argmax(picture[:, middle]) == np.argmax(levels[:, middle])
    assert picture[0, middle] == picture.min() < 0.1 * picture.max()


@pytest.mark.parametrize("num_samples", [1, 100, 200_000])
def test_spectrograms_of_any_length(num_samples):
    levels = spectra.mel_levels_on_host(np.zeros(num_samples), 24_000)
    assert levels.shape[0] == 96 and 1 <= levels.shape[1] <= 360
    assert charts.spectrogram(levels, top=float(levels.max()))


def test_sound_comes_back():
    waveform = np.linspace(-0.5, 0.5, 101)
    again, sample_rate = soundfile.read(
        io.BytesIO(_data(charts.sound(waveform, 16_000), "audio/wav"))
    )
    assert sample_rate == 16_000
    np.testing.assert_allclose(again, waveform, atol=1 / 32768)  # 16 bits
