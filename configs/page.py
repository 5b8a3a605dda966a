# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Makes configs/VALUES.md: every value of every preset, what it is and where it comes from.

    python -m configs.page

All of it is read from the recipes: values from `get_config`, the rest from the comments beside them
(configs/comments.py). A value that has no comment or no source is refused.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
import pathlib
import re
import sys
import types
from typing import Any

import ml_collections

from configs import autoencoder
from configs import comments
from configs import diffusion_transformer
from configs import generation
from configs import language_model
from configs import representation
from configs import semantic_autoencoder
from configs import semantic_bottleneck
from configs import semantic_encoder
from configs import sources

PATH = pathlib.Path(__file__).with_name("VALUES.md")

# The presets that have a column of their own, first the one that the others are compared with.
_RECIPES: Mapping[types.ModuleType, Sequence[str]] = {
    autoencoder: ("base", "large", "small", "tiny"),
    semantic_autoencoder: semantic_autoencoder.PRESETS,
    language_model: ("base", "small", "tiny"),
    representation: ("base", "large", "small", "tiny"),
    generation: ("base", "large", "small", "tiny"),
    diffusion_transformer: ("base", "tiny"),
    semantic_encoder: ("base", "tiny"),
    semantic_bottleneck: ("base", "tiny"),
}
# Keys that say which recipe it is, and the recipes of other pages that one has within it.
_LEFT_OUT = (
    ("stage",),
    ("family",),
    ("preset",),
    ("representation", "recipe"),
    ("autoencoder", "recipe"),
    ("semantic_encoder", "recipe"),
    ("semantic_bottleneck", "recipe"),
)
_SHARED = "In every recipe"
_NAMED = re.compile("|".join(re.escape(name) for name in sources.ALL))

_HEAD = """\
<!-- Made by `python -m configs.page` of the recipes in this folder. Change those, then run it again. -->

# Every value of every preset, and where it comes from

How to read it: a table has a row for each key, to be set with `--config.KEY=VALUE`. The first column of
values is the preset that most will train; in the others an empty cell means the same. The last column
names the source, with the name of a preset before it where that one's value has another. Presets
without a column of their own are listed below their table with all that differs. Where a preset's cell
has no source of its own, it is *chosen* for the size of that preset.

Nothing of `base` and `large` has been trained by this project: what they cost is computed (`README.md`),
what they reach is not known.

{links}
"""


