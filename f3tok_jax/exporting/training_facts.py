# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of how a run was trained: what its folder says, and its data, if it is the same."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from data_pipelines.reading import mixture
from data_pipelines.reading import remote
from data_pipelines.records import manifest as manifest_lib
from data_pipelines.records import small_file
from f3tok_jax.exporting import heard_sets
from f3tok_jax.models import semantic_coder
from f3tok_jax.runs import exported
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import history as history_lib
from f3tok_jax.runs import lineage
from f3tok_jax.stages import registry
from f3tok_jax.training import initialization
from f3tok_jax.training import stage as stage_lib

# Stages of which a run is a part of an autoencoder; the first was itself trained on the second.
_HEARD_THROUGH = (semantic_coder.BOTTLENECK, semantic_coder.ENCODER)
_PUBLISHED = "published weights of a semantic encoder"
_EXPORTED = "the folder that it was exported to does not say it of these weights"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one run, at the step that is exported.

    Attributes:
        run: whose they are.
        sets: that it was trained on, to the last record; none where that is not known.
        why_unknown: why there are none.
        earlier: sets that the weights which it began with were trained on, and those before them; none
            where it began with none, None where any of it is unknown.
        seconds: of sound in its batches up to the step; None where unknown.
        is_measured: whether padding is left out of it; else it is that much at most.
        environment: of its last start: device, devices, versions; empty where unknown.
        history: curves and results; None where unknown.
        hears_through: of the run whose frozen weights are among its own, of a semantic bottleneck or a
            semantic encoder; None where there is none.
        published: the weights of others that are, in words; "" for none.
    """

    run: lineage.Lineage
    sets: Sequence[heard_sets.HeardSet] = ()
    why_unknown: str = ""
    earlier: Sequence[heard_sets.HeardSet] | None = ()
    seconds: float | None = None
    is_measured: bool = False
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    history: history_lib.RunHistory | None = None
    hears_through: "Facts | None" = None
    published: str = ""

    @property
    def heard(self) -> Sequence[heard_sets.HeardSet] | None:
        """All sets that its weights have heard, each once; None where any of it is unknown."""
        frozen = self.hears_through.heard if self.hears_through else ()
        if not self.sets or self.earlier is None or frozen is None or self.published:
            return None
        return heard_sets.once((*self.sets, *self.earlier, *frozen))

    def values_of(self, label: str) -> set[str] | None:
        """What a label says of the sound of all sets; None where one does not have or list it."""
        if self.heard is None:
            return None
        found = [one.manifest.labels.get(label) for one in self.heard]
        return set().union(*found) if all(found) else None


def gather(run: lineage.Lineage) -> Facts:
    """Reads what a run and its data tell; what cannot be read is unknown, and no error."""
    if isinstance(run, exported.Exported):
        found = heard_sets.read(run.workdir, weights=run.fingerprint)
        return Facts(run=run, sets=found or (), why_unknown="" if found else _EXPORTED)
    try:
        stage = registry.of(run.stage).make(run.config, run)
    except (ValueError, OSError):  # whose words have the paths of this machine
        stage, why = None, "a model that it was trained on is not where it was"
    else:
        why = _why_unknown(run, stage)
    heard = next(filter(None, map(run.parents.get, _HEARD_THROUGH)), None)
    history = _history(run.workdir)
    filled = _filled(run, history)
    return Facts(
        run=run,
        sets=() if why else _sets(run),
        why_unknown=why,
        earlier=_earlier(run, stage),
        seconds=_seconds(run, stage, filled),
        is_measured=filled is not None,
        environment=_environment(run.workdir),
        history=history,
        hears_through=gather(heard) if heard else None,
        published=_PUBLISHED if run.semantic_weights else "",
    )


def named(run: lineage.Lineage) -> Sequence[heard_sets.HeardSet]:
    """Sets that a run and its parents name as their data, as they lie now: quick, and less sure than `gather`."""
    if isinstance(run, exported.Exported):
        return heard_sets.read(run.workdir, weights=run.fingerprint) or ()
    before = [one for parent in run.parents.values() for one in named(parent)]
    try:
        return [*before, *_sets(run)]
    except (ValueError, OSError):
        return before


def _why_unknown(run: lineage.Lineage, stage: stage_lib.Stage) -> str:
    """Why what lies where the run's data lay cannot be said to be it; "" where it is.

    Opened as for training, it has a fingerprint of all that decides which example comes when.
    """
    given, bound = run.config.data.train, run.trained_on.get(run_folder.DATA)
    if not given or not bound:
        return "the run does not say what it was trained on"
    try:
        place = run.places.mapped_mixture(given)
        if any(remote.is_remote(name) for name, _ in mixture.parse(place)):
            return "its data lies in a bucket, which was not read for this page"
        hosts = dict(process_index=0, process_count=1)
        found = stage.open_data(place, train=True, **hosts).fingerprint
    except (ValueError, OSError, ImportError):
        return "its data is not where it was when this page was written"
    return "" if found == bound else "other data lies now where its own was"


def _sets(run: lineage.Lineage) -> tuple[heard_sets.HeardSet, ...]:
    return tuple(
        heard_sets.HeardSet(
            name=name,
            weight=weight,
            manifest=manifest_lib.read(name),
        )
        for name, weight in mixture.parse(run.places.mapped_mixture(run.config.data.train))
    )


def _earlier(
    run: lineage.Lineage, stage: stage_lib.Stage | None
) -> Sequence[heard_sets.HeardSet] | None:
    """What the weights that a run began with were trained on; None where that is not known."""
    weights = run.trained_on.get(run_folder.WEIGHTS)
    if not weights:
        return ()
    read_exported = stage.read_exported if stage else None
    try:
        return gather(initialization.source(run, weights, read_exported=read_exported)).heard
    except (ValueError, OSError):
        return None


def _filled(run: lineage.Lineage, history: history_lib.RunHistory | None) -> float | None:
    """Share of its batches up to the step that was sound; None where the run has not measured it."""
    curve = history and history.curves.get(stage_lib.FILLED)
    if not curve:
        return None
    found = [value for step, value in zip(curve.steps, curve.values) if step <= run.step]
    return sum(found) / len(found) if found else None


def _seconds(
    run: lineage.Lineage, stage: stage_lib.Stage | None, filled: float | None
) -> float | None:
    """Of sound in all batches, padding left out where it was measured."""
    if stage is None or stage.unit != stage_lib.AUDIO_SECONDS:
        return None
    return run.step * stage.per_batch * (1.0 if filled is None else filled)


def _history(workdir: str) -> history_lib.RunHistory | None:
    if "://" in workdir:
        return None
    try:
        return history_lib.read(pathlib.Path(workdir), name="")
    except ValueError:
        return None


def _environment(workdir: str) -> Mapping[str, Any]:
    if "://" in workdir:
        return {}
    try:
        path = pathlib.Path(workdir, "logs", "environment.json")
        found = json.loads(small_file.read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
