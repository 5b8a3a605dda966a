# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of `step.measure` for a console."""

from collections.abc import Mapping
from typing import Any


def format_table(cost: Mapping[str, Any]) -> str:
    """Of what `step.measure` gives, with "config" and "effort" beside it."""
    memory, roofline = cost["memory_bytes"], cost["roofline"]
    unit = cost["unit"].replace("_", "-")
    rate = f"{cost['unit']}_per_chip_second"
    lines = [
        f"{cost['config']} on {cost['topology']}, {cost['num_chips']} chips, "
        f"{cost[cost['unit']]:,.2f} {unit} per chip and step",
        f"  fits             {memory['peak'] / 2**30:.2f} GiB of {memory['limit'] / 2**30:.2f}",
        f"  FLOPs            {cost['flops'] / 1e12:.3f} T, {_share(cost)}",
        f"  bytes accessed   {cost['bytes_accessed'] / 1e9:.2f} GB of main memory",
        f"  roofline         {1e3 * roofline['seconds']:.2f} ms ({roofline['bound_by']}), "
        f"{roofline[rate]:.0f} {unit} per chip-second",
        f"  XLA's estimate   {_estimate(cost, unit, rate)}",
        f"  MFU              {_utilization(cost)}",
        f"  compiled in      {cost['compile_seconds']:.0f} s "
        f"({cost['compile_cpu_seconds']:.0f} s of CPU)",
        f"  {'':16} {'GFLOP':>9} {'GB':>7} {'XLA ms':>8} {'share':>6}",
    ]
    for name, part in cost["modules"].items():
        lines.append(
            f"  {name:16} {part['flops'] / 1e9:9.1f} {part['bytes'] / 1e9:7.2f} "
            f"{1e3 * part['estimated_seconds']:8.2f} {100 * part['estimated_share']:5.1f}%"
        )
    for kind in cost["collectives"]:
        lines.append(
            f"  {kind['opcode']:16} {kind['count']:4d} x  {kind['bytes'] / 1e6:9.2f} MB over "
            f"{kind['network']}, {1e3 * kind['seconds']:.2f} ms, "
            f"{1e3 * kind['synchronous_seconds']:.2f} of them synchronous: "
            f"{_by_dtype(kind['dtypes'])}"
        )
    if cost["backward_sums"]:
        lines.append(f"  gradients are summed over chips: MB {_by_dtype(cost['backward_sums'])}")
    return "\n".join(lines)


def _share(cost: Mapping[str, Any]) -> str:
    if cost["model_flops_share"] is None:
        return "of which the model's own are not known"
    return f"{100 * cost['model_flops_share']:.0f} % of them the model's own"


def _estimate(cost: Mapping[str, Any], unit: str, rate: str) -> str:
    estimated, kernels = cost["estimated"], cost["kernels"]
    words = f"{1e3 * estimated['seconds']:.2f} ms computing, {estimated[rate]:.0f} {unit} per chip-second"
    if kernels["seconds"]:
        words += f"; {1e3 * kernels['seconds']:.2f} ms of them kernels, by their schedules"
    return words


def _utilization(cost: Mapping[str, Any]) -> str:
    unpriced = cost["kernels"]["unpriced"]
    if unpriced:
        return f"not known: {len(unpriced)} kernels or loops unpriced, {', '.join(unpriced[:3])}"
    if cost["estimated_mfu"] is None:
        return "not known: nobody says what the model's own FLOPs are"
    networks = ", ".join(
        f"{name} {1e3 * network['seconds']:.2f} ms"
        for name, network in cost["communication"].items()
        if network["seconds"]
    )
    words = f"{100 * cost['estimated_mfu']:.1f} % of the chip's peak are the model's own FLOPs"
    if cost["effort"]:
        words = f"with --effort=0, of the program that training runs; of this one {words}"
    if not networks:
        return words
    exposed = 100 * cost["estimated_mfu_exposed"]
    return f"{words} with all communication hidden ({networks}), {exposed:.1f} % with none"


def _by_dtype(num_bytes: Mapping[str, float]) -> str:
    """Megabytes by type of element, the most first."""
    most_first = sorted(num_bytes.items(), key=lambda item: -item[1])
    return ", ".join(f"{number / 1e6:.2f} in {dtype}" for dtype, number in most_first)
