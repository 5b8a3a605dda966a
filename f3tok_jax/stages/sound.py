# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What stages that are trained on sound have in common: their batches, and what follows from
their configs."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import ml_collections

from data_pipelines.reading import arrangement
from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import pipeline
from data_pipelines.reading import suitability
from data_pipelines.reading import tasks
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as sound_lib


def derived(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> dict[str, float]:
    """Returns what follows from the config of a stage on latents or waveforms, by name with unit.

    Args:
        config: of the stage.
        run: that it trains; None for one without a folder.
    """
    sound = (run or lineage.Lineage(config=config)).sound
    rate = sound.latent_rate
    seconds = seconds_per_batch(config, sound)
    return {
        "latent_rate_hz": rate,
        "samples_per_latent": sound.samples_per_latent,
        "values_per_second": rate * sound.latent_dim,
        "crop_samples": crop_length(config, sound),
        "crop_seconds": config.data.crop_frames / rate,
        "seconds_per_batch": seconds,
        "hours_of_sound": config.num_steps * seconds / 3600,
    }


def crop_length(config: ml_collections.ConfigDict, sound: sound_lib.Sound) -> int:
    """Samples of an example."""
    return config.data.crop_frames * sound.samples_per_latent


def seconds_per_batch(config: ml_collections.ConfigDict, sound: sound_lib.Sound) -> float:
    """Seconds of sound in a global batch."""
    return config.data.batch_size * crop_length(config, sound) / sound.sample_rate


def open_pipeline(
    names: str,
    *,
    config: ml_collections.ConfigDict,
    sound: sound_lib.Sound,
    crops: Mapping[str, Any],
    check: Callable[[], None] = lambda: None,
    **hosts: Any,
) -> pipeline.Pipeline:
    """Opens shards for a stage.

    Args:
        names: folders of shards, as in config.data.train.
        config: of the stage.
        sound: of its latents.
        crops: what the stage tells pipeline.Pipeline of its examples.
        check: raises ValueError where something is missing without which no batch is of use.
        **hosts: train, process_index and process_count of mixture_pipeline.Options, and what is to be
            other than the config has it.
    """
    check()
    return pipeline.Pipeline(
        names,
        mixture_pipeline.Options(
            **{
                "batch_size": config.data.batch_size,
                "seed": config.seed,
                "max_replaced": config.data.max_replaced,
                "num_threads": config.data.num_threads,
                **hosts,
            }
        ),
        sample_rate=sound.sample_rate,
        crop_length=crop_length(config, sound),
        **crops,
    )


def text_tasks(
    folder: str, weights: Mapping[str, float], max_tokens: int
) -> tasks.TextTasks | None:
    """The tasks that have a weight, in tokens of the language model in `folder`; None without."""
    weighted = {name: weight for name, weight in weights.items() if weight}
    return tasks.TextTasks(folder, weighted, max_tokens) if folder else None


def shared_rows(
    config: ml_collections.ConfigDict,
    sound: sound_lib.Sound,
    needs: Callable[[int, int], Mapping[str, int]],
    *,
    max_tokens: int,
) -> arrangement.Rows:
    """What neighbours in a batch share, by config.packing.

    Args:
        config: of the stage.
        sound: of its latents.
        needs: (latents, tokens of text) of an example -> what it takes of a row, under the names of
            config.packing.
        max_tokens: of an example.
    """
    section, most = config.packing, needs(config.data.crop_frames, max_tokens)
    whole = {name: section.examples * most[name] for name in most}
    return arrangement.Rows(
        examples=section.examples,
        room={name: min(section[name] or whole[name], whole[name]) for name in whole},
        needs=needs,
        samples_per_frame=sound.samples_per_latent,
    )


def of_latents(
    config: ml_collections.ConfigDict,
    run: lineage.Lineage,
    text: tasks.TextTasks | None,
    rows: arrangement.Rows | None,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Fields of stage.Stage that stages on latents have alike.

    Args:
        config: of the stage.
        run: the run of it that is about to begin.
        text: what each record is asked.
        rows: that examples share; None where each has its own.
        check: as in `open_pipeline`.
    """
    sound, fingerprints = run.sound, run.frozen_fingerprints(language_model=True)
    crops = {"random_crop": False, "text": text, "rows": rows, "bound": _bound(config, rows)}
    crops["autoencoder"] = run.latents_fingerprint if "autoencoder" in fingerprints else None
    return {
        "open_data": functools.partial(
            open_pipeline, config=config, sound=sound, check=check, crops=crops
        ),
        "frozen_fingerprints": fingerprints,
        "sample_rate": sound.sample_rate,
        "per_batch": seconds_per_batch(config, sound),
    }


def _bound(config: ml_collections.ConfigDict, rows: arrangement.Rows | None) -> suitability.Bound:
    """How much of a corpus may be lost, by the keys of a config that say so."""
    section = "supervision" if "supervision" in config else "text"
    keys = {name: f"packing.{name}" for name in (("examples", *rows.room) if rows else ())}
    keys |= {"max_lost": "data.max_lost", "crop_length": "data.crop_frames"}
    keys |= {"max_tokens": f"{section}.max_tokens"}
    names = {name: f"config.{key}" for name, key in keys.items()}
    return suitability.Bound(max_lost=config.data.max_lost, names=names)
