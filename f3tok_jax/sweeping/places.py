# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where the runs of a sweep are trained: here, on slices of TPUs, or as workloads of a cluster.

Who comes first is not decided here: on a cluster every run is a workload at once, and Kueue has them
wait; a slice takes one run after the other.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import re
import shlex
import sys

from f3tok_jax.sweeping import plan

KINDS = ("local", "tpu", "xpk")
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TRAIN = (sys.executable, "-m", "f3tok_jax.train")
_LAUNCH = ("bash", "launch/tpu_train.sh")
_NAME = "--tpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Of one kind, and what a run is trained by there.

    Attributes:
        kind: one of KINDS.
        name: of the slices, of "tpu" alone: workloads have those of their folders.
        num: runs at a time; 0 for as many as there are.
        flags: further ones, of f3tok_jax.train or of launch/tpu_train.sh.
    """

    kind: str
    name: str = ""
    num: int = 1
    flags: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether runs are processes of this machine, and end with what began them."""
        return self.kind == "local"

    def slots(self, num_runs: int) -> list[str]:
        """The names of the places for a run that there are: a slice's each; "" on this machine."""
        if self.kind == "tpu":  # However many runs are left, a slice keeps its name.
            several = [f"{self.name}-{index}" for index in range(self.num)]
            return several if self.num > 1 else [self.name]
        return ["" if self.is_here else self.kind] * min(self.num or num_runs, num_runs)

    def command(self, run: plan.Run, slot: str) -> list[str]:
        """The arguments of the process that trains a run."""
        if self.is_here:
            return [*_TRAIN, *run.arguments, *self.flags]
        return [*_LAUNCH, *self._named(slot), *run.arguments]

    def stop_command(self, run: plan.Run, slot: str) -> list[str]:
        """The arguments of what tells a run elsewhere to save and leave."""
        return [*_LAUNCH, "stop", *self._named(slot), f"--workdir={run.workdir}"]

    @property
    def setup_command(self) -> list[str]:
        """The arguments of what all runs need to have been done first, once; [] for nothing."""
        return [*_LAUNCH, "setup", *self.flags] if self.kind == "xpk" else []

    def bill(self, num_runs: int) -> list[str]:
        """What is to be said of what costs money when no run is followed any more, line by line."""
        if self.kind == "tpu":
            return [
                f"{slot} costs money, if it is there, until:\n+ "
                + shlex.join([*_LAUNCH, "delete", *self._named(slot)])
                for slot in self.slots(num_runs)
            ]
        return (
            [] if self.is_here else ["workloads that go on cost money until their ends or --stop"]
        )

    def _named(self, slot: str) -> list[str]:
        return [*([f"{_NAME}={slot}"] if self.kind == "tpu" else []), *self.flags]

    @property
    def environment(self) -> dict[str, str]:
        """Of these processes: this tree is the one that they run, and nothing they say is kept back."""
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
        }


def of(kind: str, workdir: str, num: int | None, flags: Sequence[str]) -> Place:
    """The place that the flags of a program give.

    Args:
        kind: one of KINDS.
        workdir: of the sweep.
        num: runs at a time; None for the kind's own, one, or all of them on a cluster.
        flags: further ones; --tpu NAME among them names slices, else the sweep does.

    Raises:
        ValueError: where a run elsewhere could not reach its folder, or a name is missing.
    """
    if kind == "local":
        return Place(kind=kind, num=num or 1, flags=tuple(flags))
    if not workdir.startswith(("gs://", "/")):
        raise ValueError(
            f"--workdir must be a place that every worker sees (gs://... or a shared /...), got "
            f"{workdir!r}"
        )
    if os.path.realpath(os.curdir) != str(_ROOT):
        raise ValueError(
            f"--backend={kind} sends the tree that it is called in, got {os.getcwd()} and not "
            f"{_ROOT}: use launch/sweep.sh, or change the folder"
        )
    needed = {"tpu": ("--zone", "--accelerator"), "xpk": ("--cluster",)}[kind]
    given = {flag.split("=", 1)[0] for flag in flags}
    for flag in needed:
        if flag not in given and not os.environ.get(flag.strip("-").upper()):
            raise ValueError(f"--backend={kind} needs {flag}, for launch/tpu_train.sh, got none")
    rest, name = _without_name(flags)
    if kind == "xpk":
        return Place(kind=kind, num=num or 0, flags=tuple(flags))
    name = name or _lower(workdir.rstrip("/").rpartition("/")[2])
    return Place(kind=kind, name=name, num=num or 1, flags=tuple(rest))


def _lower(name: str) -> str:
    """A name of lower-case letters, digits and single hyphens that begins with a letter."""
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return name if name[:1].isalpha() else f"s{name}"


def _without_name(flags: Sequence[str]) -> tuple[list[str], str]:
    """The flags without --tpu NAME, and that name; "" for none."""
    rest, name, pending = [], "", list(flags)
    while pending:
        flag = pending.pop(0)
        if flag == _NAME and pending:
            name = pending.pop(0)
        elif flag.startswith(f"{_NAME}="):
            name = flag.split("=", 1)[1]
        else:
            rest.append(flag)
    return rest, name
