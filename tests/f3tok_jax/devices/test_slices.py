# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Slices that can be rented, and those that cannot."""

import re

import pytest

from f3tok_jax.devices import processes
from f3tok_jax.devices import slices

# Names of one slice, its chips and hosts.
_ALIKE = [
    (("v5litepod-1", "v5e-1", "v5e:1x1", "v5litepod:1x1"), 1, 1),
    (("v5litepod-8", "v5e-8", "v5e:2x4"), 8, 1),
    (("v5litepod-16", "v5e-16", "v5e:4x4"), 16, 4),
    (("v5litepod-256", "v5e:16x16"), 256, 64),
    (("v6e-8", "v6e:2x4"), 8, 1),
    (("v4-8", "v4:2x2x1"), 4, 1),
    (("v4-32", "v4:2x2x4"), 16, 4),
    (("v5p-128", "v5p:4x4x4"), 64, 16),
    (("v5p-512", "v5p:4x8x8"), 256, 64),
    (("v5p-640", "v5p:4x4x20"), 320, 80),
    (("v5p-3584", "v5p:8x8x28"), 1792, 448),
    (("tpu7x-8", "tpu7x:2x2x1"), 4, 1),
    (("tpu7x-128", "tpu7x:4x4x4"), 64, 16),
]


@pytest.mark.parametrize("names, num_chips, num_hosts", _ALIKE, ids=lambda value: str(value))
def test_every_name_of_a_slice_is_the_same_slice(names, num_chips, num_hosts):
    targets = {slices.parse(name) for name in names}
    assert len(targets) == 1
    target = targets.pop()
    assert target.num_chips == num_chips and target.hosts_per_slice == num_hosts
    assert str(target) in names and target.accelerator_type == names[0]


def test_several_slices_multiply_the_chips():
    target = slices.parse("v5e-16", 2)
    assert target.num_chips == 32 and str(target) == "2 slices of v5e:4x4"


def test_devices_are_chips_but_where_each_core_is_one():
    assert slices.parse("v4-8").num_devices == 4  # both cores together
    assert slices.parse("tpu7x-8", 2).num_devices == 16


def test_a_shape_that_the_cloud_would_not_choose_has_no_type():
    target = slices.parse("v5p:4x4x16")
    assert target.num_chips == 256 and target.accelerator_type == ""


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5p:4x4", "v5p-{8, 16, 32, 64} for 2x2x1"),
        ("v5p:8x4x4", "ascending multiples of 4"),
        ("v5p:4x4x6", "ascending multiples of 4"),
        ("v4:16x16x20", "at most 4096 chips"),
        ("v5e:2x2x1", "v5litepod-{1, 4, 8, 16, 32, 64, 128, 256} for 1x1"),
        ("v5e:32x32", "v5litepod-{1, 4, 8"),
        ("v5e:0x4", "must be a slice of v4, v5e"),
        ("v6e-7", "must be a slice that exists, v6e-{1, 4, 8"),
        ("v5litepod-12", "must be a slice that exists"),
        ("v5e-512", "must be a slice that exists"),
        ("v5p-12", "must be a slice that exists"),
        ("v5p-9", "must be a slice that exists"),
        ("v5p-99999", "must be a slice that exists"),
        ("v4-08", "must be a slice of"),
        ("v5e", "must be a slice of"),
        ("v5e-", "must be a slice of"),
        ("v5e:4-4", "must be a slice of"),
        ("v5e-4x4", "must be a slice of"),
        ("v5e-16\n", "must be a slice of"),
        ("v9-8", "must be a slice of"),
        ("", "must be a slice of"),
    ],
)
def test_sizes_without_a_product_are_refused(name, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        slices.parse(name, flag="--accelerator")
    assert str(refused.value).startswith("--accelerator must be") and repr(name) in str(
        refused.value
    )


def test_the_compiler_sees_the_devices_of_the_table(tpu_compiler):
    for name, chip in slices.CHIPS.items():
        shape = "2x2" if chip.num_axes == 2 else "2x2x1"
        for num_slices in (1, 2):
            target = slices.parse(f"{name}:{shape}", num_slices)
            devices = slices.devices(target)
            assert len(devices) == target.num_devices
            assert processes.num_chips(devices) == target.num_chips
            assert slices.chip_of(devices[0].device_kind) is target.chip


def test_flags_of_a_set_are_those_of_all_and_of_the_generation():
    assert slices.flags("v5e", "default") == ()
    assert len(slices.flags("v4", "default")) == 2
    assert slices.flags("v6e", "overlap")[:-1] == slices.flags("v5e", "overlap")
    with pytest.raises(ValueError, match="--flags must be one of: default overlap .*'fast'"):
        slices.flags("v5e", "fast")


def test_a_device_that_is_no_tpu_has_no_peak():
    assert slices.chip_of("cpu") is slices.chip_of("NVIDIA H100 80GB HBM3") is None


def test_chips_have_plausible_figures():
    for name, chip in slices.CHIPS.items():
        # The FLOPs per byte at which both limits meet lie between 100 and 600 on all generations.
        assert 100 < chip.peak_flops / chip.bandwidth < 600, name
