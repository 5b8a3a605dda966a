# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps from the console what the threads of a save or a restore print of errors that are raised, too.

A full disk is said in one sentence; Orbax would print a traceback for each of its threads before.
"""

import logging
import os
import re
import sys
from typing import Any

from absl import logging as absl_logging

_FROM = f"{os.sep}orbax{os.sep}"
# Of TensorStore's writes, one or several together: what one array meets is raised; the others of the
# save meet it, too.
_UNASKED = re.compile(r"\w*Future exception was never retrieved")
_LATE = "Event loop is closed"  # for TensorStore, which answers when the read or write is given up


def keep_quiet() -> None:
    """Drops such lines from now on; more than once is as good as once."""
    for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(_is_news)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line is neither an error of Orbax's nor a task that it gave up for one."""
    said = record.getMessage()
    given_up = record.name == "asyncio" and (_FROM in said or _UNASKED.match(said))
    return not given_up and not (record.exc_info and _FROM in record.pathname)


class _Hook:
    """What Python calls with an exception that nobody can catch."""

    def __init__(self, otherwise):
        self._otherwise = otherwise

    def __call__(self, unraisable: Any) -> None:
        # What one array met is raised; the others of the same read met it, too.
        code = getattr(unraisable.object, "cr_code", None)
        of_orbax = code is not None and _FROM in code.co_filename
        if str(unraisable.exc_value) != _LATE and not of_orbax:
            self._otherwise(unraisable)
