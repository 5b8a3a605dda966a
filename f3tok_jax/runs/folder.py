# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run's folder, apart from checkpoints and metrics: config, environment, logs/ and DONE."""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import json
import os
from typing import Any

from etils import epath
import jax
import ml_collections

from data_pipelines import command
from data_pipelines.records import atomic
from data_pipelines.records import lock
from data_pipelines.records import sealed
from data_pipelines.records import small_file
from f3tok_jax.devices import multihost
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import frozen_file
from f3tok_jax.runs import lease
from f3tok_jax.runs import pins
from f3tok_jax.runs import saved_states

_DONE = "DONE"
# The file of what a run began with is read by those who have no JAX, too.
FROZEN, frozen = frozen_file.NAME, frozen_file.read
# Names of data among what a run begins with: keys of its config.
DATA, HELDOUT, WEIGHTS = "data.train", "data.heldout", "init_from.workdir"


def done_step(workdir: str, num_steps: int) -> int | None:
    """Returns the step at which a run is finished, or None where it is not.

    DONE alone is not believed, which may be older than the steps: the newest checkpoint that says
    whole what it holds must be of `num_steps` or later, and hold it.
    """
    if not (epath.Path(workdir) / _DONE).exists():
        return None
    step = _kept(workdir).get("step", -1)
    is_there = step >= num_steps and saved_states.has_state(workdir, step)
    return step if is_there else None


def _kept(workdir: str) -> Mapping[str, Any]:
    """What is kept beside the newest state of which that is whole; {} where there is none."""
    try:
        return saved_states.read_meta(workdir)
    except (ValueError, OSError):
        return {}


def mark_done(workdir: str, step: int, may_write: Callable[[], None] = lambda: None) -> None:
    """Process 0 writes DONE, if it `may_write`, as `locked` tells; all processes must call it."""
    if jax.process_index() == 0:
        may_write()
        atomic.write_text(epath.Path(workdir) / _DONE, json.dumps({"step": step}) + "\n")
    multihost.barrier("run_folder_done")


@contextlib.contextmanager
def locked(workdir: str, say: Callable[[str], None] = print) -> Iterator[Callable[[], None]]:
    """Keeps a second run out of the folder; all processes of a run enter together.

    The system frees the lock of a process that dies. Buckets have no locks: there it is a lease.

    Args:
        workdir: of the run.
        say: where it is said what is waited for.

    Yields:
        What raises ValueError once another run has taken the folder all the same.

    Raises:
        ValueError: where another run is at work in the folder, or that cannot be told.
    """
    handle, held, taken = None, None, ""
    if jax.process_index() == 0:
        try:
            if "://" in workdir:
                held = lease.Lease(epath.Path(workdir) / "logs", say=say)
            else:
                handle = lock.take(os.path.join(workdir, "logs", "lock"))
        except BlockingIOError:
            taken = (
                f"--workdir must not be in use, got {workdir}, in which another process trains; "
                "end that one first, or give another folder"
            )
        except lease.Taken as error:
            taken = str(error)
        except Exception as error:  # Libraries of buckets raise errors of their own.
            taken = _unwritable(workdir, command.explain(error))
    try:
        if not multihost.all_agree(not taken):
            raise ValueError(taken or f"--workdir must not be in use, got {workdir}")
        yield held.check if held else lambda: None
    finally:
        if handle:
            handle.close()
        if held:
            held.give_back()


def prepare(
    config: ml_collections.ConfigDict, workdir: str, environment: Mapping[str, Any]
) -> None:
    """Process 0 writes the config and the environment; all processes must see them.

    Args:
        config: of the run, already compared with what the folder holds.
        workdir: run folder, local or a bucket.
        environment: what this session of the run was started with; see `_keep_environment`.

    Raises:
        ValueError: where the folder cannot be written, or some process does not see it.
    """
    folder = epath.Path(workdir)
    failure = None
    if jax.process_index() == 0:
        try:
            config_lib.save(config, workdir)
            _keep_environment(folder / "logs", environment)
            _reopen(folder)
        except OSError as error:
            failure = error
    if not multihost.all_agree(failure is None):
        raise ValueError(_unwritable(workdir, failure or "process 0 cannot")) from failure
    if not multihost.all_agree(config_lib.exists(workdir)):
        raise ValueError(
            f"--workdir must be one folder that all processes see, got {workdir}, which "
            "some do not; give a bucket or a shared disk"
        )


