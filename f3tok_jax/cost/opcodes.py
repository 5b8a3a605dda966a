# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Opcodes of HLO by what they cost, and how instructions call others."""

from collections.abc import Iterator
import re

from f3tok_jax.cost import hlo_text

COLLECTIVES = frozenset(
    "all-gather all-reduce reduce-scatter all-to-all collective-permute collective-broadcast "
    "ragged-all-to-all send".split()  # every send has its recv
)
# These move nothing themselves.
FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast while conditional call after-all async-update "
    "partition-id opt-barrier".split()
)
# Starts whose result is a tuple that holds their operands, too.
HOLDING = frozenset(("all-gather-start", "collective-permute-start", "async-start"))
FETCHES = frozenset(("copy-start", "slice-start"))  # between memories, while others compute
SLICES = frozenset(
    ("dynamic-slice", "slice", "gather")
)  # read of their first operand what they give
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # in place -> which operand is written

# What custom calls are there for XLA's own sake: buffers, promises, halves of a collective that is
# counted as such, and the indices of a gather or scatter.
FREE_CALLS = frozenset(
    "AllocateBuffer AssumeGatherIndicesInBound ConcatBitcast AsyncCollectiveStart "
    "AsyncCollectiveDone GatherScatterIndicesBitpacked Sharding".split()
)

_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


def called(instruction: hlo_text.Instruction) -> list[str]:
    """Names of the computations that an instruction runs."""
    return _CALLED.findall(instruction.text)


def target(instruction: hlo_text.Instruction) -> str:
    """What a custom call calls; "" of any other instruction."""
    found = _TARGET.search(instruction.text) if instruction.opcode == "custom-call" else None
    return found.group(1) if found else ""


def nested(
    text: hlo_text.Text, instruction: hlo_text.Instruction
) -> Iterator[hlo_text.Instruction]:
    """The instruction and, of fusions and asynchronous wrappers, what they call."""
    yield instruction
    if instruction.opcode in ("fusion", "async-start"):
        for name in called(instruction):
            for inner in text.computations.get(name, {}).values():
                yield from nested(text, inner)
