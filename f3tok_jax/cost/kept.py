# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept of a compiled program: enough to measure it again without compiling it."""

from collections.abc import Mapping
import dataclasses
import gzip
import json
import pathlib

import jax

from data_pipelines.records import atomic
from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import opcodes

_MEMORY = {
    "peak": "peak_memory_in_bytes",
    "arguments": "argument_size_in_bytes",
    "outputs": "output_size_in_bytes",
    "donated": "alias_size_in_bytes",
    "temporary": "temp_size_in_bytes",
    "code": "generated_code_size_in_bytes",
}


@dataclasses.dataclass(frozen=True)
class Kept:
    """A compiled program of one device, as its compiler describes it.

    Attributes:
        text: HLO.
        memory: bytes by what they are for.
        schedules: texts of the final schedules of its kernels, by name of instruction; of calls of
            one kernel there may be one.
        seconds: of compiling it, by the clock and of CPU.
        made_for: what it was compiled for, in words that differ where that does.
    """

    text: str
    memory: Mapping[str, float]
    schedules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    made_for: str = ""

    def write(self, path: pathlib.Path) -> None:
        """Writes it to a file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, gzip.compress(json.dumps(dataclasses.asdict(self)).encode()))


def of(
    compiled: jax.stages.Compiled,
    schedules: Mapping[str, str],
    seconds: tuple[float, float] = (0.0, 0.0),
    made_for: str = "",
) -> Kept:
    """What is kept of `compiled`.

    Args:
        compiled: for a TPU.
        schedules: that were written while it was compiled.
        seconds: that took.
        made_for: as in `Kept`.
    """
    text, memory = compiled.as_text(), compiled.memory_analysis()
    computations = hlo_text.parse(text).computations.values()
    calls = {one.name for found in computations for one in found.values() if opcodes.target(one)}
    return Kept(
        text=text,
        memory={name: float(getattr(memory, field)) for name, field in _MEMORY.items()},
        schedules={name: found for name, found in schedules.items() if name in calls},
        seconds=seconds,
        made_for=made_for,
    )


def read(path: pathlib.Path, made_for: str) -> Kept:
    """Reads what `Kept.write` wrote.

    Raises:
        ValueError: where the file is another, or of a program that was compiled for something else.
    """
    try:
        fields = json.loads(gzip.decompress(path.read_bytes()))
        kept = Kept(**fields | {"seconds": tuple(fields["seconds"])})
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} must be a program that compile_check has kept: {error}"
        ) from error
    if kept.made_for != made_for:
        raise ValueError(
            f"{path} must be of a program for {made_for}, got one for {kept.made_for}: name another "
            "file, or remove it"
        )
    return kept
