# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The colours of a page on light and on dark, by the names of its variables in CSS.

Text on page and panel has a contrast of at least 4.5, curves and marks one of 3.
"""

from collections.abc import Iterable

LIGHT = {
    "page": "#ffffff",
    "panel": "#f4f6f9",
    "ink": "#1b222d",
    "soft": "#566072",
    "line": "#d9dee6",
    "link": "#0b5a94",
    "good": "#00694d",
    "warn": "#b86e00",
    "cursor": "#d0312d",
    # Okabe and Ito's palette without its yellow and black, told apart by all kinds of colour
    # vision: its pale colours darker on light, its dark ones paler on dark.
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#008f68",
    "series-4": "#bd5b91",
    "series-5": "#2f8fc7",
    "series-6": "#b37a00",
    "series-7": "#737c8c",
}
DARK = {
    "page": "#12161d",
    "panel": "#1c222c",
    "ink": "#e4e8ef",
    "soft": "#a0aabb",
    "line": "#323a47",
    "link": "#7cbcf0",
    "good": "#4fd1a5",
    "warn": "#e69f00",
    "cursor": "#ffffff",
    "series-1": "#4a9fdc",
    "series-2": "#f07f34",
    "series-3": "#2cbf94",
    "series-4": "#dd93bb",
    "series-5": "#8fd0f5",
    "series-6": "#efb134",
    "series-7": "#98a2b2",
}
SERIES = tuple(name for name in LIGHT if name.startswith("series-"))


def style_sheet(names: Iterable[str] = LIGHT) -> str:
    """CSS that gives the variables their colours."""
    names = list(names)
    light, dark = (
        "".join(f"--{name}:{scheme[name]};" for name in names) for scheme in (LIGHT, DARK)
    )
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def as_variables(text: str) -> str:
    """A drawing in the colours of light, as one in variables that it brings itself."""
    used = [name for name, value in LIGHT.items() if value in text]
    for name in used:
        text = text.replace(LIGHT[name], f"var(--{name})")
    return text.replace("<defs>", f"<defs><style>{style_sheet(used)}</style>", 1)
