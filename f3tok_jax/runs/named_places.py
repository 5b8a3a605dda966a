# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a config names that must be there before a run can begin: data, models, earlier runs."""

from collections.abc import Callable, Sequence
import os
import re

import ml_collections

from data_pipelines.reading import mixture
from data_pipelines.reading import remote
from data_pipelines.reading import sources
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import places as places_lib


def of(config: ml_collections.ConfigDict, places: places_lib.Places) -> list[tuple[str, str]]:
    """Key and place of each set of shards, model and run, where the mapping says that it lies now.

    A mixture has several.
    """
    flat = config_lib.flatten(config)
    sections = (*config_lib.frozen_models(config), "init_from")
    keys = [f"{name}.{part}" for name in sections for part in ("workdir", "folder")]
    named = [(key, places.mapped(flat[key])) for key in (*keys, "tokenizer") if flat.get(key)]
    for key in ("data.train", "data.heldout"):
        if text := flat.get(key):
            named += [(key, places.mapped(name)) for name in _sets(text)]
    return [(key, name) for key, name in named if not name.startswith(sources.TFDS_PREFIX)]


def _sets(text: str) -> list[str]:
    """The names of a mixture; as they are written where this machine cannot ask the bucket."""
    try:
        return [name for name, _ in mixture.parse(text)]
    except (ImportError, OSError):
        return [re.sub(r"=[0-9.e+-]+$", "", entry.strip()) for entry in text.split(",")]


def check_reachable(
    config: ml_collections.ConfigDict,
    places: places_lib.Places,
    *,
    staged: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Refuses, before a launch to other machines, what only this one has.

    Args:
        config: of the run.
        places: with the mapping of the launch.
        staged: folders of this machine that the launch copies to where the workers find them.
        say: where it is said what cannot be known here.

    Raises:
        ValueError: naming the key and the place.
    """
    given = {folder: "gs://staged" for folder in staged}  # any URL: it will be one
    kept = places_lib.Places({**places.moved, **given}, places.path)
    for key, place in of(config, kept):
        if remote.is_remote(place):
            continue
        if not os.path.isabs(place) or os.path.exists(place):
            here = "is on this machine alone" if os.path.exists(place) else "is not here"
            raise ValueError(
                f"config.{key} must be where the workers can read it, got {place!r}, which {here}: "
                f"name its place in a bucket, or a local folder above it by --stage"
            )
        say(f"config.{key}: {place} is not here; it must be on every worker")
