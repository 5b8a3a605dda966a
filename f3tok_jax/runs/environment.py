# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run was started with: command, versions, devices, code; and what all hosts must have alike."""

from collections.abc import Mapping
import datetime
import importlib.metadata
import os
import socket
import sys
from typing import Any

import jax
import ml_collections

from f3tok_jax.devices import slices
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import code
from f3tok_jax.runs import config as config_lib

# What decides which program the compiler makes.
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS")


def facts(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Name -> what every process of a run must have alike before it meets the others.

    Args:
        config: of the run, each of whose values is a fact.
    """
    found = {f"config.{key}": str(value) for key, value in config_lib.flatten(config).items()}
    found |= {"python": sys.version.split()[0], "code": code.fingerprint()}
    return found | versions() | {name: os.environ.get(name, "") for name in _VARIABLES}


def environment(fingerprints: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns what this session of a run was started with, ready for JSON.

    Args:
        fingerprints: name -> of the data and the models that it begins with.

    Returns:
        "git" is there where it is known: its "diff" is what differs from its commit.
    """
    git = code.provenance()
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": sys.argv,
        "python": sys.version,
        "versions": versions(),
        "locks": code.locks(),
        "code": code.fingerprint(),
        "fingerprints": dict(fingerprints or {}),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "slices": slices.count(jax.devices()),
        "topology": _topology(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        **({"git": git} if git else {}),
    }


def versions() -> dict[str, str]:
    """Those of a checkpoint, of this package, and of TPUs' compiler, "" where that is absent."""
    found = checkpoint_meta.versions()
    for name in ("f3tok_jax", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _topology() -> str:
    """Chips along each axis of a slice, such as "4x4x1"; "" where devices have no place."""
    places = [getattr(device, "coords", None) for device in jax.devices()]
    if not all(places):
        return ""
    return "x".join(str(max(axis) - min(axis) + 1) for axis in zip(*places))
