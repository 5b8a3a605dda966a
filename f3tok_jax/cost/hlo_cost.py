# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a compiled program costs, read from its HLO text.

XLA's own totals count the body of a loop once, take what stays in vector memory for traffic of the
main one, and say nothing about which part of the model an operation belongs to. Here the entry
computation is walked: loop bodies count as often as they run, of a conditional's branches the
dearest counts, and every instruction is credited to the scope in its op_name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import re

import numpy as np

from f3tok_jax.cost import collectives as collectives_lib
from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import kernels
from f3tok_jax.cost import opcodes
from f3tok_jax.cost import traffic

# Scopes of every stage's step, beside those of its model's parts, as they appear in op_name. A
# gradient keeps its scope, as in "jit(step)/transpose(jvp(Autoencoder))/encoder/...".
COMMON = ("losses", "optimizer")
OTHER = "other"

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"^\s+(?:ROOT )?%?(\S+) = [su]32\[\][^ ]* constant\((\d+)\)", re.MULTILINE)
_INDEX = re.compile(r"\bindex=(\d+)")


@dataclasses.dataclass
class Cost:
    """Of a program or a part, per device.

    Attributes:
        cycles: by XLA's own estimate, of kernels by their price; collectives have none, nor has a
            kernel whose price is not known.
        flops: of convolutions and matrix products, those of kernels included where they are known.
        bytes: read from the main memory and written to it; see `traffic`.
    """

    cycles: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def add(self, other: "Cost", times: float = 1.0) -> None:
        self.cycles += times * other.cycles
        self.flops += times * other.flops
        self.bytes += times * other.bytes


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of some."""
    whole = Cost()
    for cost in costs:
        whole.add(cost)
    return whole


@dataclasses.dataclass
class Program:
    """A compiled program, and what running it once costs each device.

    Attributes:
        text: of it.
        scopes: names of the parts to which its costs are credited.
        prices: of its custom calls that have work to do, by name.
    """

    text: hlo_text.Text
    scopes: tuple[str, ...]
    prices: Mapping[str, kernels.Price]

    def costs(self) -> dict[str, Cost]:
        """Cost per part: every name of `scopes` and "other"."""
        total = {name: Cost() for name in (*self.scopes, OTHER)}
        for instruction, times in self.walk():
            cost, name = self._cost(instruction), self.module_of(self._op_name(instruction))
            total[name].add(dataclasses.replace(cost, flops=0.0), times)
            if cost.flops:  # a fusion may hold products of two parts
                for inner in self._nested(instruction):
                    total[self.module_of(inner.op_name)].flops += times * self._flops(inner)
        return total

    def operations(self) -> dict[str, Cost]:
        """Cost per op_name, dearest first: for finding what to improve."""
        total: dict[str, Cost] = {}
        for instruction, times in self.walk():
            total.setdefault(self._op_name(instruction), Cost()).add(self._cost(instruction), times)
        return dict(sorted(total.items(), key=lambda item: -item[1].cycles))

    def collectives(self) -> list[collectives_lib.Collective]:
        """Every communication of the step, each once."""
        return collectives_lib.find(self.text, self._walk(self.text.entry, 1.0))

    def unpriced(self) -> list[str]:
        """Names of what runs and whose cycles nobody knows: custom calls, and loops without a limit
        that can be read, whose body is counted once."""
        calls = {
            one.name
            for one, _ in self._calls()
            if not self.prices[one.name].cycles and not _CYCLES.search(one.text)
        }
        found = (
            one for computation in self.text.computations.values() for one in computation.values()
        )
        loops = {one.name for one in found if one.opcode == "while" and self._limit(one) is None}
        return sorted(calls | loops)

    def uncounted(self) -> list[str]:
        """Names of the custom calls that run and whose FLOPs nobody knows."""
        return sorted({one.name for one, _ in self._calls() if self.prices[one.name].flops is None})

    def kernels(self) -> Cost:
        """Of the custom calls with work to do."""
        whole = Cost()
        for one, times in self._calls():
            price = self.prices[one.name]
            whole.add(Cost(price.cycles or 0.0, price.flops or 0.0, self._traffic.of(one)), times)
        return whole

    def module_of(self, op_name: str) -> str:
        """The part that an op_name belongs to: the outermost scope of `scopes` in it."""
        found = self._scope.search(op_name)
        return found.group(1) if found else OTHER

    def walk(self) -> Iterator[tuple[hlo_text.Instruction, float]]:
        """Instructions that run, outside fusions, each with how often."""
        for instruction, times, _ in self._walk(self.text.entry, 1.0):
            yield instruction, times

    def _walk(
        self, computation: str, times: float, place: str = ""
    ) -> Iterator[tuple[hlo_text.Instruction, float, str]]:
        """As `walk`, each with the names of the loops, branches and calls around it."""
        for instruction in self.text.computations[computation].values():
            inside = f"{place}/{instruction.name}"
            if instruction.opcode == "while":
                body, count = self._loop(instruction)
                yield from self._walk(body, times * count, inside)
            elif instruction.opcode == "conditional":
                yield from self._walk(self._dearest(instruction), times, inside)
            elif instruction.opcode == "call":
                for name in opcodes.called(instruction):
                    yield from self._walk(name, times, inside)
            else:
                yield instruction, times, place

    def _calls(self) -> Iterator[tuple[hlo_text.Instruction, float]]:
        """Custom calls with work to do, inside fusions too, each with how often it runs."""
        for instruction, times in self.walk():
            for one in self._nested(instruction):
                if one.name in self.prices:
                    yield one, times

    def _loop(self, instruction: hlo_text.Instruction) -> tuple[str, int]:
        (body,) = re.findall(r"body=%?([\w.\-]+)", instruction.text)
        return body, self._limit(instruction) or 1

    def _limit(self, instruction: hlo_text.Instruction) -> int | None:
        """How often a loop runs; None where its limit is none that can be read."""
        called = dict(re.findall(r"(body|condition)=%?([\w.\-]+)", instruction.text))
        known = _TRIP_COUNT.search(instruction.text)
        if known:
            return int(known.group(1))
        # A counted loop compares its counter with the only large constant of its condition.
        limits = self._constants(called["condition"]).values()
        return -(-max(limits) // self._stride(**called)) if limits else None

    def _stride(self, condition: str, body: str) -> int:
        """By how much a loop's counter grows: by 2 where XLA takes two steps of a ring in one."""
        read = self.text.computations[condition].values()
        counters = [one for one in read if one.opcode == "get-tuple-element"]
        *others, root = self.text.computations[body].values()
        if len(counters) != 1 or root.opcode != "tuple":
            return 1
        index = int(_INDEX.search(counters[0].text).group(1))
        grown = {one.name: one for one in others}.get(root.operands[index])
        if grown is None or grown.opcode != "add":
            return 1
        constants = self._constants(body)
        return max((constants.get(name, 1) for name in grown.operands), default=1)

    def _constants(self, computation: str) -> dict[str, int]:
        found = _CONSTANT.findall(self.text.lines[computation])
        return {name: int(value) for name, value in found}

    def _dearest(self, instruction: hlo_text.Instruction) -> str:
        branches = _BRANCHES.search(instruction.text)
        names = opcodes.called(instruction)
        if branches:
            names = re.findall(r"%([\w.\-]+)", branches.group(1))

        def cycles(name: str) -> float:
            return sum(times * self._cost(one).cycles for one, times, _ in self._walk(name, 1.0))

        return max(names, key=cycles)

    def _nested(self, instruction: hlo_text.Instruction) -> Iterator[hlo_text.Instruction]:
        return opcodes.nested(self.text, instruction)

    def _op_name(self, instruction: hlo_text.Instruction) -> str:
        """Of the last product in a fusion if it has one: the fusion bears the name of what
        follows."""
        nested = list(self._nested(instruction))
        products = [inner.op_name for inner in nested if inner.opcode in ("convolution", "dot")]
        names = [*reversed(products), instruction.op_name, *(inner.op_name for inner in nested)]
        return next((name for name in names if name), "")

    def _cost(self, instruction: hlo_text.Instruction) -> Cost:
        if instruction.opcode in opcodes.FREE or instruction.opcode.endswith("-done"):
            return Cost()
        nested = list(self._nested(instruction))
        estimated = _CYCLES.search(instruction.text)
        cycles = float(estimated.group(1)) if estimated else 0.0
        cycles += sum(
            self.prices[one.name].cycles or 0.0 for one in nested if one.name in self.prices
        )
        return Cost(cycles, sum(map(self._flops, nested)), self._traffic.of(instruction))

    def _flops(self, instruction: hlo_text.Instruction) -> float:
        if instruction.name in self.prices:
            return self.prices[instruction.name].flops or 0.0
        shapes = [self.text.shapes.get(name, "") for name in instruction.operands[:2]]
        if instruction.opcode == "convolution":
            return hlo_text.convolution_flops(instruction.text, *shapes, instruction.shape)
        if instruction.opcode == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", instruction.text)
            sizes = hlo_text.dimensions(shapes[0])
            axes = hlo_text.numbers(contracted.group(1)) if contracted else []
            inner = [sizes[axis] for axis in axes]
            return 2.0 * float(np.prod(hlo_text.dimensions(instruction.shape)) * np.prod(inner))
        return 0.0

    @functools.cached_property
    def _traffic(self) -> traffic.Traffic:
        return traffic.Traffic(self.text)

    @functools.cached_property
    def _scope(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w.])({'|'.join(self.scopes)})(?!\w)")


def parse(text: str, scopes: Sequence[str], schedules: Mapping[str, str] | None = None) -> Program:
    """Reads a compiled program.

    Args:
        text: `compiled.as_text()`.
        scopes: names of the model's parts, to which costs are credited beside `COMMON`.
        schedules: texts of kernels' final schedules by name of instruction; see `kernels.prices`.

    Raises:
        ValueError: where the text has no entry computation.
    """
    read = hlo_text.parse(text)
    return Program(read, (*scopes, *COMMON), kernels.prices(read, schedules or {}))
