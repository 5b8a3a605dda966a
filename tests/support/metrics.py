# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has written about itself."""

import contextlib
import json
import os
import pathlib
from typing import Any


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order; one that is cut short by a kill is left out."""
    lines = []
    for line in (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines
