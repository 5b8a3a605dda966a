# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which code runs: a fingerprint of its files, and where they come from."""

import functools
import hashlib
import pathlib
import subprocess
from typing import Any

_TREE = pathlib.Path(__file__).parents[2]
_PACKAGES = ("data_pipelines", "f3tok_jax")
_SECONDS = 30  # for git, of a large tree on a slow disk


@functools.cache
def fingerprint() -> str:
    """16 digits of the names and the content of every module, whatever git says of them."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_TREE / package).rglob("*.py")):
            digest.update(f"{path.relative_to(_TREE)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """What git says: "commit", "branch", whether it is "dirty", and the "diff" to that commit.

    Asked where the code is a checkout, read where it was sent as an archive or an image; {} where
    nobody knows.
    """
    script = _TREE / "launch" / "provenance.sh"
    try:
        done = subprocess.run(
            ["bash", str(script)], check=True, capture_output=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    head, _, diff = done.stdout.decode(errors="replace").partition("\n\n")
    found = dict(line.partition(": ")[::2] for line in head.splitlines())
    if not found.keys() >= {"commit", "branch", "dirty"}:
        return {}
    return found | {"dirty": found["dirty"] == "yes", "diff": diff}


def locks() -> dict[str, str]:
    """Name -> SHA-256 of each file that pins what is installed."""
    paths = sorted((_TREE / "launch").glob("*.lock"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
