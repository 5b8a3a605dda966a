# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Devices of several slices that need not exist: enough of each to make a mesh of them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh asks of a device."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def make(num_devices: int, *, num_slices: int) -> list[Device]:
    """Returns devices of slices of one size, slice by slice."""
    size = num_devices // num_slices
    return [Device(index, slice_index=index // size) for index in range(num_devices)]
