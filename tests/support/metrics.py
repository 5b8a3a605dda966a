# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has written about itself."""

import os
import pathlib
from typing import Any

from f3tok_jax.runs import sealed_lines


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order; one that is not whole is left out."""
    with open(pathlib.Path(workdir) / "metrics.jsonl", "rb") as file:
        lines = [line.content for line in sealed_lines.read(file)]
    return [line for line in lines if line is not None]
