# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Models that come with the package, by name: exported folders in f3tok_jax/shipped."""

from collections.abc import Sequence
import importlib.resources
import os
import pathlib

DEFAULT = "small"  # what is used where no model is named


def root() -> pathlib.Path:
    """Where they lie; there need not be any."""
    return pathlib.Path(str(importlib.resources.files("f3tok_jax"))) / "shipped"


def names() -> Sequence[str]:
    """Of all that there are."""
    return sorted(path.parent.name for path in root().glob("*/config.json"))


def find(name: str) -> str | None:
    """The folder of a name; None where no model of that name comes with the package."""
    return str(root() / name) if name in names() else None


def named(folder: str) -> str:
    """A folder as it is given; or, where nothing lies there, that of the model of this name if one is
    shipped: as files go before names elsewhere, too."""
    return folder if os.path.lexists(folder) else find(folder) or folder
