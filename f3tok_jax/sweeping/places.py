# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where the runs of a sweep are trained: here, on slices of TPUs, or as workloads of a cluster.

Who comes first is not decided here: on a cluster every run is a workload at once and Kueue has them
wait; a slice takes one run after the other.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import re
import sys

from f3tok_jax.sweeping import plan

KINDS = ("local", "tpu", "xpk")
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TRAIN = (sys.executable, "-m", "f3tok_jax.train")
_LAUNCH = ("bash", "launch/tpu_train.sh")
_MAX_NAME = 40  # characters of a workload's name, of which xpk makes others
_NAME = "--tpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Of one kind: what a run is trained by.

    Attributes:
        kind: one of KINDS.
        name: of the slices, or what the workloads' names begin with; of no use for "local".
        num: runs at a time; 0 for as many as there are, of "xpk" alone.
        flags: further ones, of f3tok_jax.train or of launch/tpu_train.sh.
    """

    kind: str
    name: str = ""
    num: int = 1
    flags: tuple[str, ...] = ()

    def slots(self, runs: Sequence[plan.Run]) -> list[str]:
        """The names of what is free to begin with: a slice's each, of workloads none yet."""
        num = min(self.num or len(runs), len(runs))
        if self.kind == "tpu" and num > 1:
            return [f"{self.name}-{index}" for index in range(num)]
        return [self.name if self.kind == "tpu" else ""] * num

    def name_of(self, run: plan.Run, slot: str) -> str:
        """The name under which a run is trained; "" on this machine."""
        return slot if self.kind != "xpk" else workload(self.name, run.name)

    def command(self, run: plan.Run, name: str) -> list[str]:
        """The arguments of the process that trains a run."""
        if self.kind == "local":
            return [*_TRAIN, *run.arguments, *self.flags]
        return [*_LAUNCH, _NAME, name, *self.flags, *run.arguments]

    def stop_command(self, run: plan.Run, name: str) -> list[str]:
        """The arguments of what tells a run elsewhere to save and leave."""
        return [*_LAUNCH, "stop", _NAME, name, *self.flags, f"--workdir={run.workdir}"]

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
        flags: further ones; --tpu NAME among them names slices and workloads, else the sweep does.

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
    name = name or _lower(workdir.rstrip("/").rpartition("/")[2])
    return Place(kind=kind, name=name, num=num or (kind == "tpu"), flags=tuple(rest))


def workload(sweep: str, run: str) -> str:
    """A name for a run in a cluster, as Kubernetes has them: short, and of no other run."""
    whole = f"{sweep}-{run}"
    name = _lower(whole)
    if name == whole and len(name) <= _MAX_NAME:
        return name
    tail = hashlib.sha256(whole.encode()).hexdigest()[:6]
    return f"{name[: _MAX_NAME - 7].rstrip('-')}-{tail}"


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
