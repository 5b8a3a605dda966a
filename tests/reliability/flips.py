# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Flips single bits of every file of a run folder, and tells what became of each.

    python -m tests.reliability.flips --run=used --flips=70 --folder=DIR
    python -m tests.reliability.flips --run=toy --flips=100 --folder=DIR
    python -m tests.reliability.flips --summary --folder=DIR

A finished run is used with the flipped bit: its latents (and representations), its page, and the
same command of training once more. An unfinished one is resumed to its end. A flip is

    detected   something is said that is not said otherwise, or the program ends with a sentence
    harmless   nothing is said, and every bit of state, every figure and every word is the same
    silent     nothing is said, and something is another
    crash      an exception that nobody put into a sentence

What happened is a line each in DIR/<run>/log.jsonl; the same command goes on there.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import io
import json
import pathlib
import re
import shutil
import sys
import traceback
from typing import Any
from unittest import mock

import jax
import numpy as np

from f3tok_jax import evaluate
from f3tok_jax import report
from f3tok_jax import train
from f3tok_jax.devices import compilation
from f3tok_jax.inference import tokenizer
from f3tok_jax.stages import registry
from tests.reliability import diary
from tests.reliability import runs
from tests.support import html_page
from tests.support import toy_run

_TIMES = re.compile(r"\b[\d.]+ s\b")
# What libraries leave on the console is no word of the program's.
_NOISE = re.compile(r"step |\s|Traceback|Exception ignored|\w*Error: |\S+: \d+ runs, ")
# A sentence of a page, other than a figure.
_COMPLAINT = re.compile(
    r"damaged|cannot be|must be|\bnot as\b|missing|left out|differ|\bNo [a-z]+\."
)


