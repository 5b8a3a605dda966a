# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where what can be made or fetched again lies, as the XDG base directories have it."""

import os
import pathlib


def folder(name: str) -> pathlib.Path:
    """The folder of that name in the user's cache; it need not be there."""
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = given if given.is_absolute() else pathlib.Path.home() / ".cache"
    return cache / "f3tok_jax" / name
