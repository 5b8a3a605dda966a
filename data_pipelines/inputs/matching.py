# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which sound of a folder is meant by a name in a table, if it is one and one alone.

A name is a path relative to the folder or to the table's own folder, with or without its ending.
Where there is no such sound, the longest end of the path that is also the end of a sound's path
decides: paths of another machine. Unicode's ways to write a letter and the case of letters do not
separate a name from a sound, only two sounds from each other.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import itertools
import os
import unicodedata

from data_pipelines.sound import audio_files

_ENDINGS = audio_files.ENDINGS | {".sph", ".pcm", ".raw"}
# How a sound was found, the surest first.
BY_PATH, BY_END, BY_SIDE, BY_NAME = range(4)
_DIFFERENCES = ("", "Unicode form", "case")


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A sound that was found.

    Attributes:
        key: of the item; "" for a sound that the input leaves out.
        how: BY_PATH, BY_END; BY_SIDE, in a folder beside that of the name, or BY_NAME, which are
            right only if `folders` are the same throughout.
        length: how many parts of the path agree.
        differs: "" or what of the spelling differs: "Unicode form" or "case".
        folders: the folders that differ, in the table and on the disk, where `how` is one of these.
    """

    key: str
    how: int
    length: int
    differs: str = ""
    folders: tuple[str, str] = ("", "")


class Ambiguous(Exception):
    """A name that two sounds have."""

    def __init__(self, candidates: Sequence[str]):
        super().__init__(" and ".join(candidates[:2]))


class Sounds:
    """The sounds of a folder, to be found by what a table calls them."""

    def __init__(self, root: str, names: Mapping[str, str]):
        """Takes names in for the search.

        Args:
            root: the folder.
            names: path of a sound relative to it -> key of its item, "" for one that is left out.
        """
        self.root, self._keys = os.path.realpath(root), names
        self._below = os.path.join(self.root, "")
        endings = {os.path.splitext(name)[1].lower() for name in names}
        self._endings = (endings | _ENDINGS) - {""}
        self._stems = collections.defaultdict(list)  # folded path without its ending -> names
        for name in names:
            self._stems[_fold(os.path.splitext(name)[0])].append(name)

    @functools.cached_property
    def _ends(self) -> dict[str, list[str]]:
        """Folded end of a path without its ending, of any number of parts -> names."""
        ends = collections.defaultdict(list)
        for stem, names in self._stems.items():
            for place in range(stem.count("/") + 1):
                ends[stem.split("/", place)[-1]] += names
        return ends

    def knows(self, name: str, folder: str = "") -> bool:
        """Whether `find` would find a sound, or several."""
        try:
            return self.find(name, folder) is not None
        except Ambiguous:
            return True

    def find(self, name: str, folder: str = "") -> Match | None:
        """Returns the sound that a table calls `name`, None if there is none.

        Args:
            name: as the table has it.
            folder: of the table.

        Raises:
            Ambiguous: if several sounds have that name.
        """
        name = normal(name)
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        inside = dict.fromkeys(self._inside(name, folder))
        exact = [found for path in inside for found in self._named(path, self._stems)]
        if exact:
            found, differs = self._choice(exact, name, len(parts))
            return Match(self._keys[found], BY_PATH, len(parts), differs)
        for place in range(len(parts)):
            found = self._named("/".join(parts[place:]), self._ends)
            if found:
                is_inside = bool(inside) and name.startswith("/")
                beside = self._by_side(inside, found) if is_inside else None
                return beside or self._by_end(parts, place, found, is_inside)
        return None

    def _inside(self, name: str, folder: str) -> Iterable[str]:
        """Paths relative to the root that `name` can be, seen from there or from `folder`."""
        plain, there = not name.startswith(("/", "..")), _real(folder) if folder else self.root
        if plain:
            yield name
        if there != self.root or not plain:
            for above in dict.fromkeys((self.root, there)):
                path = os.path.normpath(os.path.join(above, name))
                if path.startswith(self._below):
                    yield path[len(self._below) :]

    def _named(self, name: str, index: Mapping[str, list[str]]) -> list[str]:
        """Sounds of a name that may or may not have an ending."""
        stem, ending = os.path.splitext(name)
        found = index.get(_fold(name), [])
        return found + index.get(_fold(stem), []) if ending.lower() in self._endings else found

    def _by_end(
        self, parts: Sequence[str], place: int, found: Sequence[str], is_inside: bool
    ) -> Match | None:
        """The sound whose path ends as `parts` do from `place` on: as they do from no later on."""
        length = len(parts) - place
        all_of_it = [name for name in found if name.count("/") + 1 == length]
        if place == 0 or (all_of_it and not is_inside):
            chosen, differs = self._choice(all_of_it or found, "/".join(parts), length)
            above = zip(reversed(parts[:place]), reversed(self.root.split("/")))
            same = list(itertools.takewhile(lambda pair: _fold(pair[0]) == _fold(pair[1]), above))
            return Match(self._keys[chosen], BY_END, length + len(same), differs)
        if len({_fold(os.path.splitext(name)[0]) for name in found}) > 1:
            return None  # Neither lies where the table says, and the name alone is that of several.
        chosen, differs = self._choice(found, "/".join(parts), length)
        theirs = "/".join(chosen.split("/")[:-length][-1:])
        folders = (parts[place - 1], theirs)
        return Match(self._keys[chosen], BY_NAME, length, differs, folders)

    def _by_side(self, inside: Iterable[str], found: Sequence[str]) -> Match | None:
        """The one of several sounds of a name whose path differs in one folder alone."""
        if len({_fold(os.path.splitext(name)[0]) for name in found}) < 2:
            return None
        matches = []
        for path, name in itertools.product(inside, found):
            wanted, parts = path.split("/"), os.path.splitext(name)[0].split("/")
            differ = [pair for pair in zip(wanted, parts) if _fold(pair[0]) != _fold(pair[1])]
            if len(wanted) == len(parts) and len(differ) == 1:
                matches.append(Match(self._keys[name], BY_SIDE, len(parts) - 1, "", differ[0]))
        return matches[0] if len(matches) == 1 else None

    def _choice(self, found: Sequence[str], name: str, length: int) -> tuple[str, str]:
        """Of sounds of one name the one that is spelled as it is, and how it differs."""
        wanted, ending = os.path.splitext(name)
        if ending.lower() not in self._endings:
            wanted, ending = name, ""
        ranks = collections.defaultdict(dict)
        for candidate in found:
            stem, its_ending = os.path.splitext(normal(candidate))
            common = min(length, stem.count("/") + 1)
            rank = (_difference(_end(stem, common), _end(wanted, common)), its_ending != ending)
            ranks[rank].setdefault(self._keys[candidate] or candidate, candidate)
        best = min(ranks)
        if len(ranks[best]) > 1:
            raise Ambiguous(sorted(ranks[best].values()))
        return next(iter(ranks[best].values())), _DIFFERENCES[best[0]]


@functools.lru_cache(maxsize=256)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def normal(name: str) -> str:
    """A path as a table has it with slashes, of whatever system it is."""
    name = name.strip().removeprefix("file://").replace("\\", "/")
    return os.path.normpath(name) if "/" in name or "." in name[:2] else name


def _fold(name: str) -> str:
    """What names have in common that differ in case or in Unicode's way to write a letter."""
    name = name.replace("\\", "/")
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _difference(name: str, other: str) -> int:
    if name == other:
        return 0
    return 1 if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other) else 2


def _end(name: str, length: int) -> str:
    return "/".join(name.split("/")[-length:])