@dataclasses.dataclass
class Outcome:
    """What came of using or resuming a run.

    Attributes:
        code: exit code of the last program.
        said: lines and notes, times left out.
        left: name -> value, of what must not change.
        trace: of an exception that reached nobody.
    """

    code: int
    said: set[str]
    left: Mapping[str, Any]
    trace: str = ""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A run whose bits are flipped: how it is made, and how it is used afterwards.

    Attributes:
        make: (inputs, folder of the run) -> None.
        examine: (inputs, folder of the run) -> what comes of it.
    """

    make: Callable[[runs.Inputs, pathlib.Path], None]
    examine: Callable[[runs.Inputs, pathlib.Path], Outcome]


def _train(inputs: runs.Inputs, stage: str, run: pathlib.Path, *more: str) -> int:
    """Trains in this process."""
    toy = {toy_run.STAGE.name: toy_run.STAGE} if stage == "toy" else {}
    keep = mock.patch.object(compilation, "use_cache", lambda folder: None)
    flags = [f"--config={inputs.recipe(stage)}", f"--workdir={run}", "--distributed=off"]
    with keep, mock.patch.dict(registry.STAGES, toy):
        return train.main([*flags, *inputs.overrides(stage, *more)])


def _made(stage: str, num_steps: int) -> Callable[[runs.Inputs, pathlib.Path], None]:
    def make(inputs: runs.Inputs, run: pathlib.Path) -> None:
        code = _train(inputs, stage, run, f"--config.num_steps={num_steps}")
        if code:
            raise RuntimeError(f"the run that is to be damaged ended by {code}")
        if num_steps < runs.NUM_STEPS:
            (run / "DONE").unlink()  # as if it had been interrupted
        elif stage == "autoencoder":
            shards = f"--shards={inputs.shards}"
            results = f"--output={run / 'results.json'}"
            evaluate.main([f"--workdir={run}", shards, results, "--num_examples=2", "--listen=0"])

    return make


def _resumed(stage: str) -> Callable[[runs.Inputs, pathlib.Path], Outcome]:
    def examine(inputs: runs.Inputs, run: pathlib.Path) -> Outcome:
        code = _train(inputs, stage, run)
        return Outcome(code, set(), {} if code else runs.left_by(run))

    return examine


def _used(stage: str) -> Callable[[runs.Inputs, pathlib.Path], Outcome]:
    sound = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10

    def examine(inputs: runs.Inputs, run: pathlib.Path) -> Outcome:
        left, notes, codes = {}, set(), []
        try:
            model = tokenizer.F3Tokenizer.from_pretrained(str(run))
            verb = model.encode if stage == "autoencoder" else model.represent
            left["vectors"] = np.asarray(verb(sound).values).tobytes()
        except (ValueError, OSError) as error:
            notes.add(str(error))
        page = run.parent / "page.html"
        codes.append(report.main(["--runs", str(run), f"--output={page}"]))
        if not codes[-1]:
            left["page"] = page.read_bytes()
            notes |= set(filter(_COMPLAINT.search, html_page.Page(page.read_text()).said))
        codes.append(_train(inputs, stage, run))
        return Outcome(max(codes), notes, left)

    return examine


KINDS = {
    "toy": Kind(_made("toy", 8), _resumed("toy")),
    "representation": Kind(_made("representation", 8), _resumed("representation")),
    "used": Kind(_made("autoencoder", 12), _used("autoencoder")),
    "used_representation": Kind(_made("representation", 12), _used("representation")),
}


class Flips:
    """The flips of one run, below a folder."""

    def __init__(self, folder: pathlib.Path, name: str):
        """Makes the run, once, and looks at what comes of it when nothing is flipped."""
        self._folder, self._kind = folder / name, KINDS[name]
        self._diary = diary.Diary(self._folder)
        self._whole, self._run = self._folder / "whole", self._folder / "run"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._inputs = runs.Inputs(folder / "inputs")
        if not self._whole.exists():
            shutil.rmtree(self._run, ignore_errors=True)
            self._kind.make(self._inputs, self._run)
            self._run.rename(self._whole)
        self._before = self._examine(lambda: None)
        if self._before.code or self._before.trace:
            raise RuntimeError(f"a whole run must be of use, got {self._before}")

    def go_on(self, count: int) -> None:
        """Flips until there were so many: the same ones for the same folder and count."""
        for path, byte, bit in self.draw(count)[len(self._diary.entries()) :]:
            self._diary.add(self.flip(path, byte, bit))

    def draw(self, count: int) -> list[tuple[str, int, int]]:
        """File, byte and bit of so many flips."""
        return list(draw(self._whole, count, np.random.default_rng(0)))

    def flip(self, path: str, byte: int, bit: int) -> dict[str, Any]:
        """Flips a bit of a copy, uses it, and returns what became of it."""

        def damage() -> None:
            content = bytearray((self._run / path).read_bytes())
            content[byte] ^= 1 << bit
            (self._run / path).write_bytes(content)

        found = classify(self._before, self._examine(damage))
        return {"file": path, "byte": byte, "bit": bit, **found}

    def _examine(self, damage: Callable[[], None]) -> Outcome:
        """Uses a fresh copy, in the same place, once it is damaged."""
        shutil.rmtree(self._run, ignore_errors=True)
        shutil.copytree(self._whole, self._run)
        damage()
        out, outcome = io.StringIO(), None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                outcome = self._kind.examine(self._inputs, self._run)
            except Exception:
                outcome = Outcome(-1, set(), {}, traceback.format_exc())
        lines = {line for line in out.getvalue().splitlines() if not _NOISE.match(line)}
        outcome.said = {_TIMES.sub("", line) for line in lines | outcome.said}
        return outcome


def draw(
    folder: pathlib.Path, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, int, int]]:
    """Yields file, byte and bit of each flip, one of every file that is not empty among them.

    The others are drawn half by size and half evenly, so that small files are hit, too.
    """
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size
    }
    names, weights = list(sizes), np.array(list(sizes.values()), float)
    share = 0.5 * weights / weights.sum() + 0.5 / len(names)
    more = rng.choice(names, size=max(count - len(names), 0), p=share)
    for name in [*names, *map(str, more)]:
        yield name, int(rng.integers(sizes[name])), int(rng.integers(8))


def classify(before: Outcome, after: Outcome) -> dict[str, Any]:
    """What a flip is, and why: what was said for the first time, or what is another."""
    words = sorted(after.said - before.said)
    names = before.left.keys() | after.left.keys()
    others = sorted(name for name in names if before.left.get(name) != after.left.get(name))
    if after.trace:
        kind, words = "crash", [after.trace.strip().splitlines()[-1]]
    elif words:
        kind = "detected"
    else:
        kind = "silent" if others or after.code != before.code else "harmless"
    return {"kind": kind, "code": after.code, "words": words[:3], "others": others[:5]}


def summary(folder: pathlib.Path) -> tuple[str, bool]:
    """Returns a table, file by file, and whether nothing was silent or crashed."""
    kinds, lines, is_good = ("detected", "harmless", "silent", "crash"), [], True
    for run, entries in diary.read_all(folder):
        counts = {kind: sum(entry["kind"] == kind for entry in entries) for kind in kinds}
        is_good = is_good and not counts["silent"] and not counts["crash"]
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        lines.append(f"{run}: {len(entries)} flips: {told}")
        for name in sorted({entry["file"] for entry in entries}):
            found = [entry["kind"] for entry in entries if entry["file"] == name]
            told = ", ".join(f"{found.count(kind)} {kind}" for kind in kinds if kind in found)
            lines.append(f"  {name}: {told}")
        lines += [
            f"  PROBLEM {json.dumps(entry)}" for entry in entries if entry["kind"] in kinds[2:]
        ]
    return "\n".join(lines), is_good


def main() -> int:
    """The program; returns 1 where a flip was silent or crashed."""
    parser = diary.make_parser(__doc__)
    add = parser.add_argument
    add("--run", choices=tuple(KINDS), default="", help="whose bits are flipped")
    add("--flips", type=int, default=50, help="of the run, those of before counted")
    given = parser.parse_args()
    if given.run and not given.summary:
        folder = given.folder.absolute()
        jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        Flips(folder, given.run).go_on(given.flips)
    return diary.tell(summary, given.folder)


if __name__ == "__main__":
    sys.exit(main())
