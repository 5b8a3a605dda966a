# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Slices that can be rented, and those that cannot."""

import pytest

from f3tok_jax.devices import slices


@pytest.mark.parametrize(
    "topology, num_chips",
    [("v5e:1x1", 1), ("v5e:16x16", 256), ("v6e:4x4", 16), ("v4:2x2x1", 4), ("v5p:4x4x4", 64)],
)
def test_products_are_accepted(topology, num_chips):
    target = slices.parse(topology)
    assert target.num_chips == num_chips and str(target) == topology


def test_several_slices_multiply_the_chips():
    target = slices.parse("v5e:4x4", 2)
    assert target.num_chips == 32 and str(target) == "2 slices of v5e:4x4"


@pytest.mark.parametrize(
    "topology, message",
    [
        ("v5p:4x4", "a slice of v5p must be one of 2x2x1"),
        ("v5p:8x4x4", "ascending multiples of 4"),
        ("v5p:4x4x6", "ascending multiples of 4"),
        ("v4:16x16x20", "at most 4096 chips"),
        ("v5e:2x2x1", "a slice of v5e must be one of 1x1"),
        ("v5e:32x32", "1024 chips"),
        ("tpu7x:2x2x1", "--topology must be a generation of"),
        ("v5e:0x4", "a slice of v5e must be one of"),
    ],
)
def test_sizes_without_a_product_are_refused(topology, message):
    with pytest.raises(ValueError, match=message):
        slices.parse(topology)


def test_chips_have_plausible_figures():
    for name, chip in slices.CHIPS.items():
        # The FLOPs per byte at which both limits meet lie between 100 and 600 on all generations.
        assert 100 < chip.peak_flops / chip.bandwidth < 600, name