def _unwritable(workdir: str, reason: Exception | str) -> str:
    return (
        f"--workdir must be a folder that can be written, got {workdir}: {reason}; mend that or give "
        "another"
    )


def _keep_environment(logs: epath.Path, environment: Mapping[str, Any]) -> None:
    """Writes sessions/0001.json and so on, one for each start, and environment.json, as the last.

    Beside a session's file lies, as .diff, what its code differs from its commit by.
    """
    sessions = logs / "sessions"
    before = [path.stem for path in sessions.iterdir()] if sessions.exists() else []
    number = 1 + max((int(name) for name in before if name.isdecimal()), default=0)
    git = dict(environment.get("git", {}))
    if diff := git.pop("diff", ""):
        atomic.write_text(sessions / f"{number:04d}.diff", diff)
    said = dict(environment) | ({"git": git} if git else {})
    for path in (sessions / f"{number:04d}.json", logs / "environment.json"):
        atomic.write_text(path, json.dumps(said, indent=2) + "\n")


def _reopen(folder: epath.Path) -> None:
    """A finished run that is given more steps is not finished any more, and keeps where it was."""
    done = folder / _DONE
    if not done.exists():
        return
    with contextlib.suppress(ValueError):  # What train did not write says no step.
        step = sealed.read(small_file.read_bytes(done), str(done), {"step": int})["step"]
        if step in saved_states.steps(str(folder)):
            pins.add(str(folder), step, "where the run was finished before")
    done.unlink()


def check_kept(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Holds a run that is resumed to the config and the frozen.json that its states were made with.

    To be called before `prepare`, which writes the config.

    Args:
        config: of the run.
        workdir: run folder.

    Raises:
        ValueError: where one of them is missing or was changed.
    """
    kept = _kept(workdir)
    if not kept:
        return
    config_lib.check_kept(config, kept["config"], workdir)
    frozen(workdir, kept["files"].get(FROZEN, ""))
    if not (epath.Path(workdir) / FROZEN).exists():
        raise frozen_file.missing(workdir)


def digests(workdir: str) -> dict[str, str]:
    """Name -> digest of each small file of a run that decides what it learns."""
    return {FROZEN: sealed.digest(frozen(workdir))}


def check_began_with(
    workdir: str,
    fingerprints: Mapping[str, str],
    *,
    moved: Collection[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Holds a run to the frozen models and the data that it began with, wherever they lie now.

    To be called before `prepare`, which writes down where they lie.

    Args:
        workdir: run folder.
        fingerprints: as in `settle_frozen`.
        moved: those whose places are others than in the folder's config.
        say: where it is said what cannot be compared.

    Raises:
        ValueError: where one is not what the run began with.
    """
    before = frozen(workdir)["fingerprints"]
    for name, now in fingerprints.items():
        if before.get(name, now) != now:
            what = "the same shards, weights and order" if name in (DATA, HELDOUT) else "that one"
            raise ValueError(
                f"{workdir} was begun with {name} of fingerprint {before[name]}, got {now}: give "
                f"{what}, or another --workdir"
            )
    for name in sorted(set(moved) & fingerprints.keys() - before.keys()):
        say(f"note: {name} lies elsewhere than when {workdir} was begun, which kept no fingerprint")


def settle_frozen(
    workdir: str, fingerprints: Mapping[str, str], measure: Callable[[], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Returns what was measured when the run began; keeps what it began with.

    Measured by all processes of a fresh run, and kept in the folder by the first, whole or not at
    all; all processes must call it.

    Args:
        workdir: run folder, prepared.
        fingerprints: name -> fingerprint of each frozen model, and of the data by its key.
        measure: gives values ready for JSON, the same in all processes.
    """
    path, is_first = epath.Path(workdir) / FROZEN, jax.process_index() == 0
    # The others may not see yet what the first has written: it alone decides.
    if not multihost.all_agree(not is_first or path.exists()):
        content = {"fingerprints": dict(fingerprints), "measured": dict(measure())}
        if is_first:
            content = sealed.seal(json.loads(json.dumps(content)))
            atomic.write_text(path, json.dumps(content) + "\n")
    multihost.barrier("run_folder_frozen")
    return frozen(workdir)["measured"]
