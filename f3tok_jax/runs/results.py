# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What probes and ablations write, read back as tables; without trust."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

# "format" of the files
PROBE, ABLATION, TRANSCRIPTS = "f3tok probe 1", "f3tok ablation 1", "f3tok transcripts 1"
COMMONEST = "commonest"  # name of the row that knows nothing of the sound
TITLES = {
    COMMONEST: "always the commonest",
    "log_mel": "log-mel statistics",
    "latents": "raw latents",
    "representations": "representations",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """What is predicted, and on what: a label, a test set, its examples."""

    label: str
    test: str
    num_examples: int
    num_unseen: int = 0  # of them of classes that were not learnt
    is_error: bool = False  # of transcripts: the less the better


@dataclasses.dataclass(frozen=True)
class Cell:
    """An accuracy of the linear probe, or an error rate, its spread, and that of neighbours."""

    mean: float
    spread: float | None = None
    neighbours: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Accuracies of probes.

    Attributes:
        columns: see there.
        cells: name of a row -> a cell per column, None where it was not measured.
        seeds: over which the spread is, in words.
        facts: how it was measured, as a sentence each.
        arms: of an ablation, name -> what it changes; {} of a run's probes.
    """

    columns: tuple[Column, ...]
    cells: Mapping[str, tuple[Cell | None, ...]]
    seeds: str
    facts: tuple[str, ...]
    arms: Mapping[str, str]


def parse(content: Mapping[str, Any]) -> Table:
    """Makes a table of what `probe` or `ablation` wrote.

    Raises:
        ValueError: if it is neither, or damaged.
    """
    if content.get("format") not in (PROBE, ABLATION):
        raise ValueError(f"its format must be {PROBE!r} or {ABLATION!r}")
    try:
        return _parse(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"it is damaged: {type(error).__name__}, {error}") from error


def _parse(content: Mapping[str, Any]) -> Table:
    columns, found = [], []
    names = [name for of_label in content["labels"].values() for name in of_label["tests"]]
    for label, of_label in content["labels"].items():
        for name, test in of_label["tests"].items():
            counts = int(test["num_examples"]), int(test["num_unseen"])
            columns.append(Column(label, _short(name, names), *counts))
            found.append({COMMONEST: Cell(_finite(test["majority"])), **_cells(test)})
    for name, of_set in content.get("transcripts", {}).items():
        for kind in ("characters", "words"):
            label = f"wrong {kind}"
            columns.append(Column(label, name, int(of_set["num_examples"]), is_error=True))
            found.append(
                {
                    str(row["name"]): Cell(_finite(row[kind]["mean"]), _finite(row[kind]["std"]))
                    for row in of_set["rows"]
                }
            )
    rows = list(dict.fromkeys(name for cells in found for name in cells))
    is_ablation = content["format"] == ABLATION
    seeds = f"{int(content['num_seeds'])} seeds of the linear probe"
    if is_ablation:
        seeds = f"{len(content['seeds'])} seeds of the training and {seeds}"
    return Table(
        columns=tuple(columns),
        cells={name: tuple(cells.get(name) for cells in found) for name in rows},
        seeds=seeds,
        facts=_facts(content),
        arms={
            str(name): ", ".join(map(str, changes)) or "both losses"
            for name, changes in (content["arms"].items() if is_ablation else ())
        },
    )


@dataclasses.dataclass(frozen=True)
class Transcripts:
    """Error rates of a run's transcripts, and some of them as (what was said, what was heard)."""

    num_examples: int
    characters: float
    words: float
    pairs: tuple[tuple[str, str], ...]


def parse_transcripts(content: Mapping[str, Any]) -> Transcripts:
    """Makes rates of what `transcripts` wrote.

    Raises:
        ValueError: if it is something else, or damaged.
    """
    if content.get("format") != TRANSCRIPTS:
        raise ValueError(f"its format must be {TRANSCRIPTS!r}")
    try:
        return Transcripts(
            int(content["num_examples"]),
            _finite(content["characters"]),
            _finite(content["words"]),
            tuple((str(one["reference"]), str(one["hypothesis"])) for one in content["examples"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"it is damaged: {type(error).__name__}, {error}") from error


def _cells(test: Mapping[str, Any]) -> dict[str, Cell]:
    """A cell per row of one column, from either format."""
    cells = {}
    if "rows" in test:
        for row in test["rows"]:
            spread, neighbours = _finite(row["linear"]["std"]), _finite(row["neighbours"]["mean"])
            cells[str(row["name"])] = Cell(_finite(row["linear"]["mean"]), spread, neighbours)
    else:
        for name, row in test["features"].items():
            spread, neighbours = _finite(row["linear"]["std"]), _finite(row["neighbours"])
            cells[name] = Cell(_finite(row["linear"]["mean"]), spread, neighbours)
    return cells


def _facts(content: Mapping[str, Any]) -> tuple[str, ...]:
    facts = [f"Frames are pooled over time by {content['pooling']}."]
    if "num_steps" in content:
        facts.append(f"Every arm was trained for {int(content['num_steps']):,} steps.")
    if content["exclude"]:
        facts.append(f"Kept out of what probes learn: {', '.join(content['exclude'])}.")
    if content["only"]:
        facts.append(f"Tested alone: {', '.join(content['only'])}.")
    return tuple(facts)


def _short(name: str, names: Sequence[str]) -> str:
    """The last part of a path, where that tells it from the others."""
    last = pathlib.PurePath(name).name
    others = {pathlib.PurePath(other).name for other in names if other != name}
    return name if last in others or not last else last


def _finite(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
