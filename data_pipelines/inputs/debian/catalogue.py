# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What Debian's packages hold, of packages.toml, and the sets of their sounds that can be named."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import importlib.resources
import re
import tomllib

KINDS = ("speech", "music", "effect")
_MEASURING = "for measuring only"
# Licence -> what becomes of weights that were trained on its sounds; those of others are not shipped.
_WEIGHTS = {
    "CC0-1.0": "may be shipped",
    "BSD-2-Clause": "may be shipped with its notice",
    "BSD-like": "may be shipped with its notice",
    "CC-BY-3.0": "may be shipped naming its authors",
    "CC-BY-SA-3.0": "may be shipped under the same licence, naming its authors",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """Sounds of one kind in a package; see packages.toml."""

    path: str
    kind: str
    licence: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    speakers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    texts: str = ""
    texts_of: str = ""

    def fits(self, path: str) -> dict[str, str] | None:
        """Labels of the sound at a path in the package; None if it is not of this part."""
        found = re.fullmatch(self.path, path)
        if not found:
            return None
        groups = {name: value for name, value in found.groupdict().items() if value}
        labels = {"kind": self.kind, "licence": self.licence, **self.labels, **groups}
        speaker = self.speakers.get(labels.get("language", ""))
        return labels | ({"speaker": speaker} if speaker else {})


@dataclasses.dataclass(frozen=True)
class Package:
    """A package: its name, what it is in a line, whom it asks to be named, and its parts.

    Its `decoder` is what its sounds need; `same_as` another package that has them at a higher rate.
    """

    name: str
    what: str
    credit: str
    parts: tuple[Part, ...]
    decoder: str = ""
    same_as: str = ""

    @property
    def notice(self) -> str:
        """Path in the package of its copyright file."""
        return f"usr/share/doc/{self.name}/copyright"

    def part(self, path: str) -> tuple[Part, dict[str, str]] | None:
        """The part that the sound at a path is of, and its labels; None for what is described nowhere."""
        fits = ((part, part.fits(path)) for part in self.parts)
        return next(((part, labels) for part, labels in fits if labels is not None), None)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Sounds that a name stands for; an empty field takes all."""

    what: str
    package: str = ""
    kind: str = ""
    with_text: bool = False
    shippable: bool = False

    def takes(self, package: str, part: Part) -> bool:
        """Whether it takes any sound of a part of a package; a set takes a sound from one package."""
        return (
            (self.package == package or not (self.package or packages()[package].same_as))
            and self.kind in ("", part.kind)
            and bool(part.texts or not self.with_text)
            and not (self.shippable and is_for_measuring(part.licence))
        )


SETS = {
    "speech": Choice("all speech", kind="speech"),
    "speech_text": Choice("speech whose words are known", kind="speech", with_text=True),
    "music": Choice("music", kind="music"),
    "effects": Choice("sounds that are neither", kind="effect"),
    "shippable": Choice("all whose licence lets trained weights be shipped", shippable=True),
    "all": Choice("all"),
}


def is_for_measuring(licence: str) -> bool:
    """Whether weights that were trained on sounds of a licence are not to be shipped."""
    return weights(licence) == _MEASURING


def weights(licence: str) -> str:
    """What becomes of weights that were trained on sounds of a licence, in a few words."""
    return _WEIGHTS.get(licence, _MEASURING)


@functools.cache
def packages() -> dict[str, Package]:
    """Name -> package, of all that are described."""
    text = importlib.resources.files(__package__).joinpath("packages.toml").read_text("utf-8")
    found = tomllib.loads(text)
    shared = found.pop("shared")
    return {name: _package(name, fields, found, shared) for name, fields in found.items()}


def _package(name: str, fields: Mapping, found: Mapping, shared: Mapping) -> Package:
    """A package of its table; one that is the same as another has all but its own words from it."""
    same_as = fields.get("same_as", "")
    of_parts = found[same_as] if same_as else fields
    return Package(
        name,
        fields["what"],
        of_parts["credit"],
        tuple(
            Part(**{"licence": of_parts["licence"], **part})
            for part in (*shared.get(of_parts.get("shared"), ()), *of_parts["parts"])
        ),
        decoder=fields.get("decoder", ""),
        same_as=same_as,
    )


def choices(names: Sequence[str]) -> tuple[Choice, ...]:
    """What names stand for: sets, packages, and PACKAGE/KIND.

    Raises:
        ValueError: for a name of nothing, or none.
    """
    found = []
    for name in names:
        package, slash, kind = name.partition("/")
        kinds = {part.kind for part in packages()[package].parts} if package in packages() else ()
        if name in SETS:
            found.append(SETS[name])
        elif package in packages() and (kind in kinds or not slash):
            found.append(Choice(packages()[package].what, package=package, kind=kind))
        else:
            wanted = f"{package}/ and {' or '.join(sorted(kinds))}" if kinds else _known()
            raise ValueError(f"--input must name {wanted}, got {name!r}")
    if not found:
        raise ValueError(f"--source=debian needs --input: {_known()}, with commas between")
    return tuple(found)


def _known() -> str:
    return f"sets ({', '.join(SETS)}) or packages ({', '.join(packages())})"


def described() -> str:
    """Lines for --help: the sets, then the packages with their licences."""
    lines = [(name, choice.what) for name, choice in SETS.items()]
    for name, package in packages().items():
        licences = dict.fromkeys(part.licence for part in package.parts)
        lines.append((name, f"{package.what}; {', '.join(licences)}"))
    return "\n".join(f"  {name:<30} {what}" for name, what in lines)
