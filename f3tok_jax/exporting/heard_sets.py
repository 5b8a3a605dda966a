# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sets of sound that weights were trained on, and the file that says so beside exported ones.

Who trains on from an exported folder has licences to keep, and no run any more to ask for them.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from data_pipelines.inputs import embedded
from data_pipelines.records import atomic
from data_pipelines.records import manifest as manifest_lib
from data_pipelines.records import small_file
from f3tok_jax.exporting import markdown

FILE_NAME = "heard_sets.json"

_SAID = ("source", "full_name")  # settings of a build that are not of a machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeardSet:
    """A set of shards that a run was trained on: its path, its weight, what it holds."""

    name: str
    weight: float
    manifest: manifest_lib.Manifest


def once(sets: Iterable[HeardSet], known: Iterable[HeardSet] = ()) -> tuple[HeardSet, ...]:
    """Each set that is not among those `known`, once."""
    found = {one.manifest.fingerprint: one for one in known}
    num_known = len(found)
    for one in sets:
        found.setdefault(one.manifest.fingerprint, one)
    return tuple(found.values())[num_known:]


def why_heard(sets: Iterable[HeardSet], measured: manifest_lib.Manifest) -> str:
    """Says why sound that is measured was heard in training, or may have been.

    Args:
        sets: that weights were trained on.
        measured: manifest of the sound.

    Returns:
        One sentence; "" where no manifest tells of it.
    """
    asked = measured.settings
    for one in sets:
        told, latents = one.manifest.settings, one.manifest.latents
        if measured.fingerprint in (one.manifest.fingerprint, latents and latents.sound):
            return f"this is what {one.name} holds, on which it was trained"
        same = [name for name in told.get("corpora", ()) if name in asked.get("corpora", ())]
        # Of one build its parts have the same settings, and share nothing.
        if same and told.get("seed", 0) == asked.get("seed", 0) and told != asked:
            return (
                f"{one.name}, on which it was trained, has clips of the embedded corpora "
                f"{', '.join(same)} with the same seed, of which some may be here: others come by "
                "another --seed of build_shards"
            )
    return ""


def write(folder: pathlib.Path, sets: Sequence[HeardSet], *, weights: str) -> None:
    """Writes what the autoencoder of an exported folder has heard.

    Args:
        folder: of the export.
        sets: all of them.
        weights: fingerprint of the autoencoder's weights as they are stored.
    """
    content = {"weights": weights, "sets": [*map(_written, sets)]}
    atomic.write_text(folder / FILE_NAME, json.dumps(content, indent=1) + "\n")


def _written(one: HeardSet) -> dict[str, Any]:
    settings = one.manifest.settings
    if settings.get("source") != embedded.SOURCE:  # none of whose settings is
        settings = {name: settings[name] for name in _SAID if name in settings}
    manifest = dataclasses.replace(one.manifest, settings=settings)
    return {
        "name": markdown.end_of(one.name),
        "weight": one.weight,
        "manifest": manifest_lib.text(manifest),
    }


def read(folder: str, *, weights: str) -> tuple[HeardSet, ...] | None:
    """What an exported autoencoder has heard.

    Args:
        folder: of the export.
        weights: fingerprint of the autoencoder's weights that are there now.

    Returns:
        The sets; None where the folder does not say it, or of other weights, as after a training
        elsewhere.
    """
    path = pathlib.Path(folder, FILE_NAME)
    try:
        content = json.loads(small_file.read_text(path))
        if content["weights"] != weights:
            return None
        return tuple(
            HeardSet(
                name=str(one["name"]),
                weight=float(one["weight"]),
                manifest=manifest_lib.parse(one["manifest"].encode(), path),
            )
            for one in content["sets"]
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
