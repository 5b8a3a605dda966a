# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What custom calls cost: XLA estimates neither cycles nor FLOPs of them.

A Pallas kernel is priced by its final schedule. How often a kernel's branches run is read off its
shapes where it is the splash attention kernel, whose forbidden tiles are not computed; of any other
kernel every branch counts in every step, which is the most that it can be. Waiting for memory is not
in a schedule.
"""

from collections.abc import Mapping
import dataclasses
import math
import re

from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import opcodes
from f3tok_jax.cost import schedule as schedule_lib

KERNEL = "tpu_custom_call"

_BODY = re.compile(r'"body":"([^"]*)"')
_DECLARED = re.compile(r'"cost_estimate":\{"flops":"(\d+)"')
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dq|dkv)")
# Products of one tile: the scores, and what is made of them and of their gradients.
_TILE_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
_SUFFIX = {"fwd": "", "dq": "_dq", "dkv": "_dkv"}


@dataclasses.dataclass(frozen=True)
class Price:
    """Of one call.

    Attributes:
        cycles: None where they are not known.
        flops: of products of tiles that are computed, as its caller declares them or as its shapes
            tell; None where they are not known.
    """

    cycles: float | None
    flops: float | None


@dataclasses.dataclass(frozen=True)
class Tiles:
    """What a call of splash attention computes.

    Attributes:
        share: of the tiles of its grid, those that are computed.
        edges: of the steps of its grid, those that begin or end a sum.
        flops: of the tiles that are computed.
    """

    share: float
    edges: float
    flops: float


def prices(text: hlo_text.Text, schedules: Mapping[str, str]) -> dict[str, Price]:
    """The price of every custom call that has work to do, by its name.

    Args:
        text: of the compiled program.
        schedules: texts of final schedules by name of instruction, as schedule.Recorder has them.
            Of calls of one body the compiler writes one.
    """
    calls = [
        (instruction, computation)
        for computation in text.computations.values()
        for instruction in computation.values()
        if opcodes.target(instruction) not in ("", *opcodes.FREE_CALLS)
    ]
    by_body = {
        _body(instruction): schedules[instruction.name]
        for instruction, _ in calls
        if instruction.name in schedules
    }
    found = {}
    for instruction, computation in calls:
        operands = [computation[name].shape for name in instruction.operands if name in computation]
        written = schedules.get(instruction.name) or by_body.get(_body(instruction), "")
        found[instruction.name] = _price(instruction, operands, written)
    return found


def tiles(name: str, attributes: str, operands: list[str]) -> Tiles | None:
    """What a call of splash attention computes, of its shapes; None of another kernel.

    A kernel that is told positions forbids what comes after: where its grid is as wide as a row has
    tiles all before are computed, where it is narrower the nearest of them, as many as that.

    Args:
        name: of the instruction.
        attributes: its text, with the sizes of tiles.
        operands: texts of their shapes: two of the mask's tiles, then query, key and value.
    """
    found = _SPLASH.match(name)
    if not found or len(operands) < 5:
        return None
    kind = found.group(1)
    sizes = [
        re.search(rf'block_{side}{_SUFFIX[kind]}\\*":\s*(\d+)', attributes) for side in ("q", "kv")
    ]
    if not all(sizes):
        return None
    query, key = (hlo_text.dimensions(shape) for shape in operands[2:4])
    block_q, block_kv = (int(size.group(1)) for size in sizes)
    rows, columns = query[-2] // block_q, key[-2] // block_kv
    _, *grid = hlo_text.dimensions(operands[0])
    # Segments bring two arrays of numbers; positions are one more.
    is_causal = sum(shape.startswith("s32") for shape in operands) % 2 == 1
    if kind == "dkv":
        outer, inner, total = columns, grid[0], rows
        seen = [rows - column * block_kv // block_q for column in range(columns)]
    else:
        outer, inner, total = rows, grid[1], columns
        seen = [math.ceil((row + 1) * block_q / block_kv) for row in range(rows)]
    computed = sum(min(inner, one if is_causal else total) for one in seen)
    share = computed / (outer * inner)
    # All heads that share keys are summed before their gradients are written.
    sums = inner * (query[-3] // key[-3] if kind == "dkv" else 1)
    tile = 2.0 * block_q * block_kv * query[-1] * _TILE_PRODUCTS[kind]
    return Tiles(share, 1.0 / sums, tile * computed * math.prod(query[:-2]))


def _price(instruction: hlo_text.Instruction, operands: list[str], written: str) -> Price:
    attention = tiles(instruction.name, instruction.text, operands)
    declared = _DECLARED.search(instruction.text)
    flops = attention.flops if attention else float(declared.group(1)) if declared else None
    if opcodes.target(instruction) != KERNEL or not written:
        return Price(None, flops)
    try:
        schedule = schedule_lib.parse(written)
    except ValueError:
        return Price(None, flops)
    share, edges = (attention.share, attention.edges) if attention else (1.0, 1.0)
    cycles = schedule.always + share * schedule.products + edges * schedule.edges
    return Price(cycles, flops)


def _body(instruction: hlo_text.Instruction) -> str:
    """What two calls have in common that are compiled alike."""
    found = _BODY.search(instruction.text)
    return f"{instruction.shape} {found.group(1) if found else instruction.text}"
