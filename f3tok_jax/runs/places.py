# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where what a run names lies now: runs and folders move, and are known by their fingerprints."""

import argparse
from collections.abc import Callable, Iterator, Mapping
import dataclasses
import json
import os
import posixpath
import re
from typing import Any, TypeVar

from data_pipelines.records import atomic
from data_pipelines.records import small_file

_VARIABLE = "F3TOK_PATH"
_FILE = "places.json"

Found = TypeVar("Found")


class Unfit(ValueError):
    """What lies at a place is not what is sought; the message says in a few words why."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where to look, beside where a run says.

    Attributes:
        moved: a place, or a folder above it -> where it lies now.
        path: folders in which what is not where it was may lie, by its name or another.
    """

    moved: Mapping[str, str] = dataclasses.field(default_factory=dict)
    path: tuple[str, ...] = dataclasses.field(default_factory=lambda: _search_path())

    def find(
        self,
        given: str,
        fits: Callable[[str], Found],
        *,
        sought: str,
        run: str = "",
        hint: str = "",
        is_known: bool = False,
    ) -> Found:
        """The first place that fits, and what `fits` makes of it.

        Tried in this order: where the mapping says, where it lies as seen from the run's own
        folder, as given, beside the run, and in the search path.

        Args:
            given: the place as a config names it, from the current folder.
            fits: place -> what is there; raises Unfit, or another ValueError, where it is not it.
            sought: what is sought, for the message.
            run: folder of the run that names it, "" for one that is about to begin.
            hint: its place as seen from there, "" if unknown.
            is_known: whether `fits` knows its fingerprint, so that any name will do.

        Raises:
            ValueError: naming every place that was tried, and what helps.
        """
        refused = {}
        for place in self._candidates(given, run, hint, is_known):
            if (key := _whole(place)) in refused:
                continue
            try:
                return fits(place)
            except Unfit as error:
                refused[key] = f"{error} in {place}"
            except (ValueError, OSError, ImportError) as error:
                if not is_known and not run and not self.moved and not self.path:
                    raise
                refused[key] = f"{place}: {error}"
        tried = "; ".join(refused.values())
        raise ValueError(
            f"{sought}, got {tried}: give it back, say where it lies now by --map={given}=PLACE, or "
            f"name the folder above it in ${_VARIABLE}"
        )

    def _candidates(self, given: str, run: str, hint: str, is_known: bool) -> Iterator[str]:
        folders = _folders_of(run)
        own = [joined(folder, hint) for folder in folders if hint]
        beside = [joined(folder, f"../{_name(given)}") for folder in folders if is_known]
        named = [*own, given, *beside]
        for place in named:
            if (mapped := self.mapped(place)) != place:
                yield mapped
        yield from named
        for folder in self.path:
            yield joined(folder, _name(given))
            if _name(folder) == _name(given):
                yield folder
        if is_known:
            for folder in self.path:
                yield from _below(folder)

    def mapped(self, place: str) -> str:
        """A place, or where the mapping says that it lies now; the longest name decides."""
        for old in sorted(self.moved, key=lambda old: len(_whole(old)), reverse=True):
            for known, name in ((place, old), (_whole(place), _whole(old))):
                if known == name or known.startswith(name.rstrip("/") + "/"):
                    return self.moved[old].rstrip("/") + known[len(name.rstrip("/")) :]
        return place

    def mapped_mixture(self, text: str) -> str:
        """What config.data names, shards with their weights, each where the mapping says."""
        if not self.moved or not text:
            return text
        from data_pipelines.reading import mixture

        named = [(self.mapped(name), weight) for name, weight in mixture.parse(text)]
        if [weight for _, weight in named] == [1.0]:
            return named[0][0]
        return ",".join(f"{name}={weight!r}" for name, weight in named)


def keep(workdir: str, found: Mapping[str, str]) -> None:
    """Writes down in a run's folder where what it names lies, as seen from there.

    Mere hints: what is found by them is held to the run's fingerprints.

    Args:
        workdir: of the run.
        found: name of a model -> its place, from the current folder.
    """
    content = {name: relative(place, workdir) for name, place in sorted(found.items())}
    if content != kept(workdir):
        from etils import epath

        atomic.write_text(epath.Path(workdir) / _FILE, json.dumps(content, indent=2) + "\n")


def kept(workdir: str) -> dict[str, str]:
    """What `keep` wrote; nothing where there is no such file, or it is damaged."""
    from etils import epath

    try:
        found = json.loads(small_file.read_text(epath.Path(workdir) / _FILE))
        return {name: place for name, place in found.items() if isinstance(place, str)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def add_flag(add: Callable[..., Any]) -> None:
    """Adds --map to the flags of a program, as `moved`: pairs of old and new, None for none."""
    add(
        "--map",
        dest="moved",
        action="append",
        type=_pair,
        metavar="OLD=NEW",
        help="where a run or model that the run names lies now, or a folder above it; may be given "
        f"more than once. Folders in ${_VARIABLE}, with : between, are searched too",
    )


def _pair(text: str) -> tuple[str, str]:
    parts = text.split("=")
    splits = [("=".join(parts[:at]), "=".join(parts[at:])) for at in range(1, len(parts))]
    pairs = [tuple(map(os.path.expanduser, pair)) for pair in splits if all(pair)]
    if not pairs:
        raise argparse.ArgumentTypeError(f"must be OLD=NEW, got {text!r}")
    # A name may have that sign in it: NEW is what is there.
    return next((pair for pair in pairs if os.path.exists(pair[1])), pairs[0])


def joined(folder: str, place: str) -> str:
    """A place as seen from a folder, local or of a bucket; it does not leave its bucket."""
    if "://" in place or place.startswith("/"):
        return place
    scheme, mark, path = folder.rpartition("://")
    if not mark:
        return posixpath.normpath(posixpath.join(folder, place))
    bucket, _, path = path.partition("/")
    inside = posixpath.normpath(posixpath.join("/", path, place)).lstrip("/")
    return f"{scheme}://{bucket}/{inside}"


def _folders_of(run: str) -> list[str]:
    """Where a run lies: one that is reached by a link may have its neighbours in either place."""
    if not run or "://" in run:
        return [run] if run else []
    return [run, os.path.realpath(run)]


def relative(place: str, folder: str) -> str:
    """A place as seen from a folder; as it is where it lies on another disk or in another bucket."""
    start, end = _whole(folder), _whole(place)
    roots = [path.split("/")[:3] if "://" in path else [] for path in (start, end)]
    return posixpath.relpath(end, start) if roots[0] == roots[1] else place


def _whole(place: str) -> str:
    """A place by which it can be compared: local ones from the root on."""
    return place.rstrip("/") if "://" in place else os.path.abspath(place)


def _name(place: str) -> str:
    return posixpath.basename(place.rstrip("/"))


def _below(folder: str) -> Iterator[str]:
    """What lies directly in a folder, in the order of the names."""
    from etils import epath

    path = epath.Path(folder)
    try:
        names = sorted(one.name for one in path.iterdir() if (one / "config.json").exists())
    except OSError:
        return
    yield from (joined(folder, name) for name in names)


def _search_path() -> tuple[str, ...]:
    # The mark of a bucket's scheme is none between two folders.
    folders = re.split(r":(?!//)", os.environ.get(_VARIABLE, ""))
    return tuple(os.path.expanduser(folder) for folder in folders if folder)
