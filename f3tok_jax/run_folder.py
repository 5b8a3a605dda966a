# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run's folder, apart from checkpoints and metrics: config, environment, logs/ and DONE."""

from collections.abc import Mapping
import json
from typing import Any

from etils import epath
import jax
import ml_collections

from f3tok_jax import config as config_lib
from f3tok_jax import multihost

_DONE = "DONE"


def done_step(workdir: str) -> int | None:
    """Returns the step at which a run was finished, or None where it was not."""
    path = epath.Path(workdir) / _DONE
    return json.loads(path.read_text())["step"] if path.exists() else None


def mark_done(workdir: str, step: int) -> None:
    """Process 0 writes DONE; all processes must call it."""
    if jax.process_index() == 0:
        _write_whole(epath.Path(workdir) / _DONE, json.dumps({"step": step}) + "\n")
    multihost.barrier("run_folder_done")


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
            (folder / "logs").mkdir(parents=True, exist_ok=True)
            _write_whole(
                folder / "logs" / "environment.json", json.dumps(environment, indent=2) + "\n"
            )
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


def append_log(workdir: str, name: str, entry: Mapping[str, Any]) -> None:
    """Process 0 appends a JSON line to logs/`name`; for rare entries: buckets rewrite the file."""
    if jax.process_index() != 0:
        return
    path = epath.Path(workdir) / "logs" / name
    before = path.read_text() if path.exists() else ""
    _write_whole(path, before + json.dumps(entry) + "\n")


def _write_whole(path: epath.Path, text: str) -> None:
    """Writes under a temporary name, which is renamed when whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
