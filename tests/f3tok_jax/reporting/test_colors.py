# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Colours of a page: every one in both schemes, and with enough contrast to be seen."""

import pytest

from f3tok_jax.reporting import colors


def _luminance(color: str) -> float:
    """Relative, as WCAG defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [colors.LIGHT, colors.DARK], ids=["light", "dark"])
def test_everything_can_be_seen(scheme):
    assert scheme.keys() == colors.LIGHT.keys() and len({*scheme.values()}) >= len(scheme) - 1
    for ground in ("page", "panel"):
        for name in ("ink", "soft", "link", "good"):
            assert _contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground)
        for name in (*colors.SERIES, "cursor", "warn"):
            assert _contrast(scheme[name], scheme[ground]) >= 3, (name, ground)


def test_a_drawing_brings_its_colours_in_both_schemes():
    drawn = colors.as_variables(
        f'<svg><defs></defs><path fill="{colors.LIGHT["series-2"]}"/></svg>'
    )
    assert 'fill="var(--series-2)"' in drawn and "--ink" not in drawn
    assert f":root{{--series-2:{colors.LIGHT['series-2']};}}" in drawn
    assert f"dark){{:root{{--series-2:{colors.DARK['series-2']};}}}}" in drawn
