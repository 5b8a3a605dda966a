# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Reliability anchors: which tests show which, and a table of them at the end of a run.

A plugin of pytest. `--reliability` runs the tests that are marked alone and prints the table; the
names of a test's anchors travel with its report, so that the processes of pytest-xdist count too.
"""

import collections

import pytest

NAMES = tuple(f"R{number:02d}" for number in range(1, 33))
_PROPERTY = "reliability"


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "run the tests of the reliability anchors alone, and end with a table of them"
    parser.addoption("--reliability", action="store_true", help=text)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = []
    for item in items:
        names = {name for mark in item.iter_markers("reliability") for name in mark.args}
        if unknown := names - set(NAMES):
            raise pytest.UsageError(
                f"anchors of reliability are {NAMES[0]} to {NAMES[-1]}, got {sorted(unknown)} at "
                f"{item.nodeid}"
            )
        item.user_properties.extend((_PROPERTY, name) for name in sorted(names))
        if not names:
            others.append(item)
    if config.getoption("reliability") and others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Prints the table."""
    if not config.getoption("reliability"):
        return
    counts = {name: collections.Counter() for name in NAMES}
    seconds = collections.Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name in _anchors(report):
                counts[name][outcome] += 1
    for report in (each for group in terminalreporter.stats.values() for each in group):
        for name in _anchors(report):
            seconds[name] += report.duration
    terminalreporter.section("reliability")
    for name in NAMES:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts[name].items())
        terminalreporter.write_line(f"{name}  {outcomes or 'none':40} {seconds[name]:7.1f} s")


def _anchors(report) -> list[str]:
    properties = getattr(report, "user_properties", ())
    return [value for key, value in properties if key == _PROPERTY]
