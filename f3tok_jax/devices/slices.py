# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""TPU generations, the slices that can be rented, and their devices for compiling only."""

from collections.abc import Sequence
import dataclasses
import importlib.util
import math
import re
from typing import Any

from jax.experimental import topologies


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation, per chip.

    Attributes:
        peak_flops: bfloat16 FLOP/s.
        bandwidth: of its memory, bytes/s.
        memory: GiB that the compiler lets a program have, per device; not the data sheet's.
        clock: Hz, to turn XLA's estimated cycles into seconds; not on the data sheets, assumed.
        max_chips: of the largest slice.
        num_axes: of its torus.
        devices: that JAX sees per chip.
    """

    peak_flops: float
    bandwidth: float
    memory: float
    clock: float
    max_chips: int
    num_axes: int
    devices: int = 1


# Source: "System architecture" tables of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}.
CHIPS = {
    "v4": Chip(275e12, 1228e9, 15.25, 1.05e9, 4096, 3, devices=2),
    "v5e": Chip(197e12, 819e9, 15.75, 1.5e9, 256, 2),
    "v5p": Chip(459e12, 2765e9, 95.74, 1.75e9, 8960, 3),
    "v6e": Chip(918e12, 1640e9, 31.25, 1.75e9, 256, 2),
}
# Slices that exist. Three-axis generations have these and, above, multiples of 4 in ascending
# order.
_FLAT_SLICES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A named topology: `chip` of CHIPS, `shape` such as "4x4", and how many of such slices."""

    name: str
    shape: str
    num_slices: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name]

    @property
    def num_chips(self) -> int:
        return self.num_slices * math.prod(map(int, self.shape.split("x")))

    def __str__(self) -> str:
        name = f"{self.name}:{self.shape}"
        return name if self.num_slices == 1 else f"{self.num_slices} slices of {name}"


def parse(topology: str, num_slices: int = 1) -> Slice:
    """Reads "v5e:4x4"; raises ValueError for what no product has, which libtpu would accept."""
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise ValueError(
            f"--topology must be a generation of {sorted(CHIPS)} and its chips per axis, such as "
            f"v5e:4x4 or v5p:4x4x4, got {topology!r}"
        )
    sizes = [int(size) for size in shape.split("x")]
    chip, chips = CHIPS[name], math.prod(sizes)
    if chip.num_axes == 2:
        wanted, exists = f"one of {', '.join(_FLAT_SLICES)}", shape in _FLAT_SLICES
    else:
        wanted = (
            f"one of {', '.join(_SMALL_CUBES)}, or three ascending multiples of 4 with at "
            f"most {chip.max_chips} chips"
        )
        large = len(sizes) == 3 and not any(size % 4 for size in sizes) and sizes == sorted(sizes)
        exists = shape in _SMALL_CUBES or (large and 0 < chips <= chip.max_chips)
    if not exists:
        raise ValueError(
            f"a slice of {name} must be {wanted}, got {shape} ({chips} chips, --topology)"
        )
    if num_slices < 1:
        raise ValueError(f"--num_slices must be at least 1, got {num_slices}")
    return Slice(name, shape, num_slices)


def devices(target: Slice) -> Sequence[Any]:
    """Devices of slices that need not exist; for compiling only."""
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "compiling for TPUs needs their compiler, libtpu, which is not installed; "
            "run pip install -e '.[tpu]' in the checkout"
        )
    options = {} if target.num_slices == 1 else {"num_slices": target.num_slices}
    if target.shape == "1x1":
        options["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(
        platform="tpu", topology_name=f"{target.name}:{target.shape}", **options
    ).devices
