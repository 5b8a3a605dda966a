# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Trains every stage on as many devices by one, two and four processes: how far their runs are apart.

    python -m tests.reliability.processes --folder=DIR [--arms autoencoder generation]
    python -m tests.reliability.processes --summary --folder=DIR

Batches have to be the same to the last bit, and so have all runs of several processes, whose sums over
devices gloo takes. Within one process XLA takes them, in another order: its losses and weights differ
in the last bits of float32, of which a few steps make no more than _MOST. What was found is a line each
in DIR/<arm>/log.jsonl; an arm that is there is not trained again.
"""

from collections.abc import Iterator
import contextlib
import functools
import json
import pathlib
import shutil
import sys
from typing import Any

import jax
import numpy as np

from f3tok_jax.devices import sharding
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from tests.reliability import diary
from tests.reliability import phases
from tests.reliability import runs
from tests.support import heeding

# Name -> stage, and what is changed of it.
ARMS = {
    "autoencoder": ("autoencoder", ()),
    "autoencoder_alone": ("autoencoder", ("--config.optimizer.discriminator.start=-1",)),
    "language_model": ("language_model", ()),
    "representation": ("representation", ()),
    "generation": ("generation", ()),
}
NUM_DEVICES, COUNTS = 4, (1, 2, 4)
_PATIENCE = 900.0  # seconds
_MOST = 1e-4  # of the largest value of a figure or a leaf; measured: 5e-6
_LEAST = 1e-3  # of such a value: some, as the mean of normalised latents, are 0 but for rounding


class Arm:
    """One stage, trained by different numbers of processes, below a folder."""

    def __init__(self, folder: pathlib.Path, name: str):
        """Opens the folder; builds what is trained on, once."""
        self._folder, (self._stage, self._changes) = folder / name, ARMS[name]
        self._inputs = runs.Inputs(folder / "inputs")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._diary = diary.Diary(self._folder)

    def go_on(self) -> None:
        """Trains what is missing, and writes how each differs from the run of one process."""
        done = {entry["processes"] for entry in self._diary.entries()}
        for count in COUNTS:
            if count not in done:
                self._train(count)
                found = self._compare(count)
                self._diary.add(found)
                print(self._folder.name, json.dumps(found), flush=True)

    def _workdir(self, count: int) -> pathlib.Path:
        return self._folder / f"by_{count}"

    def _train(self, count: int) -> None:
        workdir = self._workdir(count)
        shutil.rmtree(workdir, ignore_errors=True)
        for path in self._folder.glob(f"said_{count}_*"):
            path.unlink()
        command = functools.partial(
            self._inputs.command,
            *(self._stage, workdir, self._folder / "cache", *self._changes),
            num_devices=NUM_DEVICES // count,
        )
        logs = self._folder / f"said_{count}"
        group = phases.Group(
            command, workdir, logs=logs, num_processes=count, heartbeat_seconds=100
        )
        with contextlib.closing(group):
            codes = group.end(_PATIENCE)
        if any(codes):
            words = [group.last_words(index) for index in range(count)]
            raise RuntimeError(f"an undisturbed run must end, got {codes} in {workdir}: {words}")

    def _batches(self, count: int) -> list[dict[str, list[int]]]:
        """Hashes of the rows of every global batch, in the order in which they were placed."""
        files = [self._folder / f"said_{count}_{index}.hashes" for index in range(count)]
        parts = zip(*(path.read_text().splitlines() for path in files), strict=True)
        return [_joined([json.loads(line) for line in lines]) for lines in parts]

    def _compare(self, count: int) -> dict[str, Any]:
        pair = [self._workdir(each) for each in (1, count)]
        figures = [
            {name: value for name, value in runs.left_by(folder).items() if name.startswith("step")}
            for folder in pair
        ]
        weights = [_weights(self._inputs.config(self._stage, *self._changes), p) for p in pair]
        hashes = [self._batches(each) for each in (1, count)]
        found = {
            "processes": count,
            "batches": len(hashes[0]),
            "equal_batches": sum(one == other for one, other in zip(*hashes, strict=True)),
            "figures_apart": apart(*figures),
            "weights": sum(leaf.size for leaf in weights[0].values()),
            "weights_equal": sum(
                int(np.sum(weights[0][name] == weights[1][name])) for name in weights[0]
            ),
            "weights_apart": apart(*weights),
            "as_two": count < 3 or not runs.differences(self._workdir(count), self._workdir(2)),
        }
        return found | {"problems": list(_problems(found))}


def _problems(found: dict[str, Any]) -> Iterator[str]:
    if found["equal_batches"] < found["batches"]:
        yield "not all batches are equal"
    if max(found["figures_apart"], found["weights_apart"]) > _MOST:
        yield f"figures or weights are more than {_MOST:g} apart"
    if not found["as_two"]:
        yield "not bit-equal to the run of two processes"


def _joined(parts: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    return {name: [row for part in parts for row in part[name]] for name in parts[0]}


def _weights(config, workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Path -> what a finished run has trained, of all players."""
    stage = registry.of(config.stage).make(config)
    abstract = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    params, _ = saved_states.restore_params(str(workdir), abstract.params, field="params")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between two of one name, as a share of the largest in it."""
    if one.keys() != other.keys():
        return float("inf")
    shares = (
        np.max(np.abs(np.subtract(other[name], one[name]))) / max(np.max(np.abs(one[name])), _LEAST)
        for name in one
    )
    return float(max(shares))


def summary(folder: pathlib.Path) -> tuple[str, bool]:
    """Returns a table of what was found below a folder, and whether all are alike."""
    lines, is_good = [], True
    for name, entries in diary.read_all(folder):
        for entry in entries:
            is_good = is_good and not entry["problems"]
            lines.append(
                f"{name} by {entry['processes']}: {entry['equal_batches']} of {entry['batches']} "
                f"batches bit-equal, {entry['weights_equal']} of {entry['weights']} weights; "
                f"figures within {entry['figures_apart']:.1e}, weights {entry['weights_apart']:.1e}"
                f"{', bit-equal to the run of two' if entry['processes'] > 2 and entry['as_two'] else ''}"
            )
    return "\n".join(lines), is_good


def main() -> int:
    """The program; returns 1 where runs are not alike."""
    parser = diary.make_parser(__doc__)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    given = parser.parse_args()
    heeding.heed_signals()
    for name in () if given.summary else given.arms:
        Arm(given.folder.absolute(), name).go_on()
    return diary.tell(summary, given.folder)


if __name__ == "__main__":
    sys.exit(main())
