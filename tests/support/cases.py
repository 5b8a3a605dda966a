# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Small inputs with their right answer, which lie beside the project and may be absent."""

import os
import pathlib

import pytest

_BESIDE = pathlib.Path(__file__).parents[3] / "shared"


def folder(kind: str) -> pathlib.Path:
    """The cases of a kind, such as "sounds"; the test is skipped where they are absent.

    They are looked for below the folder that F3TOK_SHARED names, by default ../shared.
    """
    found = pathlib.Path(os.environ.get("F3TOK_SHARED", _BESIDE)) / "cases" / kind
    if not found.is_dir():
        pytest.skip(f"cases not found at {found}")
    return found
