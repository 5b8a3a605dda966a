# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the licences of the sound that weights were trained on ask of the weights."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses

from data_pipelines.inputs import embedded
from data_pipelines.records import manifest as manifest_lib

_SHARE_ALIKE = "-SA-"
_MEASURING = "for measuring only"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Licences:
    """Of all sound that weights were trained on.

    Attributes:
        sources: what the sound comes from, and what a manifest says of it: "licence", "credit", "weights".
        unknown: fingerprints of sets that say nothing of licences.
    """

    sources: Sequence[tuple[str, Mapping[str, str]]]
    unknown: Sequence[str] = ()

    @classmethod
    def of(cls, manifests: Sequence[manifest_lib.Manifest]) -> "Licences":
        """Those of several sets, which may have taken other sounds of one source, under other licences."""
        sources: list[tuple[str, Mapping[str, str]]] = []
        unknown = []
        for one in manifests:
            sources += [source for source in one.licences.items() if source not in sources]
            if not one.licences and one.settings.get("source") != embedded.SOURCE:
                unknown.append(one.fingerprint[:16])
        return cls(sources=sources, unknown=tuple(unknown))

    @property
    def weights(self) -> str:
        """The licence of the weights in SPDX's words, "" where none follows: all is known, and one
        alone asks for itself."""
        asked = {part for _, one in self.sources for part in _parts(one) if _SHARE_ALIKE in part}
        is_bound = any(_MEASURING in one.get("weights", "") for _, one in self.sources)
        return asked.pop() if len(asked) == 1 and not (self.unknown or is_bound) else ""

    def said(self) -> Iterator[str]:
        """Sentences about all that is not in the name of a licence."""
        if self.unknown:
            yield f"sound of unknown licences was heard: of the sets {', '.join(self.unknown)}"
        measured = (name for name, one in self.sources if _MEASURING in one.get("weights", ""))
        bound = [*dict.fromkeys(measured)]
        if bound:
            yield (
                "these weights are for measuring and must not be passed on, as the licences of what they "
                f"were trained on have it: {', '.join(bound)}"
            )

    def to_be_named(self) -> Iterator[str]:
        """A line for each source: its licence, and whom it asks to be named."""
        for name, one in sorted(self.sources, key=lambda source: source[0]):
            version = f" {one['version']}" if "version" in one else ""
            credit = f": {one['credit']}" if one.get("credit") else ""
            yield f"{name}{version}, {one.get('licence', 'unknown')}{credit}"


def _parts(one: Mapping[str, str]) -> Sequence[str]:
    return one.get("licence", "").split(", ")
