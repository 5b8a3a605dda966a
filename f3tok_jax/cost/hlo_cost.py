# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a compiled program costs, read from its HLO text.

XLA's own totals count the body of a loop once and say nothing about which part of the model an
operation belongs to. Here the entry computation is walked: loop bodies count as often as they run,
of a conditional's branches the dearest counts, and every instruction is credited to the scope in
its op_name.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import re

import numpy as np

from f3tok_jax.cost import hlo_text

# Scopes of every stage's step, beside those of its model's parts, as they appear in op_name. A
# gradient keeps its scope, as in "jit(step)/transpose(jvp(Autoencoder))/encoder/...".
COMMON = ("losses", "optimizer")
OTHER = "other"

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"^\s+(?:ROOT )?%?(\S+) = [su]32\[\][^ ]* constant\((\d+)\)", re.MULTILINE)
_INDEX = re.compile(r"\bindex=(\d+)")
_COLLECTIVES = (
    "all-gather all-reduce reduce-scatter all-to-all collective-permute collective-broadcast "
    "ragged-all-to-all send"  # every send has its recv
).split()
# These move nothing themselves, or fetch early what its reader is charged for.
_FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast while copy-start slice-start conditional "
    "call after-all async-update partition-id opt-barrier".split()
)


@dataclasses.dataclass
class Cost:
    """Of a program or a part, per device.

    Attributes:
        cycles: by XLA's own estimate; collectives and custom kernels have none.
        flops: of convolutions and matrix products.
        bytes: operands and results of every instruction outside fusions; of an operand that is only
            sliced, the slices, and of one that is updated in place, the update.
    """

    cycles: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def add(self, other: "Cost", times: float = 1.0) -> None:
        self.cycles += times * other.cycles
        self.flops += times * other.flops
        self.bytes += times * other.bytes


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of communication.

    Attributes:
        opcode: such as "all-gather".
        module: credited part.
        op_name: of the operation that it was compiled for; "" where the compiler names none.
        bytes_by_dtype: the larger of operands and results, per device and execution, by the type of
            an element: that in which a reduction sums.
        times: how often the step executes it.
        groups: of devices, by position in the program's device assignment; () for all or unknown.
        leaves_slice: whether the host passes it on to another slice.
    """

    opcode: str
    module: str
    op_name: str
    bytes_by_dtype: Mapping[str, float]
    times: float
    groups: tuple[tuple[int, ...], ...]
    leaves_slice: bool

    @property
    def num_bytes(self) -> float:
        return sum(self.bytes_by_dtype.values())


@dataclasses.dataclass
class Program:
    """A compiled program, and what running it once costs each device.

    Attributes:
        text: of it.
        scopes: names of the parts to which its costs are credited.
    """

    text: hlo_text.Text
    scopes: tuple[str, ...]

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

    def collectives(self) -> list[Collective]:
        """Every communication of the step, also those inside fusions and asynchronous wrappers."""
        found = []
        for instruction, times in self.walk():
            for inner in self._nested(instruction):
                opcode = inner.opcode.removesuffix("-start")
                if opcode in _COLLECTIVES:
                    op_name = inner.op_name or instruction.op_name
                    groups = hlo_text.parse_groups(inner.text)
                    leaves = "is_host_transfer=true" in inner.text
                    moved, module = self._moved(inner, opcode), self.module_of(op_name)
                    found.append(Collective(opcode, module, op_name, moved, times, groups, leaves))
        return found

    def module_of(self, op_name: str) -> str:
        """The part that an op_name belongs to: the outermost scope of `scopes` in it."""
        found = self._scope.search(op_name)
        return found.group(1) if found else OTHER

    def repeated(self) -> Cost:
        """What XLA's totals leave out: all runs but the first of every loop body."""
        total = Cost()
        for instruction, times in self.walk():
            total.add(self._cost(instruction), times - 1.0)
        return total

    def walk(self) -> Iterator[tuple[hlo_text.Instruction, float]]:
        """Instructions that run, outside fusions, each with how often."""
        yield from self._walk(self.text.entry, 1.0)

    def _walk(self, computation: str, times: float) -> Iterator[tuple[hlo_text.Instruction, float]]:
        for instruction in self.text.computations[computation].values():
            if instruction.opcode == "while":
                body, count = self._loop(instruction)
                yield from self._walk(body, times * count)
            elif instruction.opcode == "conditional":
                yield from self._walk(self._dearest(instruction), times)
            elif instruction.opcode == "call":
                for name in _CALLED.findall(instruction.text):
                    yield from self._walk(name, times)
            else:
                yield instruction, times

    def _loop(self, instruction: hlo_text.Instruction) -> tuple[str, int]:
        called = dict(re.findall(r"(body|condition)=%?([\w.\-]+)", instruction.text))
        known = _TRIP_COUNT.search(instruction.text)
        if known:
            return called["body"], int(known.group(1))
        # A counted loop compares its counter with the only large constant of its condition.
        limits = self._constants(called["condition"]).values()
        return called["body"], -(-max(limits, default=1) // self._stride(**called))

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
        names = _CALLED.findall(instruction.text)
        if branches:
            names = re.findall(r"%([\w.\-]+)", branches.group(1))

        def cycles(name: str) -> float:
            return sum(times * self._cost(inner).cycles for inner, times in self._walk(name, 1.0))

        return max(names, key=cycles)

    def _nested(self, instruction: hlo_text.Instruction) -> Iterator[hlo_text.Instruction]:
        """The instruction and, of fusions and asynchronous wrappers, what they call."""
        yield instruction
        if instruction.opcode in ("fusion", "async-start"):
            for name in _CALLED.findall(instruction.text):
                for inner in self.text.computations.get(name, {}).values():
                    yield from self._nested(inner)

    def _op_name(self, instruction: hlo_text.Instruction) -> str:
        """Of the last product in a fusion if it has one: the fusion bears the name of what
        follows."""
        nested = list(self._nested(instruction))
        products = [inner.op_name for inner in nested if inner.opcode in ("convolution", "dot")]
        names = [*reversed(products), instruction.op_name, *(inner.op_name for inner in nested)]
        return next((name for name in names if name), "")

    def _cost(self, instruction: hlo_text.Instruction) -> Cost:
        if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            return Cost()
        cycles = _CYCLES.search(instruction.text)
        flops = sum(self._flops(inner) for inner in self._nested(instruction))
        return Cost(float(cycles.group(1)) if cycles else 0.0, flops, self._traffic(instruction))

    def _traffic(self, instruction: hlo_text.Instruction) -> float:
        """Bytes that an instruction reads and writes."""
        if instruction.opcode == "dynamic-slice":
            return 2.0 * hlo_text.shape_bytes(instruction.shape)
        if instruction.opcode == "dynamic-update-slice":
            return 2.0 * hlo_text.shape_bytes(self._shapes.get(instruction.operands[1], ""))
        if instruction.opcode != "fusion":
            return self._operand_bytes(instruction) + hlo_text.shape_bytes(instruction.shape)
        (name,) = _CALLED.findall(instruction.text)
        operands = enumerate(instruction.operands)
        read = {operand: self._read(name, index) for index, operand in operands}
        return sum(read.values()) + self._written(name, instruction.shape)

    def _read(self, computation: str, index: int) -> float:
        """Bytes that a fused computation reads of its parameter `index`."""
        inner = self.text.computations[computation]
        parameters = (found for found in inner.values() if found.opcode == "parameter")
        parameter = next(found for found in parameters if found.operands == (str(index),))
        whole, read = hlo_text.shape_bytes(parameter.shape), 0.0
        for user in inner.values():
            if user.opcode == "parameter" or parameter.name not in user.operands:
                continue
            if user.opcode == "dynamic-slice":
                read += hlo_text.shape_bytes(user.shape)
            elif user.opcode == "fusion":
                (called,) = _CALLED.findall(user.text)
                places = [i for i, name in enumerate(user.operands) if name == parameter.name]
                read += sum(self._read(called, place) for place in places)
            elif user.opcode != "dynamic-update-slice" or user.operands[0] != parameter.name:
                return whole
        return min(whole, read)

    def _written(self, computation: str, shape: str) -> float:
        """Bytes that a fused computation writes of its result."""
        written = hlo_text.shape_bytes(shape)
        for inner in self.text.computations[computation].values():
            if inner.opcode == "dynamic-update-slice":
                update = hlo_text.shape_bytes(self._shapes.get(inner.operands[1], ""))
                written -= max(0.0, hlo_text.shape_bytes(inner.shape) - update)
        return max(0.0, written)

    @functools.cached_property
    def _scope(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w.])({'|'.join(self.scopes)})(?!\w)")

    @functools.cached_property
    def _shapes(self) -> dict[str, str]:
        computations = self.text.computations.values()
        return {one.name: one.shape for found in computations for one in found.values()}

    def _operand_bytes(self, instruction: hlo_text.Instruction) -> float:
        shapes = (self._shapes.get(name, "") for name in set(instruction.operands))
        return sum(map(hlo_text.shape_bytes, shapes))

    def _moved(self, instruction: hlo_text.Instruction, opcode: str) -> dict[str, float]:
        copies = 1
        if opcode == "all-gather":
            groups = hlo_text.parse_groups(instruction.text)
            if not groups:
                return hlo_text.dtype_bytes(instruction.shape)
            copies = len(groups[0])
        shapes = (self._shapes.get(name, "") for name in sorted(set(instruction.operands)))
        moved = hlo_text.dtype_bytes(" ".join(shapes))
        return {dtype: copies * num_bytes for dtype, num_bytes in moved.items()}

    def _flops(self, instruction: hlo_text.Instruction) -> float:
        if instruction.opcode == "convolution":
            lhs, rhs = (self._shapes.get(name, "") for name in instruction.operands[:2])
            return hlo_text.convolution_flops(instruction.text, lhs, rhs, instruction.shape)
        if instruction.opcode == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", instruction.text)
            sizes = hlo_text.dimensions(self._shapes.get(instruction.operands[0], ""))
            axes = hlo_text.numbers(contracted.group(1)) if contracted else []
            inner = [sizes[axis] for axis in axes]
            return 2.0 * float(np.prod(hlo_text.dimensions(instruction.shape)) * np.prod(inner))
        return 0.0


def parse(text: str, scopes: Sequence[str]) -> Program:
    """Reads a compiled program.

    Args:
        text: `compiled.as_text()`.
        scopes: names of the model's parts, to which costs are credited beside `COMMON`.

    Raises:
        ValueError: where the text has no entry computation.
    """
    return Program(hlo_text.parse(text), (*scopes, *COMMON))
