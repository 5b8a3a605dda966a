# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A live line on a terminal: how far a run is, below all that it says."""

from collections.abc import Callable, Mapping
import contextlib
import sys
from typing import Any

MODES = ("auto", "on", "off")
_FORMAT = "{percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt}{postfix}"


class Bar:
    """A bar, where there is somebody to watch it; a context that takes it away at its end.

    A terminal that is gone costs the bar alone.

    Attributes:
        say: prints a line, above the bar while there is one.
    """

    def __init__(self, say: Callable[[str], None], *, mode: str = "off"):
        """Shows nothing yet.

        Args:
            say: prints a line.
            mode: one of MODES; "auto" is on where standard error is a terminal.
        """
        self._say = say
        self._is_wanted = mode == "on" or (mode == "auto" and sys.stderr.isatty())
        self._bar: Any = None

    def begin(self, step: int, num_steps: int) -> None:
        """Shows the bar of a run of which so many steps are taken."""
        if self._is_wanted:
            with self._drawing():
                import tqdm  # late: logs need none

                options = dict(file=sys.stderr, dynamic_ncols=True, bar_format=_FORMAT)
                self._bar = tqdm.tqdm(initial=step, total=num_steps, leave=False, **options)

    def advance(self) -> None:
        """One more step is taken."""
        if self._bar is not None:
            with self._drawing():
                self._bar.update()

    def tell(self, values: Mapping[str, str]) -> None:
        """Puts short values behind the bar."""
        if self._bar is not None:
            with self._drawing():
                self._bar.set_postfix_str("  ".join(map(" ".join, values.items())))

    def say(self, text: str) -> None:
        """Prints a line, above the bar."""
        if self._bar is None:
            self._say(text)
            return
        with self._drawing():
            self._bar.clear()
        self._say(text)
        with self._drawing():
            self._bar.refresh()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            with self._drawing():
                self._bar.close()
            self._bar = None

    @contextlib.contextmanager
    def _drawing(self):
        """What goes wrong with the terminal ends the bar, and nothing else."""
        try:
            yield
        except (OSError, ValueError, ImportError):  # gone, closed, or tqdm is not installed
            self._bar = None
