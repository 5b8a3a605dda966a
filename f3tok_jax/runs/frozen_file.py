# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""frozen.json of a run: the models and the data that it began with, and what it measured then."""

from typing import Any

from etils import epath

from data_pipelines.records import sealed
from data_pipelines.records import small_file

NAME = "frozen.json"


def read(workdir: str, digest: str = "") -> dict[str, Any]:
    """What folder.settle_frozen kept: "fingerprints" and "measured", empty where it kept nothing.

    Args:
        workdir: run folder.
        digest: that the run's checkpoints say it has; "" where they say none.

    Raises:
        ValueError: where it is damaged, or is not what it was.
    """
    path = epath.Path(workdir) / NAME
    if not path.exists():
        if digest:
            raise missing(workdir)
        return {"fingerprints": {}, "measured": {}}
    found = sealed.read(
        small_file.read_bytes(path), str(path), {"fingerprints": dict, "measured": dict}
    )
    if digest not in ("", sealed.digest(found)):
        raise ValueError(
            f"{path} must be what the run's checkpoints were made with, got a file that was "
            "changed since: copy it from where the run was trained"
        )
    return found


def missing(workdir: str) -> ValueError:
    """The error of a run that must have the file, and has none."""
    return ValueError(
        f"{workdir} must have {NAME}, which says what its checkpoints were trained on, got none: "
        "copy it from where the run was trained"
    )