def make(recipes: Mapping[types.ModuleType, Sequence[str]] = _RECIPES) -> str:
    """Returns the page.

    Raises:
        ValueError: naming every value that has no comment, or none that says where it comes from.
    """
    pages = [_Recipe(module, columns) for module, columns in recipes.items()]
    missing = [line for page in pages for line in page.missing()]
    if missing:
        raise ValueError(
            "every value of a recipe needs a comment that says what it is and, in brackets, where it "
            f"comes from ({', '.join(sources.ALL)}), such as `# values per latent [F3]`; "
            f"{len(missing)} have none: {'; '.join(missing)}"
        )
    names = [(f"`{name}`", sources.ALL[name]) for name in sources.ALL]
    titles = [*(f"configs/{page.name}" for page in pages), _SHARED, "Sources"]
    anchors = [re.sub("[^a-z_-]", "", title.lower().replace(" ", "-")) for title in titles]
    links = [f"[{title}](#{anchor})" for title, anchor in zip(titles, anchors)]
    shared = set.intersection(*(page.plain_rows() for page in pages))
    parts = [_HEAD.format(links=" · ".join(links))]
    parts += [part for page in pages for part in page.text(leave_out=shared)]
    rows = [_plain(row) for row in pages[0].rows() if _plain(row) in shared]
    parts += [f"## {_SHARED}", table(("key", "value", "what it is", "from"), rows)]
    parts += ["## Sources", table(("in the tables", "what it is"), names)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


class _Recipe:
    """A recipe's part of the page."""

    def __init__(self, module: types.ModuleType, columns: Sequence[str]):
        self.name = pathlib.Path(module.__file__).name
        self.columns = columns
        self.others = [preset for preset in module.PRESETS if preset not in columns]
        presets = [*columns, *self.others]
        self.configs = {preset: module.get_config(preset) for preset in presets}
        self.values = {preset: dict(_leaves(self.configs[preset])) for preset in presets}
        self.notes = {preset: comments.read(module, preset) for preset in presets}

    def missing(self) -> Iterator[str]:
        """The values that nothing is said of, as "key (file:line)", each once."""
        told = set()
        for preset, values in self.values.items():
            for path in values:
                notes = self.notes[preset].of(path)
                place = notes[-1].place if notes else f"configs/{self.name}"
                has_source = notes and _NAMED.match(notes[-1].source)
                if (has_source and any(note.text for note in notes)) or (path, place) in told:
                    continue
                told.add((path, place))
                yield f"{'.'.join(path)} ({place})"

    def rows(self) -> list[tuple[str, ...]]:
        """Of each key the cells: its name, its values, what it is, where it comes from."""
        return [self._row(path) for path in self._paths(self.columns)]

    def plain_rows(self) -> set[tuple[str, ...]]:
        """The rows of keys that all presets have in common, without their empty cells."""
        return {_plain(row) for row in self.rows()} - {()}

    def text(self, leave_out: Set[tuple[str, ...]]) -> list[str]:
        """Headline, what follows from the values, their table, and the presets without a column."""
        parts = [f"## configs/{self.name}", table(*sources.facts(self.configs, self.columns))]
        rows = [row for row in self.rows() if _plain(row) not in leave_out]
        parts.append(table(("key", *self.columns, "what it is", "from"), rows))
        return parts + [self._other(preset) for preset in self.others]

    def _paths(self, presets: Sequence[str]) -> list[comments.Path]:
        """The keys of some presets, in the recipe's own order."""
        first = self.notes[presets[0]]
        paths = dict.fromkeys(path for preset in presets for path in self.values[preset])
        return sorted(paths, key=first.rank)

    def _row(self, path: comments.Path) -> tuple[str, ...]:
        first, *others = self.columns
        shown = _show(self.values[first].get(path))
        cells = [shown]
        for preset in others:
            other = _show(self.values[preset].get(path))
            cells.append("" if other == shown else other)
        having = [preset for preset in self.columns if path in self.values[preset]]
        meaning, source = self._said(having[0], path)
        usual = self.notes[having[0]].of(path)[-1]
        for preset in having[1:]:
            note = self.notes[preset].of(path)[-1]
            if note.is_own and note != usual:
                source += f". {preset}: {f'{note.text}; ' if note.text else ''}{note.source}"
        return (f"`{'.'.join(path)}`", *cells, meaning, source)

    def _said(self, preset: str, path: comments.Path) -> tuple[str, str]:
        """What a key is, and where its value in a preset comes from."""
        notes = self.notes[preset].of(path)
        last, own = notes[-1], [note for note in notes if note.is_own and note.source]
        source = last.source
        if own and own[-1].source.startswith(source):
            source = own[-1].source
        meaning = next(note.text for note in notes if note.text)
        return meaning[:1].upper() + meaning[1:], source

    def _other(self, preset: str) -> str:
        """A preset as another with a few values changed, the one of which there are fewest."""
        mine = self.values[preset]

        def differing(column: str) -> list[comments.Path]:
            paths = self._paths([preset, column])
            return [path for path in paths if self.values[column].get(path) != mine.get(path)]

        nearest = min(self.columns, key=lambda column: len(differing(column)))
        changes = [f"`{'.'.join(path)}` {_show(mine.get(path))}" for path in differing(nearest)]
        return f"`{preset}` is `{nearest}` with {', '.join(changes)}."


def _plain(row: Sequence[str]) -> tuple[str, ...]:
    """Key, value, meaning and source of a row with one value; () for another."""
    return () if any(row[2:-2]) else (*row[:2], *row[-2:])


def _leaves(
    config: ml_collections.ConfigDict, path: comments.Path = ()
) -> Iterator[tuple[comments.Path, Any]]:
    for name, value in config.items():
        here = (*path, name)
        if here in _LEFT_OUT:
            continue
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, here)
        else:
            yield here, value


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _show(value: Any) -> str:
    """A value as a reader would write it; "none" for a key that the preset has not."""
    if value is None or value == "":
        return "none" if value is None else '""'
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1e4 else f"{value:g}".replace("e-0", "e-")
    if isinstance(value, tuple | list):
        nested = any(isinstance(item, tuple | list) for item in value)
        items = [_show(item) for item in value]
        return " ".join(f"({item})" for item in items) if nested else ", ".join(items)
    return f"{value}"


if __name__ == "__main__":
    try:
        PATH.write_text(make(), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"{error}")
