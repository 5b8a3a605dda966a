# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run folder tells afterwards: config, curves, results, sounds; read without trust."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from data_pipelines.records import sealed
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import ledger as ledger_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib
from f3tok_jax.runs import saved_states
from f3tok_jax.runs import sealed_lines
from f3tok_jax.runs import summed_folder
from f3tok_jax.runs import typed_json

# Where the programs' results lie in a run folder; what kind each is, the file says itself.
_RESULTS = ("results*.json", "probe*.json", "ablation*.json", "transcripts*.json")
_SAMPLE_NAME = re.compile(r"(\d{1,9})_(\w+)\.wav")
_SAMPLE_RATES = range(1_000, 768_001)  # Hz, of sounds that are shown


@dataclasses.dataclass(frozen=True)
class Curve:
    """The values of one metric: steps and values of one length, in order, all finite.

    Of `read_curves` with gaps, a value that was not finite is NaN.
    """

    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunHistory:
    """One run: what its folder holds, and as notes what was missing or damaged."""

    name: str  # unique among those read together
    folder: pathlib.Path
    config: Mapping[str, Any]  # dotted key -> value, {} if there is none
    curves: Mapping[str, Curve]  # by metric, in the order in which they appear
    results: Mapping[str, results_lib.Result]  # file name -> what a program found out
    samples: Mapping[int, Mapping[int, Mapping[str, pathlib.Path]]]  # step, index, name -> sound
    is_done: bool
    ledger: ledger_lib.Ledger  # what its time went to, empty of a run from before it was kept
    notes: Sequence[str]  # sentences

    def of(self, *kinds: type) -> dict[str, Any]:
        """The results of some kinds."""
        return {name: one for name, one in self.results.items() if isinstance(one, kinds)}


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
    notes: list[str] = []
    config = _read_config(folder / "config.json", notes)
    curves = read_curves(folder / "metrics.jsonl", notes)
    results = {}
    for path in (path for pattern in _RESULTS for path in sorted(folder.glob(pattern))):
        try:
            results[path.name] = results_lib.read(path)
        except ValueError as error:
            notes.append(f"{error}.")
    if not (config or curves) and all(_is_of_others(one, folder) for one in results.values()):
        # The folder of an ablation, whose runs lie below it, or of figures of an exported model.
        notes = [note for note in notes if not note.startswith("No ")]
    if not (config or curves or results):
        missing = "config.json, metrics.jsonl or results*.json"
        raise ValueError(f"{folder} has no {missing}: give the --workdir of a run")
    return RunHistory(
        name=name,
        folder=folder,
        config=config,
        curves=curves,
        results=results,
        samples=_find_samples(folder / "samples"),
        is_done=_is_done(folder, config, curves),
        ledger=_read_ledger(folder, notes),
        notes=notes,
    )


def _is_of_others(result: results_lib.Result, folder: pathlib.Path) -> bool:
    """Whether what a result is of lies elsewhere, as it says itself."""
    if isinstance(result, probe_results.Ablation):
        return True
    measured = getattr(result, "workdir", "")
    return bool(measured) and pathlib.Path(measured).resolve() != folder


def read_sound(path: pathlib.Path, *, root: pathlib.Path, seconds: float) -> tuple[np.ndarray, int]:
    """Reads the start of a sound file that lies inside `root`.

    Returns:
        [n] float32 in [-1, 1], at least one sample, the mean of its channels, and its rate in Hz.

    Raises:
        ValueError: if the path leads out of `root`, or the file is not sound or not the one that
            was written there.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads out of {root}")
    summed_folder.check(path)
    try:
        with audio_files.opened(path) as sound:
            if sound.sample_rate not in _SAMPLE_RATES:
                raise ValueError(f"{path.name} has a sample rate of {sound.sample_rate} Hz")
            wanted, blocks, num_read = round(seconds * sound.sample_rate), [], 0
            for block in sound.blocks:
                blocks.append(block[: wanted - num_read].mean(axis=1))
                num_read += len(block)
                if num_read >= wanted:
                    break
    except refusals.Refused as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if not num_read:
        raise ValueError(f"{path.name} is empty")
    return np.clip(np.nan_to_num(np.concatenate(blocks)), -1.0, 1.0), sound.sample_rate


def _read_config(path: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    """Dotted key -> value, {} with a note where there is none."""
    try:
        return config_lib.flatten(sealed.opened(typed_json.read_object(path), path.name))
    except ValueError as error:
        notes.append(f"No {path.name}." if not path.exists() else f"{error}.")
        return {}


def read_curves(path: pathlib.Path, notes: list[str], *, gaps: bool = False) -> dict[str, Curve]:
    """The finite numbers of metrics.jsonl by name; a step taken twice counts the second time.

    Args:
        path: of the file, on a disk or (epath.Path) in a bucket.
        notes: gets a sentence for all that is missing or damaged.
        gaps: whether what was not finite, null in the file, is NaN instead of left out.
    """
    if not path.exists() or ("://" not in str(path) and not os.path.isfile(path)):
        notes.append(f"No {path.name}.")
        return {}
    points: dict[str, dict[float, float]] = {}
    num_damaged = num_infinite = 0
    try:
        with path.open("rb") as file:
            for line in sealed_lines.read(file):
                values = line.content or {}
                step = values.pop("step", None)
                if not typed_json.is_number(step):
                    num_damaged += 1
                    continue
                for name, value in values.items():
                    if typed_json.is_number(value):
                        points.setdefault(name, {})[float(step)] = float(value)
                    elif gaps and (value is None or isinstance(value, float)):
                        points.setdefault(name, {})[float(step)] = math.nan
                    elif isinstance(value, (int, float)):
                        num_infinite += 1
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}.")
    if num_damaged:
        notes.append(
            f"{num_damaged} lines of {path.name} are damaged or not as they were written, and left "
            "out; a killed run leaves one."
        )
    if num_infinite:
        notes.append(f"{num_infinite} values in {path.name} are not finite and not drawn.")
    return {name: Curve(*zip(*sorted(values.items()))) for name, values in points.items()}


def _read_ledger(folder: pathlib.Path, notes: list[str]) -> ledger_lib.Ledger:
    """What its time went to, with a note where some of that is not known."""
    found = ledger_lib.read(str(folder))
    if found.num_damaged:
        damaged = f"{found.num_damaged} lines of {ledger_lib.NAME} are damaged"
        notes.append(f"{damaged}: the time that they tell of is missing.")
    return found


def _is_done(folder: pathlib.Path, config: Mapping[str, Any], curves: Mapping[str, Curve]) -> bool:
    """Whether a run has taken all its steps, by its checkpoints or, where it has none, its curves.

    A folder that was copied to be looked at may lack them.
    """
    num_steps = config.get("num_steps")
    if not typed_json.is_number(num_steps) or not (folder / "DONE").exists():
        return False
    if saved_states.steps(str(folder)):
        return run_folder.done_step(str(folder), num_steps) is not None
    return max((curve.steps[-1] for curve in curves.values()), default=0) >= num_steps


def _find_samples(folder: pathlib.Path) -> dict[int, dict[int, dict[str, pathlib.Path]]]:
    samples: dict[int, dict[int, dict[str, pathlib.Path]]] = {}
    for path in sorted(folder.glob("*/*.wav")):
        match = _SAMPLE_NAME.fullmatch(path.name)
        if match and path.parent.name.isdecimal():
            at_step = samples.setdefault(int(path.parent.name), {})
            at_step.setdefault(int(match[1]), {})[match[2]] = path
    return samples
