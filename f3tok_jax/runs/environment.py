# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run was started with: command, versions, devices, commit."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import jax

from f3tok_jax.runs import checkpoint_meta


def environment() -> dict[str, Any]:
    """Returns what this run was started with, ready for JSON; "git" where the code is a checkout."""
    variables = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS")
    return {
        "command": sys.argv,
        "python": sys.version,
        "versions": checkpoint_meta.versions(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "variables": {name: os.environ[name] for name in variables if name in os.environ},
        **_git_state(),
    }


def _git_state() -> dict[str, Any]:
    """The commit of the code and whether tracked files differ from it; {} outside a checkout."""
    file = pathlib.Path(__file__)

    def ask(*arguments: str) -> str:
        # Without the optional locks: another command of the user's may be at work there.
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    try:
        # A package installed inside somebody's repository is not of that repository.
        ask("ls-files", "--error-unmatch", file.name)
        changed = ask("status", "--porcelain", "--untracked-files=no")
        return {"git": {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}}
    except (OSError, subprocess.SubprocessError):
        return {}
