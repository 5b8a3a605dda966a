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

from data_pipelines.records import atomic
from data_pipelines.records import lock
from f3tok_jax.devices import multihost
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib

_DONE = "DONE"
_FROZEN = "frozen.json"
# Names of data among what a run begins with: keys of its config.
DATA, HELDOUT, WEIGHTS = "data.train", "data.heldout", "init_from.workdir"


def done_step(workdir: str) -> int | None:
    """Returns the step at which a run was finished, or None where it was not."""
    path = epath.Path(workdir) / _DONE
    return _read(path, step=int)["step"] if path.exists() else None


def mark_done(workdir: str, step: int) -> None:
    """Process 0 writes DONE; all processes must call it."""
    if jax.process_index() == 0:
        atomic.write_text(epath.Path(workdir) / _DONE, json.dumps({"step": step}) + "\n")
    multihost.barrier("run_folder_done")


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """Keeps a second run out of the folder; all processes of a run enter together.

    The system frees the lock of a process that dies. Buckets have no locks, and get none.

    Raises:
        ValueError: where another run is at work in the folder.
    """
    handle, is_free = None, True
    if jax.process_index() == 0 and "://" not in workdir:
        try:
            handle = lock.take(os.path.join(workdir, "logs", "lock"))
        except BlockingIOError:
            is_free = False
        except OSError:
            pass  # A folder that cannot be written is refused by `prepare`.
    try:
        if not multihost.all_agree(is_free):
            raise ValueError(
                f"--workdir must not be in use, got {workdir}, in which another process trains; "
                "end that one first, or give another folder"
            )
        yield
    finally:
        if handle:
            handle.close()


def prepare(
    config: ml_collections.ConfigDict, workdir: str, environment: Mapping[str, Any]
) -> None:
    """Process 0 writes the config and the environment; all processes must see them.

    Args:
        config: of the run, already compared with what the folder holds.
        workdir: run folder, local or a bucket.
        environment: what the run was started with, kept in logs/environment.json.

    Raises:
        ValueError: where the folder cannot be written, or some process does not see it.
    """
    folder = epath.Path(workdir)
    failure = None
    if jax.process_index() == 0:
        try:
            config_lib.save(config, workdir)
            text = json.dumps(environment, indent=2) + "\n"
            atomic.write_text(folder / "logs" / "environment.json", text)
            # A finished run that is given more steps is not finished any more.
            (folder / _DONE).unlink(missing_ok=True)
        except OSError as error:
            failure = error
    if not multihost.all_agree(failure is None):
        raise ValueError(
            f"--workdir must be a folder that can be written, got {workdir}: "
            f"{failure or 'process 0 cannot'}; change its permissions or give another"
        ) from failure
    if not multihost.all_agree(config_lib.exists(workdir)):
        raise ValueError(
            f"--workdir must be one folder that all processes see, got {workdir}, which "
            "some do not; give a bucket or a shared disk"
        )


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
    before = dict(frozen(workdir)["fingerprints"])
    if DATA not in before:  # The run is older than that name; its checkpoints have it.
        with contextlib.suppress(ValueError, OSError):
            before[DATA] = checkpoint.read_meta(workdir)["data_fingerprint"]
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

    Measured by process 0 on a fresh run and kept in the folder; all processes must call it.

    Args:
        workdir: run folder, prepared.
        fingerprints: name -> fingerprint of each frozen model, and of the data by its key.
        measure: gives values ready for JSON.
    """
    path = epath.Path(workdir) / _FROZEN
    if jax.process_index() == 0 and not path.exists():
        content = {"fingerprints": dict(fingerprints), "measured": dict(measure())}
        atomic.write_text(path, json.dumps(content) + "\n")
    multihost.barrier("run_folder_frozen")
    return frozen(workdir)["measured"]


def frozen(workdir: str) -> dict[str, Any]:
    """What `settle_frozen` kept: "fingerprints" and "measured", empty where it kept nothing."""
    path = epath.Path(workdir) / _FROZEN
    if not path.exists():
        return {"fingerprints": {}, "measured": {}}
    return _read(path, fingerprints=dict, measured=dict)


def _read(path: epath.Path, **kinds: type) -> dict[str, Any]:
    """The JSON object of a file that was written here, with values of these kinds by name."""
    try:
        found = json.loads(path.read_text())
        if all(isinstance(found[name], kind) for name, kind in kinds.items()):
            return found
    except (ValueError, TypeError, KeyError):
        pass  # Damaged, or no object of these values.
    raise ValueError(
        f"{path} must be the JSON with {' and '.join(kinds)} that train wrote, got another or a "
        "damaged file: copy it from where the run was trained"
    )
