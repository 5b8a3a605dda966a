# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run without JAX, in a second: its folder is as train leaves it, and nothing is learnt.

    python tests/support/quick_train.py --config=... --workdir=...       like python -m f3tok_jax.train

It evaluates and saves every other step and the last; logs/steps gets a line for each step that it takes. Environment:
    QUICK_FAIL   folder whose run ends with code 3 and a sentence
    QUICK_NAN    folder whose readings are not finite
    QUICK_HOLD   step before which a run waits until it is told to leave, or `go` is in its folder
"""

import fcntl
import json
import os
import pathlib
import signal
import sys
import time

from data_pipelines import command
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import sealed_lines

METRIC = "eval/mel"


def value_of(config, step: int) -> float:
    """What is read of a run at a step: lower with more steps, and with a smaller clip_norm."""
    return config.optimizer.generator.clip_norm + 1.0 / step


def _save(config, workdir: pathlib.Path, step: int) -> None:
    folder = workdir / "checkpoints" / str(step)
    for name in ("state", "meta"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    meta = checkpoint_meta.made(
        step=step,
        config=json.loads(config_lib.to_json(config)),
        data_fingerprint="",
        fingerprints={},
        metrics=None,
        files={},
        seen=None,
    )
    (folder / "state" / "weights").write_text("none")
    (folder / "meta" / "metadata").write_text(json.dumps(meta))


def main() -> int:
    """The run; returns its exit code."""
    overrides, rest = command.split_overrides(sys.argv[1:])
    flags = dict(argument.lstrip("-").split("=", 1) for argument in rest)
    workdir, told = pathlib.Path(flags["workdir"]), []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    config = config_lib.read(flags["config"], overrides)
    (workdir / "logs").mkdir(parents=True, exist_ok=True)
    with open(workdir / "logs" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        config_lib.save(config, str(workdir))
        return _train(config, workdir, told)


def _train(config, workdir: pathlib.Path, told: list) -> int:
    saved = [int(path.name) for path in workdir.glob("checkpoints/*")]
    hold = int(os.environ.get("QUICK_HOLD", "0"))
    for step in range(max(saved, default=0) + 1, config.num_steps + 1):
        if workdir.name == os.environ.get("QUICK_FAIL"):
            print(f"{__file__}: step {step} is not finite\n", file=sys.stderr)
            return 3
        while step == hold and not told and not (workdir / "go").exists():
            time.sleep(0.02)
        with open(workdir / "logs" / "steps", "a", encoding="utf-8") as file:
            file.write(f"{step}\n")
        if told or step % 2 == 0 or step == config.num_steps:
            with open(workdir / "metrics.jsonl", "ab") as file:
                left = float(config.num_steps - step)
                value = value_of(config, step)
                value = None if workdir.name == os.environ.get("QUICK_NAN") else value
                line = {"step": step, METRIC: value, "time/eta_seconds": left}
                file.write(sealed_lines.make(line))
            _save(config, workdir, step)
        if told and step < config.num_steps:
            return 42
    (workdir / "DONE").write_text(json.dumps({"step": config.num_steps}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
