# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A Chromium for tests of pages: $CHROMIUM, or of the PATH; without one a test is skipped."""

from collections.abc import Iterator
import contextlib
import os
import shutil

import pytest

_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")


@contextlib.contextmanager
def started(*options: str) -> Iterator:
    """Playwright's browser, begun with `options` besides those that all want."""
    from playwright import sync_api

    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
    if not program:
        pytest.skip("there is no chromium on the PATH: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        given = dict(executable_path=program, args=[*_OPTIONS, *options])
        with playwright.chromium.launch(**given) as found:
            yield found


def until(page, said: str) -> None:
    """Waits until it is so; wait_for_function is no script of the page and may not run there."""
    for _ in range(500):
        if page.evaluate(said):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"not so after ten seconds: {said}")
