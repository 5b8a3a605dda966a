# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Trains the runs of a sweep, each in a folder of its own, and tells how far they are.

    python -m f3tok_jax.sweep --sweep=configs/sweeps/bottleneck.py:tiny --workdir=runs/bottleneck \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --max_parallel=2
    python -m f3tok_jax.sweep --workdir=runs/bottleneck --status --top=5

The same command goes on where it was stopped or killed: what is done is not trained again, and what
another process still trains is waited for. A run that fails stops no other. What asks this program to
leave is passed on to the runs, which save. Folders of runs that the sweep does not name any more are
left.

Flags that are not listed here go to f3tok_jax.train or, with --backend=tpu or xpk, to
launch/tpu_train.sh: --zone, --accelerator, --cluster and the like. On slices (tpu) NAME of --tpu NAME
takes one run after the other, with --max_parallel=N NAME-0 to NAME-(N-1) do; they cost money until
they are deleted. In a cluster (xpk) every run is a workload at once, and Kueue says when.

--prune=halving stops the runs that are worse than the best third of all that have come as far, at a
ninth and a third of their steps or where the sweep says, and those that are not finite there; above
half of its steps no run is stopped. They have saved, and --only=RUN goes on with one of them. It is
decided by this program, from metrics.jsonl of the runs' folders.

Exit codes: 0 all runs are done or pruned, 1 wrong arguments, sweep or folder, or a run has failed
(one sentence on stderr says which), 4 a full disk, 42 told to leave: run the same command again.
"""

import argparse
from collections.abc import Sequence
import sys

from data_pipelines import command
from f3tok_jax.runs import places


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.sweep", __doc__)
    add = parser.add_argument
    parser.set_defaults(overrides=())
    parser.add_others()
    text = "folder of the runs' folders, or a bucket"
    add("--workdir", required=True, type=command.path, help=text)
    text = "FILE.py or FILE.py:PRESET, as in configs/sweeps; not needed by --status and --stop"
    add("--sweep", type=command.path, default="", help=text)
    add("--backend", choices=("local", "tpu", "xpk"), default="local", help="where they train")
    text = "runs at a time; default 1, of xpk all"
    add("--max_parallel", type=command.at_least(1), help=text)
    text = "names of arms or runs, with commas: these alone, pruned ones too"
    add("--only", type=command.values(), default=[], help=text)
    text = "stop worse runs early; default what the sweep says"
    add("--prune", choices=("halving", "none"), help=text)
    add("--status", action="store_true", help="print a table of the runs, and end")
    add("--top", type=command.at_least(1), default=0, help="so many of the best, in the table")
    add("--output", type=command.file, help="JSON file for the table, with all its figures")
    add("--stop", action="store_true", help="ask what is trained to save and leave, and wait")
    add("--dry_run", action="store_true", help="print the command of every run, and touch nothing")
    places.add_flag(add)
    return command.run(parser, _sweep, arguments, resumes=True)


def _sweep(given: argparse.Namespace) -> int:
    from f3tok_jax.sweeping import commands

    if given.status:
        return commands.show(given.workdir, top=given.top, output=given.output)
    if given.stop:
        return commands.stop(given)
    from f3tok_jax.launching import launches

    checks = dict(check_launches=launches.check, check_here=launches.check_here)
    return commands.train(given, **checks)


if __name__ == "__main__":
    sys.exit(main())
