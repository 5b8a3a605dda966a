# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings out of Debian's packages as an input, with what each package tells of them.

Labels of a sound: package, kind ("speech", "music", "effect"), licence; language, speaker and role
where the package tells them.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib

from data_pipelines.inputs import joining
from data_pipelines.inputs import listing
from data_pipelines.inputs import matching
from data_pipelines.inputs import tables
from data_pipelines.inputs.debian import apt
from data_pipelines.inputs.debian import catalogue
from data_pipelines.inputs.debian import dialogs
from data_pipelines.inputs.debian import doubts
from data_pipelines.inputs.debian import stamps
from data_pipelines.inputs.debian import utterances
from data_pipelines.records import user_cache
from data_pipelines.sound import audio_files
from data_pipelines.sound import g722

_TEXTS = {"dialogs": dialogs, "stamps": stamps, "utterances": utterances}
_DECODERS = {"g722": g722}
_ENDINGS = audio_files.ENDINGS | {g722.ENDING}
_OF_PEOPLE = ("speaker", "role", "language")  # labels that music and effects do not have


@dataclasses.dataclass(frozen=True)
class Recordings(listing.OfFiles):
    """Sounds of packages that lie unpacked in a cache.

    Attributes:
        names: of sets and packages, as `catalogue.choices` takes them.
        unpacked: the packages that their sounds and texts lie in.
    """

    names: tuple[str, ...]
    unpacked: tuple[apt.Unpacked, ...]

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest: not where the cache is."""
        versions = {package.name: package.version for package in self.unpacked}
        return {"source": "debian", "input": list(self.names), "packages": versions}

    def listed(self) -> listing.Listing:
        """Lists the sounds, one package after the other, each joined with what is said in it.

        Raises:
            ValueError: where a package is laid out otherwise than packages.toml has it.
        """
        items, skipped, rows = [], collections.Counter(), collections.Counter()
        remarks, licences = [], {}
        for name in _packages(self.names):
            found = self._of_package(catalogue.packages()[name], skipped, len(items))
            items += found.items
            rows.update(found.rows)
            licences |= found.licences
            remarks += found.remarks
        return listing.Listing(
            tuple(items),
            dict(sorted(skipped.items())),
            dict(rows),
            tuple(remarks),
            licences=licences,
            together={label: tuple(_together(items, label)) for label in _OF_PEOPLE},
        )

    @contextlib.contextmanager
    def opened(self, item: listing.Item) -> Iterator[audio_files.Sound]:
        """Opens the file of `item`, with its texts and labels; one of G.722 is known by its name."""
        if not item.key.endswith(g722.ENDING):
            with super().opened(item) as sound:
                yield sound
            return
        with g722.opened(self._path(item)) as sound:
            yield dataclasses.replace(sound, texts=item.texts, labels=dict(item.labels))

    def _path(self, item: listing.Item) -> str:
        name, _, path = item.key.partition("/")
        return os.path.join(self._package(name).root, path)

    def _package(self, name: str) -> apt.Unpacked:
        return next(package for package in self.unpacked if package.name == name)

    def _of_package(
        self, package: catalogue.Package, skipped: collections.Counter, start: int
    ) -> listing.Listing:
        """Its items from `start` on, what became of rows, its licence; counts what is passed over."""
        root = self._package(package.name).root
        choices = catalogue.choices(self.names)
        takes = [choice for choice in choices if choice.package in ("", package.name)]
        found = {}
        for path in _files(root):
            fits = package.part(path)
            if not fits:
                ending = os.path.splitext(path)[1].lower()
                is_sound = ending in _ENDINGS
                skipped["sound that is not described" if is_sound else ending or "no ending"] += 1
            elif not any(choice.takes(package.name, fits[0]) for choice in takes):
                skipped[f"{fits[0].kind}, not asked for"] += 1
            else:
                found[path] = fits
        if not found:
            raise ValueError(self._otherwise(package.name, "sounds at the paths that are known"))
        joined = self._joined(package.name, root, {path: part for path, (part, _) in found.items()})
        doubtful = doubts.found(
            root, {path: joined.texts(f"{package.name}/{path}") for path in found}
        )
        items = []
        for path, (part, labels) in found.items():
            key = f"{package.name}/{path}"
            texts = () if path in doubtful else joined.texts(key)
            if not any(
                choice.takes(package.name, part) and (texts or not choice.with_text)
                for choice in takes
            ):
                skipped["speech without text, not asked for"] += 1
                continue
            labels = {"package": package.name, **labels, **joined.labels(key)}
            size = os.stat(os.path.join(root, path)).st_size
            items.append(listing.Item(key, size, start + len(items), texts, labels))
        licence = self._licence(package, {item.labels["licence"] for item in items})
        return listing.Listing(
            tuple(items),
            {},
            _without(joined.summary(), len(doubtful)),
            (
                f"{package.name} {_said(licence)}",
                *joined.remarks,
                *_doubted(package.name, doubtful),
            ),
            licences={package.name: licence},
        )

    def _joined(self, name: str, root: str, parts: Mapping[str, catalogue.Part]) -> joining.Joined:
        """What texts say of the sounds of a package, path -> part."""
        keys = {path: f"{name}/{path}" for path in parts}
        joined = joining.Joined(matching.Sounds(root, keys), list(keys.values()))
        for texts in dict.fromkeys(part.texts for part in parts.values() if part.texts):
            of_texts = [path for path, part in parts.items() if part.texts == texts]
            owner = parts[of_texts[0]].texts_of or name
            found = _TEXTS[texts].rows(self._package(owner).root, of_texts)
            if not any(row.texts for row in found):
                raise ValueError(self._otherwise(owner, f"{texts} of {name}"))
            group = joining.Group(f"{texts} of {name}", [tables.Table(tuple(found))])
            joined.add(group)
        return joined

    def _otherwise(self, name: str, what: str) -> str:
        version = self._package(name).version
        return (
            f"the package {name} must have {what}, got none in its version {version}, which is laid "
            "out otherwise: leave it out of --input"
        )

    def _licence(self, package: catalogue.Package, licences: Iterable[str]) -> dict[str, str]:
        strictest = sorted(licences, key=catalogue.is_for_measuring)
        return {
            "version": self._package(package.name).version,
            "licence": ", ".join(sorted(licences)),
            "weights": "; ".join(dict.fromkeys(map(catalogue.weights, strictest))),
            "credit": package.credit,
            "notice": package.notice,
        }


def choose(names: Sequence[str], *, data_dir: str, say: Callable[[str], None]) -> Recordings:
    """Chooses sounds and fetches their packages where they are not in the cache yet.

    Args:
        names: of sets and packages.
        data_dir: the cache; "" for that of the user.
        say: told what is fetched.

    Raises:
        ValueError: for an unknown name, for two packages of the same sounds, or where a package
            cannot be had.
        ModuleNotFoundError: where a package's sounds cannot be decoded here.
    """
    wanted = _packages(names)
    _check_decoders(wanted)
    texts = [part.texts_of for name in wanted for part in catalogue.packages()[name].parts]
    needed = dict.fromkeys([*wanted, *filter(None, texts)])
    cache = pathlib.Path(data_dir) if data_dir else user_cache.folder("debian")
    found = apt.unpacked(list(needed), cache.absolute(), say)
    return Recordings(tuple(names), tuple(found.values()))


def _check_decoders(names: Sequence[str]) -> None:
    """Refuses packages whose sounds cannot be decoded here, before any is fetched."""
    for name in names:
        decoder = catalogue.packages()[name].decoder
        reason = _DECODERS[decoder].missing() if decoder else None
        if reason:
            raise ModuleNotFoundError(f"{name}: {reason}")


def _packages(names: Sequence[str]) -> list[str]:
    """Packages of which some part is chosen.

    Raises:
        ValueError: where two of them have the same sounds.
    """
    choices = catalogue.choices(names)
    found = [
        name
        for name, package in catalogue.packages().items()
        if any(choice.takes(name, part) for choice in choices for part in package.parts)
    ]
    for name in found:
        other = catalogue.packages()[name].same_as
        if other in found:
            raise ValueError(
                f"--input must name sounds once, got {name} beside {other}, by itself or in a set, "
                "which has the same at a higher rate: leave one of them out"
            )
    return found


def _files(root: str) -> list[str]:
    """Relative paths of the files of a package, sorted; a link has no sound of its own."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(root) for name in names]
    return sorted(os.path.relpath(path, root) for path in paths if not os.path.islink(path))


