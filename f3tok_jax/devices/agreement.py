# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the processes of a run start alike, and who does not."""

from collections.abc import Mapping
import dataclasses

_MOST_NAMED = 8
_WIDEST = 60  # characters of a value in a table


class Differing(ValueError):
    """Processes that differ, in one sentence; `table` has a line per fact and value, with who."""

    def __init__(self, sentence: str, table: str):
        super().__init__(sentence)
        self.table = table


@dataclasses.dataclass(frozen=True)
class Start:
    """How one process starts: the name of its host, and what must be the same in all."""

    host: str
    facts: Mapping[str, str]


def check(starts: Mapping[int, Start]) -> None:
    """Compares how processes start.

    Args:
        starts: process -> how it starts.

    Raises:
        Differing: where not all have the same facts.
    """
    names = sorted({name for start in starts.values() for name in start.facts})
    rows, odd = [], set()
    for name in names:
        having: dict[str, list[int]] = {}
        for process in sorted(starts):
            having.setdefault(str(starts[process].facts.get(name)), []).append(process)
        if len(having) > 1:
            # What most have, or process 0 where as many have either, is taken for right.
            usual, *others = sorted(having, key=lambda value: (-len(having[value]), having[value]))
            rows += [(name, value, named(having[value], starts)) for value in (usual, *others)]
            odd |= {process for value in others for process in having[value]}
    if rows:
        differing = ", ".join(dict.fromkeys(row[0] for row in rows))
        raise Differing(
            f"all processes of a run must start alike, got others in {named(sorted(odd), starts)} of "
            f"{len(starts)}: {differing}; install the same lock file and give the same command "
            "everywhere",
            _table([("fact", "value", "processes"), *rows]),
        )


def named(processes: list[int], starts: Mapping[int, Start]) -> str:
    """Processes with the names of their hosts; of many the first."""
    hosts = [f"{one} ({starts[one].host})" for one in processes[:_MOST_NAMED]]
    more = len(processes) - len(hosts)
    return ", ".join(hosts) + (f" and {more} more" if more else "")


def _table(rows: list[tuple[str, str, str]]) -> str:
    rows = [tuple(_short(cell) for cell in row[:2]) + row[2:] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{one:{widths[0]}}  {two:{widths[1]}}  {who}" for one, two, who in rows)


def _short(value: str) -> str:
    """A value on one line; of a long one its beginning and its end."""
    value = " ".join(value.split())
    half = (_WIDEST - 3) // 2
    return value if len(value) <= _WIDEST else f"{value[:half]}...{value[-half:]}"
