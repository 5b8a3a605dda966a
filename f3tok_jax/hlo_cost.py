# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a compiled program costs, read from its HLO text.

XLA's own totals count the body of a loop once and say nothing about which part of the model an
operation belongs to. Here the entry computation is walked: loop bodies count as often as they run,
of a conditional's branches the dearest counts, and every instruction is credited to the scope in
its op_name.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import re

import numpy as np

# Scopes of the model's parts, as they appear in op_name. A gradient keeps its scope, as in
# "jit(step)/transpose(jvp(Autoencoder))/encoder/...".
MODULES = ("encoder", "decoder", "discriminators", "losses", "optimizer")
OTHER = "other"

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5, "token": 0}
_SHAPE = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"^\s+(?:ROOT )?\S+ = s32\[\][^ ]* constant\((\d+)\)", re.MULTILINE)
_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
    "send",
)  # every send has its recv
# These move nothing themselves; what they call, or who reads them, does.
_FREE = frozenset(
    (
        "parameter",
        "constant",
        "get-tuple-element",
        "tuple",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "async-update",
        "partition-id",
        "opt-barrier",
    )
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in its module.
        shape: text of the result's shape, a tuple's in brackets.
        opcode: such as "fusion".
        operands: names.
        text: everything after the operands: attributes, metadata, backend's configuration.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str

    @property
    def op_name(self) -> str:
        found = _OP_NAME.search(self.text)
        return found.group(1) if found else ""


@dataclasses.dataclass
class Cost:
    """Of a program or a part, per device.

    Attributes:
        cycles: by XLA's own estimate; collectives and custom kernels have none.
        flops: of convolutions and matrix products.
        bytes: operands and results of every instruction outside fusions; an upper bound of traffic,
            as it ignores that slices read a part of their operand.
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
        num_bytes: the larger of operands and results, per device and execution.
        times: how often the step executes it.
        groups: of devices, by position in the program's device assignment; () for all or unknown.
        leaves_slice: whether the host passes it on to another slice.
    """

    opcode: str
    module: str
    num_bytes: float
    times: float
    groups: tuple[tuple[int, ...], ...]
    leaves_slice: bool


@dataclasses.dataclass
class Program:
    """All computations of a compiled program; `entry` names the one that runs."""

    computations: dict[str, dict[str, Instruction]]
    entry: str
    texts: dict[str, str]

    def costs(self) -> dict[str, Cost]:
        """Cost per part: every name of `MODULES` and "other"."""
        total = {name: Cost() for name in (*MODULES, OTHER)}
        for instruction, times in self.walk():
            cost, name = self._cost(instruction), module_of(self._op_name(instruction))
            total[name].add(dataclasses.replace(cost, flops=0.0), times)
            if cost.flops:  # a fusion may hold products of two parts
                for inner in self._nested(instruction):
                    total[module_of(inner.op_name)].flops += times * self._flops(inner)
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
                    found.append(
                        Collective(
                            opcode,
                            module_of(inner.op_name or instruction.op_name),
                            self._moved(inner, opcode),
                            times,
                            parse_groups(inner.text),
                            "is_host_transfer=true" in inner.text,
                        )
                    )
        return found

    def repeated(self) -> Cost:
        """What XLA's totals leave out: all runs but the first of every loop body."""
        total = Cost()
        for instruction, times in self.walk():
            total.add(self._cost(instruction), times - 1.0)
        return total

    def walk(self) -> Iterator[tuple[Instruction, float]]:
        """Instructions that run, outside fusions, each with how often."""
        yield from self._walk(self.entry, 1.0)

    def _walk(self, computation: str, times: float) -> Iterator[tuple[Instruction, float]]:
        for instruction in self.computations[computation].values():
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

    def _loop(self, instruction: Instruction) -> tuple[str, int]:
        called = dict(re.findall(r"(body|condition)=%?([\w.\-]+)", instruction.text))
        known = _TRIP_COUNT.search(instruction.text)
        if known:
            return called["body"], int(known.group(1))
        # A counted loop compares its counter with the only large constant of its condition.
        limits = [int(value) for value in _CONSTANT.findall(self.texts[called["condition"]])]
        return called["body"], max(limits, default=1)

    def _dearest(self, instruction: Instruction) -> str:
        branches = _BRANCHES.search(instruction.text)
        names = _NAME.findall(branches.group(1)) if branches else _CALLED.findall(instruction.text)

        def cycles(name: str) -> float:
            return sum(times * self._cost(inner).cycles for inner, times in self._walk(name, 1.0))

        return max(names, key=cycles)

    def _nested(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instruction and, of fusions and asynchronous wrappers, what they call."""
        yield instruction
        if instruction.opcode in ("fusion", "async-start"):
            for name in _CALLED.findall(instruction.text):
                for inner in self.computations.get(name, {}).values():
                    yield from self._nested(inner)

    def _op_name(self, instruction: Instruction) -> str:
        """Of the last product in a fusion if it has one: the fusion bears the name of what
        follows."""
        nested = list(self._nested(instruction))
        products = [inner.op_name for inner in nested if inner.opcode in ("convolution", "dot")]
        names = [*reversed(products), instruction.op_name, *(inner.op_name for inner in nested)]
        return next((name for name in names if name), "")

    def _cost(self, instruction: Instruction) -> Cost:
        if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            return Cost()
        cycles = _CYCLES.search(instruction.text)
        flops = sum(self._flops(inner) for inner in self._nested(instruction))
        return Cost(
            cycles=float(cycles.group(1)) if cycles else 0.0,
            flops=flops,
            bytes=self._operand_bytes(instruction) + shape_bytes(instruction.shape),
        )

    @functools.cached_property
    def _shapes(self) -> dict[str, str]:
        return {
            instruction.name: instruction.shape
            for computation in self.computations.values()
            for instruction in computation.values()
        }

    def _operand_bytes(self, instruction: Instruction) -> float:
        return sum(shape_bytes(self._shapes.get(name, "")) for name in set(instruction.operands))

    def _moved(self, instruction: Instruction, opcode: str) -> float:
        operands = self._operand_bytes(instruction)
        if opcode == "all-gather":
            groups = parse_groups(instruction.text)
            return operands * len(groups[0]) if groups else shape_bytes(instruction.shape)
        return operands

    def _flops(self, instruction: Instruction) -> float:
        if instruction.opcode == "convolution":
            lhs, rhs = (self._shapes.get(name, "") for name in instruction.operands[:2])
            return convolution_flops(instruction.text, lhs, rhs, instruction.shape)
        if instruction.opcode == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", instruction.text)
            sizes = dimensions(self._shapes.get(instruction.operands[0], ""))
            inner = [sizes[axis] for axis in _sizes(contracted.group(1))] if contracted else []
            return 2.0 * float(np.prod(dimensions(instruction.shape)) * np.prod(inner))
        return 0.0


def parse(text: str) -> Program:
    """Reads the text of a compiled HLO module.

    Args:
        text: `compiled.as_text()`.

    Raises:
        ValueError: where it has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    texts: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            current = header.group(2) if header and "->" in line else ""
            if current:
                computations[current], texts[current] = {}, []
                entry = current if header.group(1) else entry
        elif current:
            instruction = _parse_instruction(line)
            texts[current].append(line)
            if instruction:
                computations[current][instruction.name] = instruction
    if not entry:
        raise ValueError(
            "the text must be a compiled HLO module with an ENTRY computation, got none"
        )
    return Program(computations, entry, {name: "\n".join(lines) for name, lines in texts.items()})


def module_of(op_name: str) -> str:
    """The part of the model that an op_name belongs to: the outermost scope of `MODULES` in it."""
    found = re.search(rf"(?<![\w.])({'|'.join(MODULES)})(?!\w)", op_name)
    return found.group(1) if found else OTHER


def shape_bytes(shape: str) -> float:
    """Bytes of all arrays in the text of a shape, without padding."""
    return float(
        sum(
            _element_bytes(dtype) * np.prod(_sizes(sizes)) for dtype, sizes in _SHAPE.findall(shape)
        )
    )


def dimensions(shape: str) -> tuple[int, ...]:
    """Sizes of the first array in the text of a shape."""
    found = _SHAPE.search(shape)
    return tuple(_sizes(found.group(2))) if found else ()


def convolution_flops(attributes: str, lhs: str, rhs: str, result: str) -> float:
    """FLOPs of a convolution without the products that meet padding or holes, as XLA counts them.

    Args:
        attributes: text with window={...} and dim_labels=...
        lhs: text of the input's shape.
        rhs: text of the kernel's shape.
        result: text of the result's shape.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    sizes = [
        dict(zip(order, dimensions(shape)))
        for order, shape in zip(labels.groups(), (lhs, rhs, result))
    ]
    spatial = [label for label in labels.group(3) if label.isdigit()]
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(item.split("=") for item in window.group(1).split()) if window else {}
    products = 2.0 * sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"]
    for axis, label in enumerate(spatial):

        def field(name: str, default: str) -> str:
            return fields[name].split("x")[axis] if name in fields else default

        low, _ = (int(side) for side in field("pad", "0_0").split("_"))
        products *= _valid_positions(
            size=sizes[0][label],
            window=sizes[1][label],
            outputs=sizes[2][label],
            stride=int(field("stride", "1")),
            low=low,
            lhs_dilation=int(field("lhs_dilate", "1")),
            rhs_dilation=int(field("rhs_dilate", "1")),
        )
    return products


def parse_groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """Device groups of a collective in any of XLA's notations; () where none are given."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", attributes)
    if listed:
        groups = re.findall(r"\{([0-9,]*)\}", listed.group(1))
        return tuple(tuple(_sizes(group)) for group in groups)
    iota = re.search(r"replica_groups=\[([0-9,]+)\]<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?", attributes)
    if iota:
        ids = np.arange(np.prod(_sizes(iota.group(2)))).reshape(_sizes(iota.group(2)))
        ids = ids.transpose(_sizes(iota.group(3))) if iota.group(3) else ids
        return tuple(map(tuple, ids.reshape(_sizes(iota.group(1))).tolist()))
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes)
    if mesh:
        axes = re.findall(r"'(\w+)'=(\d+)", mesh.group(1))
        chosen = re.findall(r"'(\w+)'", mesh.group(2))
        sizes = [int(size) for _, size in axes]
        ids = np.arange(np.prod(sizes)).reshape(sizes)
        grouped = [i for i, (name, _) in enumerate(axes) if name in chosen]
        rest = [i for i in range(len(axes)) if i not in grouped]
        length = int(np.prod([ids.shape[i] for i in grouped]))
        return tuple(map(tuple, ids.transpose(rest + grouped).reshape(-1, length).tolist()))
    return ()


def _parse_instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    name, rest = found.groups()
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.find("(")
    if start < 0:
        return None
    end = _closing(rest, start)
    operands = tuple(_NAME.findall(rest[start:end]))
    return Instruction(name, shape, rest[:start], operands, rest[end + 1 :])


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return len(text)


def _valid_positions(
    *,
    size: int,
    window: int,
    outputs: int,
    stride: int,
    low: int,
    lhs_dilation: int,
    rhs_dilation: int,
) -> int:
    """Pairs of (output, tap) along one axis that meet an element of the input."""
    taps = np.arange(window) * rhs_dilation - low
    extent = (size - 1) * lhs_dilation + 1
    count = 0
    # Whole outer sums at once where they are small; a long window goes tap by tap.
    for part in np.array_split(taps, max(1, window * outputs // 2**22)):
        reached = np.add.outer(np.arange(outputs) * stride, part)
        count += int(np.sum((reached >= 0) & (reached < extent) & (reached % lhs_dilation == 0)))
    return count


def _element_bytes(dtype: str) -> float:
    if dtype in _BYTES:
        return _BYTES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return int(bits.group(1)) / 8 if bits else 0.0


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]
