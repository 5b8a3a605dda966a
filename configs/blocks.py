# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of README.md that programs make: what stands between a mark of theirs and END."""

from collections.abc import Callable
import pathlib
import re

README = pathlib.Path(__file__).with_name("README.md")
END = "<!-- until here -->"


def replaced(text: str, mark: str, make: Callable[[re.Match], str]) -> str:
    """A text with all parts of a mark made anew.

    Args:
        text: of the page.
        mark: regular expression of what begins a part, a comment in HTML.
        make: what was found of the mark -> what stands behind it.

    Raises:
        ValueError: where no mark is there, or one without an end of its own.
    """
    marks = [*re.finditer(mark, text)]
    if not marks:
        raise ValueError(f"a page must have a mark such as {mark}, got none")
    parts, place = [], 0
    for found in marks:
        end = text.find(END, found.end())
        # Another comment in between is the mark of another part.
        if end < 0 or "<!--" in text[found.end() : end]:
            raise ValueError(f"{found[0]} must be followed by {END}, got another mark or none")
        parts += [text[place : found.end()], f"\n\n{make(found)}\n\n"]
        place = end
    return "".join([*parts, text[place:]])
