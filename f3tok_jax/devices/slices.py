# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""TPU generations and the slices that can be rented: what all who name one mean by it.

Needs nothing but Python, so that a launcher reads it before anything is installed.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import importlib.util
import math
import re
from typing import Any


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation, per chip.

    Attributes:
        type_name: what accelerator types of the cloud begin with, such as "v5litepod".
        cores: TensorCores, of which some generations' types give the number.
        counts_cores: whether the number of a type is that of cores; else it is that of chips.
        peak_flops: bfloat16 FLOP/s.
        bandwidth: of its memory, bytes/s.
        networks: bytes/s that a chip sends, "ICI" to the chips of its slice, "DCN" to other slices.
        memory: GiB that the compiler lets a program have, per device; not the data sheet's.
        clock: Hz, to turn XLA's estimated cycles into seconds; not on the data sheets, assumed.
        max_chips: of the largest slice.
        num_axes: of its torus.
        image: runtime version of a TPU VM; "" where there are none but in a cluster (GKE).
        list_price: dollars per hour, on demand, in the United States; None where not known.
        devices: that JAX sees per chip.
        mode: of the compiler, in which it sees so many; "" for its own.
    """

    type_name: str
    cores: int
    counts_cores: bool
    peak_flops: float
    bandwidth: float
    networks: Mapping[str, float]
    memory: float
    clock: float
    max_chips: int
    num_axes: int
    image: str
    list_price: float | None
    devices: int = 1
    mode: str = ""

    @property
    def unit(self) -> int:
        """What the number of an accelerator type counts of a chip."""
        return self.cores if self.counts_cores else 1


def _networks(*, ici: float, dcn: float) -> Mapping[str, float]:
    """Of a chip, given in Gbit/s."""
    return {"ICI": ici * 1e9 / 8, "DCN": dcn * 1e9 / 8}


# Sources: "System architecture" tables of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, its
# runtime versions, and cloud.google.com/tpu/pricing as of 2025: what is billed may differ. Where the
# tables give a network both ways, half of it; where they give a pod's of 256 chips, a chip's share; of
# v4's DCN they say nothing: v5e's is assumed.
CHIPS = {
    "v4": Chip(
        type_name="v4",
        cores=2,
        counts_cores=True,
        peak_flops=275e12,
        bandwidth=1228e9,
        networks=_networks(ici=2400, dcn=25),
        memory=30.75,
        clock=1.05e9,
        max_chips=4096,
        num_axes=3,
        image="tpu-ubuntu2204-base",
        list_price=3.22,
        mode="megacore",  # both cores are one device, as JAX has it on the chips themselves
    ),
    "v5e": Chip(
        type_name="v5litepod",
        cores=1,
        counts_cores=False,
        peak_flops=197e12,
        bandwidth=819e9,
        networks=_networks(ici=1600, dcn=25),
        memory=15.75,
        clock=1.5e9,
        max_chips=256,
        num_axes=2,
        image="v2-alpha-tpuv5-lite",
        list_price=1.20,
    ),
    "v5p": Chip(
        type_name="v5p",
        cores=2,
        counts_cores=True,
        peak_flops=459e12,
        bandwidth=2765e9,
        networks=_networks(ici=4800, dcn=50),
        memory=95.74,
        clock=1.75e9,
        max_chips=8960,
        num_axes=3,
        image="v2-alpha-tpuv5",
        list_price=4.20,
    ),
    "v6e": Chip(
        type_name="v6e",
        cores=1,
        counts_cores=False,
        peak_flops=918e12,
        bandwidth=1640e9,
        networks=_networks(ici=3200, dcn=100),
        memory=31.25,
        clock=1.75e9,
        max_chips=256,
        num_axes=2,
        image="v2-alpha-tpuv6e",
        list_price=2.70,
    ),
    "tpu7x": Chip(
        type_name="tpu7x",
        cores=2,
        counts_cores=True,
        peak_flops=2307e12,
        bandwidth=7380e9,
        networks=_networks(ici=4800, dcn=100),
        memory=94.75,
        clock=1.9e9,
        max_chips=9216,
        num_axes=3,
        image="",
        list_price=None,
        devices=2,
    ),
}
# Slices that exist. Three-axis generations have these and, above, multiples of 4 in ascending
# order.
_FLAT_SLICES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_LARGEST_HOST = 8  # chips of one host of a generation with two axes; all others have 4
_CHIPS_PER_HOST = 4

# Sets of flags for the compiler. The default is none: libtpu's own defaults overlap collectives from
# v5 on, and no set has been measured here on hardware. Flags belong to a libtpu version:
# tests/launch/test_launch.py --slow asks the pinned one whether it knows each.
FLAGS = {
    "default": {
        # It alone does not gather asynchronously by default.
        "v4": (
            "--xla_enable_async_all_gather=true",
            "--xla_enable_async_collective_permute=true",
        ),
    },
    # Large models over fsdp: gathers of weights run beside the matrix products.
    "overlap": {
        "": (
            "--xla_tpu_enable_async_collective_fusion=true",
            "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
            "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
            "--xla_tpu_overlap_compute_collective_tc=true",
            "--xla_enable_async_all_gather=true",
        ),
        # More fast memory for fusions than the default; the two generations that have it.
        "v6e": ("--xla_tpu_scoped_vmem_limit_kib=98304",),
        "v5p": ("--xla_tpu_scoped_vmem_limit_kib=65472",),
    },
    # Small models and several slices: one all-reduce of gradients, of mixed sizes.
    "data_parallel": {
        "": (
            "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
            "--xla_tpu_data_parallel_opt_different_sized_ops=true",
        ),
    },
    # Never split a product into a loop over chips: it hinders fusion at our sizes.
    "windowed": {"": ("--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000",)},
    # Suspicion of a bad chip: computations repeated and compared; halves the speed.
    "debug": {
        "": ("--xla_tpu_enable_sdc_checker=true", "--xla_tpu_sdc_check_halt_on_detection=true"),
    },
}

EXIT_DOES_NOT_FIT = 2  # of programs that compile for a slice

# Without these libtpu asks the machine which TPU it is, and two processes lock each other out.
COMPILER_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def flags(name: str, flag_set: str) -> tuple[str, ...]:
    """The flags of a set for a generation of CHIPS; raises ValueError for another set."""
    if flag_set not in FLAGS:
        raise ValueError(f"--flags must be one of: {' '.join(FLAGS)}; got {flag_set!r}")
    return FLAGS[flag_set].get("", ()) + FLAGS[flag_set].get(name, ())


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
    def chips_per_slice(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def num_chips(self) -> int:
        return self.num_slices * self.chips_per_slice

    @property
    def num_devices(self) -> int:
        """That JAX sees, of all slices."""
        return self.num_chips * self.chip.devices

    @property
    def hosts_per_slice(self) -> int:
        """TPU VMs, each a process of a run."""
        chips = self.chips_per_slice
        if self.chip.num_axes == 2 and chips <= _LARGEST_HOST:
            return 1
        return -(-chips // _CHIPS_PER_HOST)

    @property
    def topology(self) -> str:
        """Such as "v5e:4x4", of one slice."""
        return f"{self.name}:{self.shape}"

    @property
    def accelerator_type(self) -> str:
        """Such as "v5litepod-16" or "v5p-128"; "" for a shape that no type of the cloud has."""
        count = self.chips_per_slice
        if _shape_of(self.chip, count) != self.shape:
            return ""
        return f"{self.chip.type_name}-{count * self.chip.unit}"

    def __str__(self) -> str:
        if self.num_slices == 1:
            return self.topology
        return f"{self.num_slices} slices of {self.topology}"


def parse(name: str, num_slices: int = 1, *, flag: str = "--topology") -> Slice:
    """Reads any name of a slice: "v5litepod-16", "v5e-16" and "v5e:4x4" are one.

    Args:
        name: a type of the cloud, whose number counts chips of v5e and v6e and TensorCores of the
            others; or a generation and its chips per axis.
        num_slices: joined by the data-centre network.
        flag: where the name comes from, for messages.

    Raises:
        ValueError: for what no product has, which libtpu would accept.
    """
    if num_slices < 1:
        raise ValueError(f"--num_slices must be at least 1, got {num_slices}")
    generation, mark, size = re.fullmatch(r"([a-z0-9]*)([:-]?)(.*)", name, re.DOTALL).groups()
    known = {chip.type_name: key for key, chip in CHIPS.items()} | {key: key for key in CHIPS}
    pattern = r"[1-9]\d{0,3}(x[1-9]\d{0,3})*" if mark == ":" else r"[1-9]\d{0,5}"
    if generation not in known or not mark or not re.fullmatch(pattern, size, re.ASCII):
        raise ValueError(
            f"{flag} must be a slice of {', '.join(CHIPS)}, such as v5litepod-16, v5p-128 or "
            f"v5e:4x4, got {name!r}"
        )
    chip = CHIPS[known[generation]]
    if mark == "-":
        count, rest = divmod(int(size), chip.unit)
        shape = "" if rest else _shape_of(chip, count)
    else:
        shape = size if _exists(chip, size) else ""
    if not shape:
        raise ValueError(f"{flag} must be a slice that exists, {_products(chip)}, got {name!r}")
    return Slice(known[generation], shape, num_slices)


def _exists(chip: Chip, shape: str) -> bool:
    if chip.num_axes == 2:
        return shape in _FLAT_SLICES
    sizes = [int(size) for size in shape.split("x")]
    large = len(sizes) == 3 and not any(size % 4 for size in sizes) and sizes == sorted(sizes)
    return shape in _SMALL_CUBES or (large and math.prod(sizes) <= chip.max_chips)


def _shape_of(chip: Chip, num_chips: int) -> str:
    """The shape that the cloud gives so many chips, "" if none: the one nearest to a cube."""
    small = _FLAT_SLICES if chip.num_axes == 2 else _SMALL_CUBES
    shapes = {math.prod(map(int, shape.split("x"))): shape for shape in small}
    if num_chips in shapes:
        return shapes[num_chips]
    cubes, rest = divmod(num_chips, 64)
    if chip.num_axes == 2 or rest or not 0 < num_chips <= chip.max_chips:
        return ""
    divisors = [size for size in range(1, cubes + 1) if cubes % size == 0]
    triples = [
        (first, second, cubes // first // second)
        for first in divisors
        for second in divisors
        if cubes % (first * second) == 0 and first <= second <= cubes // first // second
    ]
    return "x".join(str(4 * size) for size in min(triples, key=sum))


def _products(chip: Chip) -> str:
    """What slices there are, in words."""
    small = _FLAT_SLICES if chip.num_axes == 2 else _SMALL_CUBES
    counts = [math.prod(map(int, shape.split("x"))) * chip.unit for shape in small]
    types = f"{chip.type_name}-{{{', '.join(map(str, counts))}}} for {', '.join(small)}"
    if chip.num_axes == 2:
        return types
    return (
        f"{types}; above, three ascending multiples of 4 with at most {chip.max_chips} chips, or "
        f"their number of TensorCores, a multiple of {64 * chip.unit}"
    )


# What JAX calls a device of each, and has called it.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


def chip_of(device_kind: str) -> Chip | None:
    """The generation of a device that is there; None where it is not known."""
    return CHIPS.get(_KINDS.get(device_kind, ""))


def count(found: Iterable[Any]) -> int:
    """Of how many slices devices are: those of one machine, or of no TPU, of one."""
    return len({getattr(device, "slice_index", 0) for device in found})


def devices(target: Slice) -> Sequence[Any]:
    """Devices of slices that need not exist; for compiling only."""
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "compiling for TPUs needs their compiler, libtpu, which is not installed; "
            "run pip install -e '.[tpu]' in the checkout"
        )
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if target.num_slices > 1:
        options["num_slices"] = target.num_slices
    if target.chip.mode:
        options["chip_config_name"] = target.chip.mode
    if target.shape == "1x1":
        options["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(
        platform="tpu", topology_name=target.topology, **options
    ).devices
