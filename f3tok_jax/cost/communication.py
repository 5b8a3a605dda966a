# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the chips of a slice, and slices, send each other in a step, and how long that takes."""

from collections.abc import Sequence
from typing import Any

from f3tok_jax.cost import hlo_cost
from f3tok_jax.cost import hlo_text
from f3tok_jax.devices import slices


def by_kind(program: hlo_cost.Program, target: slices.Slice) -> list[dict[str, Any]]:
    """Per opcode and network: how often, bytes per chip and step, seconds, and those of them that
    have no start and end of their own, so that nothing computes meanwhile."""
    chip = target.chip
    per_slice = target.num_devices // target.num_slices
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for found in program.collectives():
        crosses = found.leaves_slice or any(
            len({device // per_slice for device in group}) > 1 for group in found.groups
        )
        network = "DCN" if crosses else "ICI"
        named = {"opcode": found.opcode, "network": network, "count": 0, "bytes": 0.0}
        named |= {"seconds": 0.0, "synchronous_seconds": 0.0, "dtypes": {}}
        total = kinds.setdefault((found.opcode, network), named)
        num_bytes = found.times * found.num_bytes * chip.devices
        took = seconds(found.opcode, network, num_bytes, chip)
        total["count"] += int(found.times)
        total["bytes"] += num_bytes
        total["seconds"] += took
        total["synchronous_seconds"] += 0.0 if found.is_async else took
        for dtype, part in found.bytes_by_dtype.items():
            moved = total["dtypes"].get(dtype, 0.0)
            total["dtypes"][dtype] = moved + found.times * part * chip.devices
    return [total for _, total in sorted(kinds.items())]


def seconds(opcode: str, network: str, num_bytes: float, chip: slices.Chip) -> float:
    """That a collective takes at the data sheet's bandwidth: what is reduced for all has to come and
    to go again. Latency is not known."""
    return (2.0 if opcode == "all-reduce" else 1.0) * num_bytes / chip.networks[network]


def by_network(kinds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The sums of `by_kind` for each network."""
    return {
        network: {
            name: sum(kind[name] for kind in kinds if kind["network"] == network)
            for name in ("bytes", "seconds", "synchronous_seconds")
        }
        for network in ("ICI", "DCN")
    }


def backward_sums(program: hlo_cost.Program) -> dict[str, float]:
    """Bytes per device and step that the backward pass sums, by the type that it sums in.

    Gradients of weights, and of activations where weights are split among chips.
    """
    sums: dict[str, float] = {}
    for found in program.collectives():
        if found.opcode in ("all-reduce", "reduce-scatter"):
            shapes = [shape for op_name, shape in found.parts if "transpose(" in op_name]
            for dtype, num_bytes in hlo_text.dtype_bytes(" ".join(shapes)).items():
                sums[dtype] = sums.get(dtype, 0.0) + found.times * num_bytes
    return sums
