# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled HLO as text: computations, instructions, shapes, device groups, convolutions."""

import dataclasses
import functools
import re

import numpy as np

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5, "token": 0}
_SHAPE = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](?:\{([^{}]*)\})?")
_TILE = re.compile(r":T\(([0-9,]+)\)")
_MEMORY = re.compile(r"S\(\d+\)")
_NAME = re.compile(r"%([\w.\-]+)")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in its module.
        shape: text of the result's shape, a tuple's in brackets.
        opcode: such as "fusion".
        operands: names; of a parameter, its number.
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


@dataclasses.dataclass(frozen=True)
class Text:
    """All computations of a compiled program, as read.

    Attributes:
        computations: name -> instructions by name, in order.
        entry: the computation that runs.
        lines: name -> text of a computation.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str
    lines: dict[str, str]

    @functools.cached_property
    def shapes(self) -> dict[str, str]:
        """Name of an instruction -> text of its result's shape."""
        computations = self.computations.values()
        return {one.name: one.shape for found in computations for one in found.values()}


def parse(text: str) -> Text:
    """Reads the text of a compiled HLO module.

    Args:
        text: `compiled.as_text()`.

    Raises:
        ValueError: where it has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    texts: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in _joined(text):
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
        raise ValueError("the text must be compiled HLO with an ENTRY computation, got none")
    return Text(computations, entry, {name: "\n".join(lines) for name, lines in texts.items()})


def _joined(text: str) -> list[str]:
    """Lines of `text`; attributes of kernels that span several are put back into one."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(('"', "}}")) and lines:
            lines[-1] += line
        else:
            lines.append(line)
    return lines


def dtype_bytes(shape: str) -> dict[str, float]:
    """Bytes of all arrays in the text of a shape, without padding, by the type of an element, such as
    "bf16"."""
    found: dict[str, float] = {}
    for dtype, sizes, _ in _SHAPE.findall(shape):
        found[dtype] = found.get(dtype, 0.0) + _array_bytes(dtype, numbers(sizes))
    return found


def arrays(shape: str) -> list[str]:
    """Texts of the arrays in the text of a shape, each with its layout."""
    return [found.group(0) for found in _SHAPE.finditer(shape)]


def stored_bytes(shape: str) -> float:
    """Bytes of all arrays in the text of a shape, as they lie in memory: whole tiles.

    The layout "{2,1,0:T(8,128)}" names the axes from the innermost on, and the tile of the last of
    them: rows of 64 take as much as rows of 128.
    """
    return sum(_stored(*found) for found in _SHAPE.findall(shape))


def hbm_bytes(shape: str) -> float:
    """The bytes of `stored_bytes` that lie in a chip's main memory.

    A layout that names a memory, as in "{1,0:T(8,128)S(1)}", names another: 1 is the vector memory
    (VMEM) beside the cores, 2 that of scalars and semaphores, 5 the host's.
    """
    found = _SHAPE.findall(shape)
    return sum(_stored(*one) for one in found if not _MEMORY.search(one[2]))


def dimensions(shape: str) -> tuple[int, ...]:
    """Sizes of the first array in the text of a shape."""
    found = _SHAPE.search(shape)
    return tuple(numbers(found.group(2))) if found else ()


def convolution_flops(attributes: str, lhs: str, rhs: str, result: str) -> float:
    """FLOPs of a convolution without the products that meet padding or holes, as XLA counts them.

    Args:
        attributes: text with window={...} and dim_labels=...
        lhs: text of the input's shape.
        rhs: text of the kernel's shape.
        result: text of the result's shape.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    orders = zip(labels.groups(), (lhs, rhs, result))
    sizes = [dict(zip(order, dimensions(shape))) for order, shape in orders]
    # The window names its sizes by the axes' numbers, whose order in an array is the layout's.
    spatial = sorted(int(label) for label in labels.group(3) if label.isdigit())
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(item.split("=") for item in window.group(1).split()) if window else {}
    products = 2.0 * sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"]
    for axis in spatial:
        label = str(axis)

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
        return tuple(tuple(numbers(group)) for group in groups)
    iota = re.search(r"replica_groups=\[([0-9,]+)\]<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?", attributes)
    if iota:
        ids = np.arange(np.prod(numbers(iota.group(2)))).reshape(numbers(iota.group(2)))
        ids = ids.transpose(numbers(iota.group(3))) if iota.group(3) else ids
        return tuple(map(tuple, ids.reshape(numbers(iota.group(1))).tolist()))
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
    if rest[:start] == "parameter":
        operands = (rest[start + 1 : end],)
    return Instruction(name, shape, rest[:start], operands, rest[end + 1 :])


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return len(text)


def _valid_positions(*, size, window, outputs, stride, low, lhs_dilation, rhs_dilation) -> int:
    """Pairs of (output, tap) along one axis that meet an element of the input."""
    taps = np.arange(window) * rhs_dilation - low
    extent = (size - 1) * lhs_dilation + 1
    count = 0
    # Whole outer sums at once where they are small; a long window goes tap by tap.
    for part in np.array_split(taps, max(1, window * outputs // 2**22)):
        reached = np.add.outer(np.arange(outputs) * stride, part)
        count += int(np.sum((reached >= 0) & (reached < extent) & (reached % lhs_dilation == 0)))
    return count


def _stored(dtype: str, sizes: str, layout: str) -> float:
    tile, lengths = _TILE.search(layout), numbers(sizes)
    if tile:
        order = numbers(layout.split(":")[0])
        for axis, size in zip(order, reversed(numbers(tile.group(1)))):
            lengths[axis] = -(-lengths[axis] // size) * size
    return _array_bytes(dtype, lengths)


def _array_bytes(dtype: str, sizes: list[int]) -> float:
    return float(_element_bytes(dtype) * np.prod(sizes))


def _element_bytes(dtype: str) -> float:
    if dtype in _BYTES:
        return _BYTES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return int(bits.group(1)) / 8 if bits else 0.0


def numbers(text: str) -> list[int]:
    """Numbers of a list such as "3,4"."""
    return [int(size) for size in text.split(",") if size]
