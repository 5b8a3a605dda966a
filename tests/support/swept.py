# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps whose runs take a second, in this process or as a program that can be killed.

    python tests/support/swept.py --sweep=... --workdir=...       like python -m f3tok_jax.sweep

Environment:
    SWEPT_BY   file that trains a run; default quick_train.py
"""

import os
import pathlib
import subprocess
import sys

from f3tok_jax import sweep as program
from f3tok_jax.sweeping import driver
from f3tok_jax.sweeping import places

_SUPPORT = pathlib.Path(__file__).parent
ROOT = _SUPPORT.parents[1]
RECIPE = ROOT / "configs" / "autoencoder.py"
QUICK = _SUPPORT / "quick_train.py"

# Of every run, so that it may be of few steps.
SHORT = tuple(f"optimizer.{one}.warmup_steps=1" for one in ("generator", "discriminator"))

_FILE = """
from f3tok_jax.sweeping import space

def get_sweep(preset="tiny"):
    return space.Sweep(
        recipe={recipe!r},
        arms=space.grid({{"optimizer.generator.clip_norm": {values}}}),
        metric={metric!r},
        overrides=("num_steps={num_steps}", "data.train={shards}", *{short}),
        {more}
    )
"""


SHARDS = "shards"


def write_shards(folder: pathlib.Path) -> str:
    """Makes what looks like a shard set, below the folder of a sweep's file; its place."""
    (folder / SHARDS).mkdir(exist_ok=True)
    (folder / SHARDS / "manifest.json").touch()
    return str(folder / SHARDS)


def write_sweep(
    folder: pathlib.Path,
    num_arms: int,
    num_steps: int = 6,
    metric: str = "eval/mel",
    more: str = "",
) -> str:
    """Writes a sweep of arms clip_norm-1_0, clip_norm-2_0, ..., the first the best; its file."""
    path = folder / "sweep.py"
    write_shards(folder)
    values = tuple(float(value) for value in range(1, num_arms + 1))
    fields = dict(recipe=f"{RECIPE}:tiny", values=values, num_steps=num_steps, more=more)
    fields |= dict(metric=metric, shards=folder / SHARDS)
    path.write_text(_FILE.format(short=SHORT, **fields))
    return str(path)


def command(*arguments: str, **environment: str) -> dict:
    """Arguments of subprocess for the program in a process of its own."""
    paths = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return {
        "args": [sys.executable, __file__, *arguments],
        "env": {**os.environ, **paths, **environment},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "cwd": str(ROOT),
    }


def steps_of(workdir: pathlib.Path) -> list[int]:
    """The steps that a run has taken, in order, those twice that it took twice."""
    path = workdir / "logs" / "steps"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def use(trainer: str | os.PathLike = QUICK, patch=setattr) -> None:
    """Has runs be trained by another program, and looked at more often."""
    patch(places, "_TRAIN", (sys.executable, str(trainer)))
    patch(driver, "_POLL_SECONDS", 0.05)
    patch(driver, "_JUDGE_SECONDS", {True: 0.0, False: 0.0})


if __name__ == "__main__":
    use(os.environ.get("SWEPT_BY", QUICK))
    sys.exit(program.main())
