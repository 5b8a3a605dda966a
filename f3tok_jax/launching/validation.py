# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a launch must have for its run to begin on every worker: a mesh, data, models, a folder."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os

import ml_collections

from data_pipelines.reading import mixture
from data_pipelines.reading import remote
from data_pipelines.records import manifest
from f3tok_jax.devices import sharding
from f3tok_jax.devices import slices
from f3tok_jax.launching import gcloud
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import places as places_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import programs
from f3tok_jax.training import validation

_MODEL = "a run or a model's folder"
_TFDS = "tfds:"  # a mixture's names of what tensorflow-datasets finds


@dataclasses.dataclass(frozen=True)
class Launch:
    """A run as it is about to be launched.

    Attributes:
        config: of the run.
        workdir: its folder, as every worker is to name it.
        target: slices to launch on.
        places: where what the config names lies for the workers.
        staged: local folders that are copied to where all workers read them.
        is_offline: whether no bucket is asked.
    """

    config: ml_collections.ConfigDict
    workdir: str
    target: slices.Slice
    places: places_lib.Places
    staged: Sequence[str] = ()
    is_offline: bool = False


def check(launch: Launch) -> list[str]:
    """Refuses what would end on the workers, when the slice is paid for.

    Returns:
        Sentences about what could not be looked into from here.

    Raises:
        ValueError: one sentence with the flag or key, its value and what to change.
        OSError: where a bucket refuses, likewise.
    """
    validation.validate(launch.config, registry.of(launch.config.stage))
    check_mesh(launch.config, launch.target)
    if not (remote.is_remote(launch.workdir) or launch.workdir.startswith("/")):
        raise ValueError(
            "--workdir must be a place that every worker sees (gs://... or a shared /...), got "
            f"{launch.workdir!r}"
        )
    _check_named(launch.config, "gs://BUCKET/SHARDS/train")
    data = _data(launch.config, launch.places)
    notes = [_look(launch, *named) for named in (*data, *_models(launch))]
    return list(dict.fromkeys(filter(None, notes)))


def check_here(
    config: ml_collections.ConfigDict, places: places_lib.Places, *, is_offline: bool = False
) -> None:
    """Refuses a run on this machine whose data is missing or is no shard set.

    Args:
        config: of the run.
        places: where what it names lies.
        is_offline: whether no bucket is asked.

    Raises:
        ValueError: one sentence with the key, its value and what to change.
        OSError: where a bucket refuses, likewise.
    """
    _check_named(config, "SHARDS/train")
    for key, place, file in _data(config, places):
        if not (place.startswith(_TFDS) or (is_offline and remote.is_remote(place))):
            with contextlib.suppress(ImportError):  # Training says which package it needs.
                if not _exists(place, file):
                    raise _no_such(key, place, file)


def _check_named(config: ml_collections.ConfigDict, example: str) -> None:
    if not config.data.train:
        raise ValueError(
            "--config.data.train must name the shards to train on, got none: give "
            f"--config.data.train={example}"
        )


def check_mesh(config: ml_collections.ConfigDict, target: slices.Slice) -> Mapping[str, int]:
    """The sizes of the mesh on `target`; raises ValueError where they, or a batch, do not divide."""
    sizes = sharding.mesh_shape(config.mesh, target.num_devices, target.num_slices)
    programs.check_rows(config, sizes)
    return sizes


def is_reachable(launch: Launch) -> bool:
    """Whether every run and model that the config names can be read from here."""
    return all(_is_reachable(launch, place) for _, place, _ in _models(launch))


def _is_reachable(launch: Launch, place: str) -> bool:
    if not remote.is_remote(place):
        return os.path.exists(place)
    with contextlib.suppress(ImportError):
        return not launch.is_offline and bool(remote.opened(place))
    return False


# Key, place, and the file below it without which what the key needs is not there, "" for itself.
_Named = tuple[str, str, str]


def _data(config: ml_collections.ConfigDict, places: places_lib.Places) -> Iterator[_Named]:
    section = config.data
    for key in ("train", "heldout"):
        for name, _ in mixture.parse(section[key]) if section[key] else ():
            yield f"data.{key}", places.mapped(name), manifest.FILE_NAME


def _models(launch: Launch) -> Iterator[_Named]:
    config, places = launch.config, launch.places
    sections = config_lib.frozen_models(config) | {"init_from": config.init_from}
    for name, section in sections.items():
        for key in ("workdir", "folder"):
            if key in section and section[key]:
                yield f"{name}.{key}", places.mapped(section[key]), "config.json"
    if "tokenizer" in config and config.tokenizer:
        yield "tokenizer", places.mapped(config.tokenizer), ""


def _exists(place: str, file: str) -> bool:
    """Whether there is such a file in a place, or "" for a place that is one.

    Raises:
        ImportError: where nothing here can read such a URL.
    """
    path = f"{place.rstrip('/')}/{file}".rstrip("/")
    if not remote.is_remote(path):
        return os.path.isfile(path)
    try:
        files, inside = remote.opened(path)
    except ImportError:
        if gcloud.can_ask(path):
            return gcloud.exists(path)
        raise
    return remote.ask(path, files.exists, inside)


def _look(launch: Launch, key: str, place: str, file: str) -> str:
    """A sentence about what could not be looked into, "" for nothing; raises where it is not there."""
    if place.startswith(_TFDS):
        return (
            f"config.{key}={place} must be prepared on every worker: that cannot be seen from here"
        )
    is_remote, is_staged = remote.is_remote(place), _is_staged(place, launch.staged)
    if not (is_remote or is_staged or place.startswith("/")):
        raise ValueError(
            f"config.{key} must be a place that every worker sees, got the local folder {place!r}: "
            f"copy it there by --stage={place}, or name a bucket"
        )
    if is_remote and launch.is_offline:
        return f"config.{key}={place} is not looked into by a dry run"
    try:
        there = _exists(place, file)
    except ImportError as error:
        return f"config.{key}={place} is not looked into from here: {error}"
    if there:
        shared = is_remote or is_staged
        return "" if shared else f"config.{key}={place} must lie on every worker, as it does here"
    if is_remote or is_staged or os.path.exists(place):
        raise _no_such(key, place, file)
    return f"config.{key}={place} is not here: it must lie on every worker"


def _no_such(key: str, place: str, file: str) -> ValueError:
    wanted = {manifest.FILE_NAME: "a finished shard set", "": "a file"}.get(file, _MODEL)
    return ValueError(f"config.{key} must be {wanted}, got {place}, which is none")


def _is_staged(place: str, staged: Sequence[str]) -> bool:
    whole = os.path.abspath(place)
    roots = map(os.path.abspath, staged)
    return any(os.path.commonpath([whole, root]) == root for root in roots)