def _said(licence: Mapping[str, str]) -> str:
    return "{version}: {licence}, weights trained on it: {weights}; see its {notice}".format(
        **licence
    )


def _without(rows: Mapping[str, int], num_doubtful: int) -> dict[str, int]:
    """What became of rows, some of whose texts are not used."""
    if not num_doubtful:
        return dict(rows)
    return {**rows, "matched": rows["matched"] - num_doubtful, "doubtful": num_doubtful}


def _doubted(name: str, doubtful: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each reason for which texts of a package are not used."""
    for reason in dict.fromkeys(doubtful.values()):
        paths = [path for path, why in doubtful.items() if why == reason]
        yield f"texts of {name} that are not used, {reason}: {len(paths)}, such as of {paths[0]}"


def _together(items: Sequence[listing.Item], label: str) -> Iterator[tuple[str, ...]]:
    """Keys of sounds that may be of one value of a label: of a package's language one has none.

    Where nobody tells who speaks, it may be any of those who speak that language in that package.
    """
    speech = collections.defaultdict(list)
    for item in items:
        if item.labels["kind"] != "speech":
            yield (item.key,)
        else:
            speech[item.labels["package"], item.labels.get("language")].append(item)
    for group in speech.values():
        if not all(label in item.labels for item in group):
            yield tuple(item.key for item in group)
