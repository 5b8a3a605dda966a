# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A bar on a terminal, none in a log, and none where the terminal is gone."""

import io
import sys

import pytest

from f3tok_jax.training import bar as bar_lib


class _Terminal(io.StringIO):
    """Standard error as a terminal, which may go."""

    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


def _run(mode: str, terminal, monkeypatch, *, goes: bool = False) -> list[str]:
    """Two steps of ten under a bar; what was said."""
    monkeypatch.setattr(sys, "stderr", terminal)
    said = []
    with bar_lib.Bar(said.append, mode=mode) as bar:
        bar.say("compiled")
        bar.begin(4, 10)
        bar.advance()
        terminal.is_gone = goes
        bar.tell({"eta": "0:01:00", "mfu": "0.4"})
        bar.say("step 5/10")
        bar.advance()
    return said


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_terminal_shows_the_step_and_what_is_left_beside_the_lines(mode, monkeypatch):
    terminal = _Terminal()
    assert _run(mode, terminal, monkeypatch) == ["compiled", "step 5/10"]
    assert "5/10, eta 0:01:00  mfu 0.4" in terminal.getvalue()


@pytest.mark.parametrize(("mode", "kind"), [("auto", io.StringIO), ("off", _Terminal)])
def test_a_log_has_lines_alone(mode, kind, monkeypatch):
    terminal = kind()
    assert _run(mode, terminal, monkeypatch) == ["compiled", "step 5/10"]
    assert terminal.getvalue() == ""


def test_a_terminal_that_goes_takes_the_bar_alone(monkeypatch):
    assert _run("on", _Terminal(), monkeypatch, goes=True) == ["compiled", "step 5/10"]


def test_without_tqdm_there_is_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    terminal = _Terminal()
    assert _run("on", terminal, monkeypatch) == ["compiled", "step 5/10"]
    assert terminal.getvalue() == ""
