# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run folder tells afterwards: config, curves, results, sounds; read without trust."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import math
import pathlib
import re
from typing import Any

import numpy as np
import soundfile

from f3tok_jax.runs import results as results_lib

_MAX_JSON_BYTES = 2**28
_SAMPLE_NAME = re.compile(r"(\d+)_(\w+)\.wav")


@dataclasses.dataclass(frozen=True)
class Curve:
    """The values of one metric: steps and values of one length, in order, all finite."""

    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunHistory:
    """One run.

    Attributes:
        name: of the run, unique among those read together.
        folder: of the run.
        config: nested, {} if there is none.
        curves: metric -> its curve, in the order in which they appear.
        results: the evaluations, each what `evaluate` wrote with "folder", where its sounds lie.
        generations: evaluations of generated sound, likewise.
        tables: file name -> accuracies of probes that lie in the folder.
        transcripts: file name -> error rates that lie in the folder.
        samples: step -> index -> name -> sound file, of the sounds written while it trained.
        is_done: whether it was finished.
        notes: what was missing or damaged, as sentences.
    """

    name: str
    folder: pathlib.Path
    config: Mapping[str, Any]
    curves: Mapping[str, Curve]
    results: Sequence[Mapping[str, Any]]
    generations: Sequence[Mapping[str, Any]]
    tables: Mapping[str, results_lib.Table]
    transcripts: Mapping[str, results_lib.Transcripts]
    samples: Mapping[int, Mapping[int, Mapping[str, pathlib.Path]]]
    is_done: bool
    notes: Sequence[str]


def read_all(folders: Sequence[str]) -> list[RunHistory]:
    """Reads several runs and names them by what tells their paths apart.

    Raises:
        ValueError: if a folder is not there, is given twice, or holds nothing of a run.
    """
    paths = [pathlib.Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError(f"--runs must name different folders, got {', '.join(folders)}")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [read(path, name="/".join(path.parts[-depth:])) for path in paths]


def read(folder: pathlib.Path, *, name: str) -> RunHistory:
    """Reads one run.

    Args:
        folder: of the run.
        name: by which it is called.

    Raises:
        ValueError: if the folder is not there or holds nothing of a run.
    """
    if not folder.is_dir():
        raise ValueError(f"--runs must name run folders, got {folder}, which is not a folder")
    notes = []
    config = _read_json(folder / "config.json", notes)
    curves = _read_curves(folder / "metrics.jsonl", notes)
    results, generations = [], []
    for path in sorted(folder.glob("results*.json")):
        result = _read_json(path, notes)
        if "rows" in result and "metrics" in result:
            results.append(result | {"folder": path.parent, "file": path.name})
        elif "rows" in result and "texts" in result:
            generations.append(result | {"folder": path.parent, "file": path.name})
        elif result:
            notes.append(f"{path.name} is not an evaluation and is left out.")
    tables = _read_each(folder, ("probe*.json", "ablation*.json"), read_table, notes)
    transcripts = _read_each(folder, ("transcripts*.json",), read_transcripts, notes)
    if not (config or curves or results or generations or tables):
        raise ValueError(
            f"{folder} has no config.json, metrics.jsonl or results*.json: give the --workdir of "
            f"a run"
        )
    if not (config or curves or results):
        notes = []  # the folder of an ablation, whose runs lie below it
    return RunHistory(
        name=name,
        folder=folder,
        config=config,
        curves=curves,
        results=results,
        generations=generations,
        tables=tables,
        transcripts=transcripts,
        samples=_find_samples(folder / "samples"),
        is_done=(folder / "DONE").exists(),
        notes=notes,
    )


def read_table(path: pathlib.Path) -> results_lib.Table:
    """Reads what `probe` or `ablation` wrote.

    Raises:
        ValueError: if the file is not there, or something else.
    """
    return _parsed(path, results_lib.parse, "table of probes")


def read_transcripts(path: pathlib.Path) -> results_lib.Transcripts:
    """Reads what `transcripts` wrote; raises ValueError as `read_table` does."""
    return _parsed(path, results_lib.parse_transcripts, "file of transcripts")


def _parsed(path: pathlib.Path, parse: Callable[[Mapping[str, Any]], Any], kind: str) -> Any:
    notes: list[str] = []
    content = _read_json(path, notes)
    if notes:
        raise ValueError(notes[0].removesuffix("."))
    try:
        return parse(content)
    except ValueError as error:
        raise ValueError(f"{path.name} is no {kind}: {error}") from error


def _read_each(
    folder: pathlib.Path,
    patterns: Sequence[str],
    read: Callable[[pathlib.Path], Any],
    notes: list[str],
) -> dict[str, Any]:
    """File name -> content of the files that can be read, and notes on the others."""
    found = {}
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        try:
            found[path.name] = read(path)
        except ValueError as error:
            notes.append(f"{error}.")
    return found


def read_sound(path: pathlib.Path, *, root: pathlib.Path, seconds: float) -> tuple[np.ndarray, int]:
    """Reads the start of a sound file that lies inside `root`.

    Returns:
        [n] float32, the mean of its channels, and its rate in Hz.

    Raises:
        ValueError: if the path leads out of `root` or the file is not sound.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads out of {root}")
    try:
        with soundfile.SoundFile(path) as file:
            waveform = file.read(round(seconds * file.samplerate), dtype="float32", always_2d=True)
            return waveform.mean(axis=1), file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config -> dotted key -> value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json(path: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    """The JSON object of a file, {} with a note where there is none."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"larger than {_MAX_JSON_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return value
    except FileNotFoundError:
        notes.append(f"No {path.name}.")
    except (ValueError, OSError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read ({error}).")
    return {}


def _read_curves(path: pathlib.Path, notes: list[str]) -> dict[str, Curve]:
    """The finite numbers of metrics.jsonl by name; a step taken twice counts the second time."""
    if not path.is_file():
        notes.append(f"No {path.name}.")
        return {}
    points: dict[str, dict[float, float]] = {}
    num_damaged = num_infinite = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
                step = float(values.pop("step"))
            except (ValueError, KeyError, TypeError, AttributeError):
                num_damaged += 1
                continue
            for name, value in values.items():
                if not isinstance(value, (int, float)):
                    continue
                if math.isfinite(value):
                    points.setdefault(name, {})[step] = float(value)
                else:
                    num_infinite += 1
    if num_damaged:
        notes.append(f"{num_damaged} lines of {path.name} are damaged, as a killed run leaves one.")
    if num_infinite:
        notes.append(f"{num_infinite} values in {path.name} are not finite and not drawn.")
    return {name: Curve(*zip(*sorted(values.items()))) for name, values in points.items()}


def _find_samples(folder: pathlib.Path) -> dict[int, dict[int, dict[str, pathlib.Path]]]:
    samples: dict[int, dict[int, dict[str, pathlib.Path]]] = {}
    for path in sorted(folder.glob("*/*.wav")):
        match = _SAMPLE_NAME.fullmatch(path.name)
        if match and path.parent.name.isdigit():
            at_step = samples.setdefault(int(path.parent.name), {})
            at_step.setdefault(int(match[1]), {})[match[2]] = path
    return samples
