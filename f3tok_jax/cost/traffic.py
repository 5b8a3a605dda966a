# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes that a compiled program moves between a chip and its main memory (HBM).

The layout of an array says in which memory it lies: what stays in vector memory (VMEM) is not
counted, and what is fetched there ahead of time is counted once, at the fetch. Arrays are as large as
the tiles that they fill.
"""

import dataclasses

from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import opcodes


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Of the instructions of a program outside fusions; `text` is that of the program."""

    text: hlo_text.Text

    def of(self, instruction: hlo_text.Instruction) -> float:
        """Bytes that an instruction reads from the main memory and writes to it.

        Operands and results; of an operand that is only sliced, the slices, and of one that is
        updated in place, the update. A product that needs an operand several times is taken to keep
        it.
        """
        opcode, shape = instruction.opcode, instruction.shape
        if opcode in opcodes.FREE or opcode.endswith("-done"):
            return 0.0
        if opcodes.target(instruction) in opcodes.FREE_CALLS:
            return 0.0
        if opcode in opcodes.FETCHES:
            return self._fetched(instruction)
        if opcode in opcodes.SLICES:
            is_read = bool(hlo_text.hbm_bytes(self._shape(instruction.operands[0])))
            return hlo_text.hbm_bytes(shape) + is_read * hlo_text.stored_bytes(shape)
        if opcode in opcodes.UPDATES:
            return 2.0 * self._update(instruction)
        operands = set(instruction.operands)
        if opcode in opcodes.HOLDING:
            return hlo_text.hbm_bytes(shape)
        if opcode != "fusion":
            read = sum(hlo_text.hbm_bytes(self._shape(name)) for name in operands)
            return read + hlo_text.hbm_bytes(shape)
        (name,) = opcodes.called(instruction)
        read = {
            operand: self._read(name, index)
            for index, operand in enumerate(instruction.operands)
            if hlo_text.hbm_bytes(self._shape(operand))
        }
        return sum(read.values()) + self._written(name, shape) + self._gathered(name)

    def _fetched(self, instruction: hlo_text.Instruction) -> float:
        """Of a copy or slice between memories: as much leaves the one as comes to the other."""
        arrays = hlo_text.arrays(instruction.shape)
        # A copy names what it makes first, a slice after what it is of.
        made = arrays[0 if instruction.opcode == "copy-start" else len(instruction.operands)]
        ends = (self._shape(instruction.operands[0]), made)
        return sum(bool(hlo_text.hbm_bytes(end)) for end in ends) * hlo_text.stored_bytes(made)

    def _update(self, instruction: hlo_text.Instruction) -> float:
        """Bytes of what is written in place, where that is main memory."""
        update = self._shape(instruction.operands[opcodes.UPDATES[instruction.opcode]])
        return bool(hlo_text.hbm_bytes(instruction.shape)) * hlo_text.stored_bytes(update)

    def _read(self, computation: str, index: int) -> float:
        """Bytes that a fused computation reads of its parameter `index`, wherever that lies."""
        inner = self.text.computations[computation]
        parameters = (found for found in inner.values() if found.opcode == "parameter")
        parameter = next(found for found in parameters if found.operands == (str(index),))
        whole, read = hlo_text.stored_bytes(parameter.shape), 0.0
        for user in inner.values():
            if user.opcode in ("parameter", "tuple") or parameter.name not in user.operands:
                continue
            is_first = user.operands[0] == parameter.name
            if user.opcode in opcodes.SLICES and is_first:
                read += hlo_text.stored_bytes(user.shape)
            elif user.opcode == "fusion":
                (called,) = opcodes.called(user)
                places = [i for i, name in enumerate(user.operands) if name == parameter.name]
                read += sum(self._read(called, place) for place in places)
            elif not _hands_on(user) and (user.opcode not in opcodes.UPDATES or not is_first):
                return whole
        return min(whole, read)

    def _written(self, computation: str, shape: str) -> float:
        """Bytes that a fused computation writes of its result."""
        inner = self.text.computations[computation]
        *_, root = inner.values()
        made, shapes = (root.name,), [shape]
        if root.opcode == "tuple":
            made, shapes = root.operands, hlo_text.arrays(shape)
        written = sum(
            hlo_text.hbm_bytes(found)
            for one, found in zip((inner[name] for name in made), shapes)
            if not _hands_on(one)
        )
        for one in inner.values():
            if one.opcode in opcodes.UPDATES:
                written -= max(0.0, hlo_text.hbm_bytes(one.shape) - self._update(one))
        return max(0.0, written)

    def _gathered(self, computation: str) -> float:
        """Bytes of the collectives that a fused computation starts: what they send and receive."""
        return sum(
            hlo_text.hbm_bytes(one.shape)
            for one in self.text.computations[computation].values()
            if opcodes.target(one) == "AsyncCollectiveStart"
        )

    def _shape(self, name: str) -> str:
        return self.text.shapes.get(name, "")


def _hands_on(instruction: hlo_text.Instruction) -> bool:
    """Whether a fusion that has this neither reads nor writes its array, others doing so."""
    handed_on = ("parameter", "get-tuple-element", *opcodes.COLLECTIVES)
    return instruction.opcode in handed_on or opcodes.target(instruction) in opcodes.FREE_CALLS
