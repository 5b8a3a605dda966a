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


def make(num_devices: int, *, num_slices: int = 1, num_hosts: int = 1) -> list[Device]:
    """Returns devices of slices, and of hosts, of one size, one after another."""
    return [
        Device(index, index * num_slices // num_devices, index * num_hosts // num_devices)
        for index in range(num_devices)
    ]
