# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps from the console what the threads of a save or a restore print of errors that are raised, too.

A full disk is said in one sentence; Orbax would print a traceback for each of its threads before.
"""

import os
import sys
from typing import Any

from absl import logging

_FROM = f"{os.sep}orbax{os.sep}"
_LATE = "Event loop is closed"  # for TensorStore, which answers when the read or write is given up


def keep_quiet() -> None:
    """Drops such lines from now on; more than once is as good as once."""
    logging.get_absl_logger().addFilter(_is_news)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


def _is_news(record: Any) -> bool:
    return not (record.exc_info and _FROM in record.pathname)


class _Hook:
    """What Python calls with an exception that nobody can catch."""

    def __init__(self, otherwise):
        self._otherwise = otherwise

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != _LATE:
            self._otherwise(unraisable)
