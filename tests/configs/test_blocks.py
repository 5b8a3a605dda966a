# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What programs make of README.md lies between their marks, and nothing else is touched."""

import pytest

from configs import blocks

_PAGE = f"a\n<!-- x: one -->\nold\n{blocks.END}\nb\n<!-- y -->\nkept\n{blocks.END}\n<!-- x: two -->{blocks.END}"
_MARK = r"<!-- x: (\w+) -->"


def test_parts_of_a_mark_are_made_and_the_rest_stays():
    made = blocks.replaced(_PAGE, _MARK, lambda mark: mark[1].upper())
    assert made == (
        f"a\n<!-- x: one -->\n\nONE\n\n{blocks.END}\nb\n<!-- y -->\nkept\n{blocks.END}\n"
        f"<!-- x: two -->\n\nTWO\n\n{blocks.END}"
    )
    assert blocks.replaced(made, _MARK, lambda mark: mark[1].upper()) == made


@pytest.mark.parametrize("cut", [len(_PAGE) - 1, _PAGE.index(blocks.END)])
def test_a_mark_without_an_end_is_refused(cut):
    """At the end of the page, or where the next mark's end would be taken for its own."""
    text = _PAGE[:cut] + _PAGE[cut + len(blocks.END) :]
    with pytest.raises(ValueError, match="must be followed by"):
        blocks.replaced(text, _MARK, lambda mark: "")


def test_a_page_without_the_mark_is_refused():
    with pytest.raises(ValueError, match="must have a mark such as"):
        blocks.replaced("a", _MARK, lambda mark: "")
