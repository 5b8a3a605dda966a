# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Charts, spectrograms and sounds: well formed, and showing what they were given."""

import base64
import io
import struct
import xml.etree.ElementTree as xml
import zlib

import numpy as np
import pytest
import soundfile

from f3tok_jax.reporting import charts


def _series(x, y, **changes):
    return charts.Series(**(dict(name="a <b>", x=x, y=y, color="#000000") | changes))


def _points(svg: str) -> list[tuple[float, float]]:
    line = xml.fromstring(svg).find("polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]


def test_a_rising_curve_rises_inside_the_drawing():
    points = _points(charts.line_chart([_series([0, 1, 2], [1.0, 2.0, 4.0])], title="t & u"))
    x, y = zip(*points)
    assert list(x) == sorted(x) and list(y) == sorted(y, reverse=True)
    assert 0 < min(x) and max(x) < 420 and 0 < min(y) and max(y) < 250


def test_wide_positive_ranges_are_logarithmic():
    points = _points(charts.line_chart([_series([0, 1, 2], [1.0, 10.0, 100.0])], title="t"))
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)


@pytest.mark.parametrize(
    "y", [[0.0], [5.0], [3.0, 3.0], [-1e-9, 1e-9], [1e12, -1e12], [1e-30, 1e30]]
)
def test_any_finite_values_can_be_drawn(y):
    svg = charts.line_chart([_series(range(len(y)), y, marked=True)], title="t")
    assert "nan" not in svg and "inf" not in svg
    assert len(xml.fromstring(svg).findall("circle")) == len(y)


def test_long_curves_are_thinned():
    x = np.arange(10_000)
    points = _points(charts.line_chart([_series(x, np.sin(x / 2000) + 2)], title="t"))
    assert 100 < len(points) <= 300


def test_bars_start_at_zero():
    bars = xml.fromstring(charts.bar_chart([1.0, -2.0, 0.0], title="t", x_title="x")).findall(
        "rect"
    )
    tops = [float(bar.attrib["y"]) for bar in bars]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert tops[0] + heights[0] == pytest.approx(tops[1], abs=0.11)
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.3)


def test_spectrogram_is_a_png_of_the_sound():
    time = np.arange(16_000) / 16_000
    levels = charts.decibels(np.sin(2 * np.pi * 1000 * time), 16_000)
    uri = charts.spectrogram_uri(levels, top=float(levels.max()))
    assert uri.startswith("data:image/png;base64,")
    data = base64.b64decode(uri.split(",")[1])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, chunks = 8, {}
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(name + body)
        chunks[name] = body
        position += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert (height, width) == levels.shape
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    # The tone is one dark line; far from it the picture is white.
    assert rows[:, 1:].max() == 255 and np.argmax(rows[:, width // 2]) == np.argmax(
        levels[:, width // 2]
    )
    assert rows[0, width // 2] == 0


@pytest.mark.parametrize("num_samples", [1, 100, 200_000])
def test_spectrograms_of_any_length(num_samples):
    levels = charts.decibels(np.zeros(num_samples), 24_000)
    assert levels.shape[0] == 96 and 1 <= levels.shape[1] <= 360
    assert charts.spectrogram_uri(levels, top=float(levels.max()))


def test_sound_comes_back():
    waveform = np.linspace(-0.5, 0.5, 101)
    data = base64.b64decode(charts.sound_uri(waveform, 16_000).split(",")[1])
    again, sample_rate = soundfile.read(io.BytesIO(data))
    assert sample_rate == 16_000
    np.testing.assert_allclose(again, waveform, atol=1 / 32768)  # 16 bits
