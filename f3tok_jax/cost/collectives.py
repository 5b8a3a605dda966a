# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the devices of a compiled program say to each other."""

from collections.abc import Iterable, Mapping
import dataclasses
import re

from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import opcodes

_CHANNEL = re.compile(r"\bchannel_id=(\d+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One communication.

    Attributes:
        opcode: such as "all-gather".
        op_name: of the operation that it was compiled for; "" where the compiler names none.
        bytes_by_dtype: the larger of operands and results, per device and execution, by the type of
            an element: that in which a reduction sums.
        times: how often the step executes it.
        groups: of devices, by position in the program's device assignment; () for all or unknown.
        leaves_slice: whether the host passes it on to another slice.
        is_async: whether it has a start and an end, between which others compute.
        parts: of those that the compiler has combined each one's op_name and the text of its shape;
            of a single one its own.
    """

    opcode: str
    op_name: str
    bytes_by_dtype: Mapping[str, float]
    times: float
    groups: tuple[tuple[int, ...], ...]
    leaves_slice: bool
    is_async: bool
    parts: tuple[tuple[str, str], ...]

    @property
    def num_bytes(self) -> float:
        return sum(self.bytes_by_dtype.values())


def find(
    text: hlo_text.Text, runs: Iterable[tuple[hlo_text.Instruction, float, str]]
) -> list[Collective]:
    """Every communication of a program, also those inside fusions and asynchronous wrappers.

    The halves of an asynchronous one, and the fusions that it passes through, bear one channel and
    are one. A group of one device says nothing to anybody.

    Args:
        text: of the program.
        runs: its instructions outside fusions, each with how often it runs and the place where.
    """
    found: dict[tuple[str, str, str], Collective] = {}
    computations = text.computations.values()
    made = {name: one for computation in computations for name, one in computation.items()}
    for number, (instruction, times, place) in enumerate(runs):
        for inner in opcodes.nested(text, instruction):
            opcode = inner.opcode.removesuffix("-start")
            if opcode not in opcodes.COLLECTIVES:
                continue
            groups = hlo_text.parse_groups(inner.text)
            if groups and max(len(set(group)) for group in groups) < 2:
                continue
            channel, leaves = _CHANNEL.search(inner.text), "is_host_transfer=true" in inner.text
            # The host's channels are numbered by themselves.
            which = channel.group(1) if channel and not leaves else f"at {number}"
            key, op_name = (place, which, opcode), inner.op_name or instruction.op_name
            found[key] = Collective(
                opcode=opcode,
                op_name=op_name,
                bytes_by_dtype=_moved(text, inner, opcode, groups),
                times=times,
                groups=groups,
                leaves_slice=leaves,
                is_async=key in found
                or "async-start" in (instruction.opcode, inner.opcode)
                or opcode != inner.opcode,
                parts=_parts(inner, op_name, made),
            )
    return list(found.values())


def _parts(
    instruction: hlo_text.Instruction, op_name: str, made: Mapping[str, hlo_text.Instruction]
) -> tuple[tuple[str, str], ...]:
    sources = [made[name] for name in instruction.operands if name in made]
    if len(sources) == 1:
        return ((op_name, sources[0].shape),)
    return tuple((source.op_name or op_name, source.shape) for source in sources)


def _moved(
    text: hlo_text.Text,
    instruction: hlo_text.Instruction,
    opcode: str,
    groups: tuple[tuple[int, ...], ...],
) -> dict[str, float]:
    copies = 1
    if opcode == "all-gather":
        if not groups:
            return hlo_text.dtype_bytes(instruction.shape)
        copies = len(groups[0])
    shapes = (text.shapes.get(name, "") for name in sorted(set(instruction.operands)))
    moved = hlo_text.dtype_bytes(" ".join(shapes))
    return {dtype: copies * num_bytes for dtype, num_bytes in moved.items()}
