# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The JSON files in which programs leave their numbers."""

import json
import pathlib
from typing import Any

from data_pipelines.records import atomic


def write(path: pathlib.Path, value: Any) -> None:
    """Writes `value` so that the file is whole or absent; makes its folder; refuses NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
