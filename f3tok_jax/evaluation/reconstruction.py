# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder on held-out sound, beside baselines of as many values per second."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import os
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np

from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import sources
from f3tok_jax.evaluation import baselines
from f3tok_jax.evaluation import contenders as contenders_lib
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import listening_folder
from f3tok_jax.evaluation import metrics
from f3tok_jax.evaluation import scores as scores_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import results_file

FORMAT = "f3tok evaluation 1"
_ORIGINAL = "original"
_MAX_FIT_SECONDS = 3600.0  # of sound for the principal components: they settle long before


def fit_pca(
    mixture: str, *, sample_rate: int, frame_length: int, latent_dim: int
) -> baselines.PcaCodec:
    """Fits the PCA reference on at most an hour of sound, evenly spaced over a mixture's parts."""
    parts = [
        sources.open_sound(name, sample_rate=sample_rate) for name, _ in mixtures.parse(mixture)
    ]

    def waveforms() -> Iterator[np.ndarray]:
        for part in parts:
            mean_seconds = part.seconds / len(part)
            wanted = int(_MAX_FIT_SECONDS / len(parts) / mean_seconds) + 1
            examples, _ = examples_lib.read_examples(part, wanted)
            yield from (example.waveform for example in examples)

    return baselines.fit_pca(waveforms(), frame_length=frame_length, latent_dim=latent_dim)


def score(
    contenders: Sequence[contenders_lib.Contender],
    examples: Sequence[examples_lib.Example],
    *,
    model: contenders_lib.Model,
    latent_dim: int,
    sample_rate: int,
    batch_size: int,
    visqol_keys: set[str],
    say: Callable[[str], None],
    on_sound: Callable[[int, str, np.ndarray], None],
) -> tuple[scores_lib.Scores, dict[str, Any], dict[str, float]]:
    """Codes every example with every contender and compares.

    Args:
        contenders: rows of the table.
        examples: held-out sounds.
        model: whose latents are measured.
        latent_dim: their width.
        sample_rate: Hz.
        batch_size: examples at a time.
        visqol_keys: of the examples that ViSQOL hears; it takes seconds per second of sound.
        say: where progress goes.
        on_sound: called with (index of the example, row, waveform) for every sound.

    Returns:
        The scores, the latent statistics, and row -> Frechet distance of its spectra.
    """
    scores, statistics = scores_lib.Scores(), scores_lib.LatentStatistics(latent_dim)
    spectra = scores_lib.SpectrumStatistics(sample_rate)
    names = tuple(name for name in metrics.METRICS if name not in metrics.missing())
    start = time.monotonic()

    def compare(example: examples_lib.Example, estimate: np.ndarray):
        chosen = tuple(n for n in names if n != "visqol" or example.key in visqol_keys)
        return metrics.compare(example.waveform, estimate, sample_rate=sample_rate, names=chosen)

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(examples), batch_size):
            batch = examples[first : first + batch_size]
            for frames in model.frames(batch):
                statistics.add(frames)
            for example in batch:
                spectra.add(_ORIGINAL, example.waveform)
            for contender in contenders:
                estimates = contender.reconstruct(batch)
                for compared in pool.map(compare, batch, estimates):
                    scores.add(contender.name, *compared)
                for index, estimate in enumerate(estimates, first):
                    spectra.add(contender.name, estimate)
                    on_sound(index, contender.name, estimate)
            done = first + len(batch)
            say(f"evaluated {done} of {len(examples)} examples, {time.monotonic() - start:.0f} s")
    return scores, statistics.summary(), spectra.distances(_ORIGINAL)


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    num_examples: int = 200,
    fit_shards: str = "",
    batch_size: int = 8,
    visqol_examples: int = 2,
    num_listen: int = 4,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluates a run; writes `output` and the sounds beside it.

    Args:
        workdir: of an autoencoder run.
        shards: held-out shard set, or tfds:NAME@SPLIT#FEATURE.
        output: JSON file to write.
        step: of the checkpoint; None for the newest whole one.
        num_examples: evenly spaced over the set; 0 for all.
        fit_shards: the same, or a mixture, for the PCA reference; "" for the run's training data.
        batch_size: sounds coded at a time.
        visqol_examples: how many examples of a second or more ViSQOL hears; it takes over a second
            of a core per second of sound.
        num_listen: examples of which sounds are written.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        ValueError: if the run, the data or the numbers do not fit together.
    """
    for name, value, least in (
        ("num_examples", num_examples, 0),
        ("batch_size", batch_size, 1),
        ("visqol_examples", visqol_examples, 0),
        ("listen", num_listen, 0),
    ):
        if value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    run = lineage.Lineage.read(workdir, step, stage="autoencoder")
    module, params, run = pretrained_autoencoder.load(run, say=say)
    config, step = run.config, run.step
    sample_rate, latent_dim = config.model.sample_rate, config.model.latent_dim
    source = sources.open_sound(shards, sample_rate=sample_rate)
    fit_shards = fit_shards or _training_data(config, workdir)
    examples, unreadable = examples_lib.read_examples(source, num_examples)
    model = contenders_lib.Model(
        module,
        params,
        batch_size=batch_size,
        num_samples=max(len(example.waveform) for example in examples),
    )
    say(f"fitting the PCA reference on {fit_shards}")
    contenders = contenders_lib.make_contenders(
        model,
        fit_pca(
            fit_shards,
            sample_rate=sample_rate,
            frame_length=model.samples_per_latent,
            latent_dim=latent_dim,
        ),
        baselines.MelCodec(
            sample_rate=sample_rate,
            samples_per_latent=model.samples_per_latent,
            latent_dim=latent_dim,
        ),
    )
    for name, reason in metrics.missing().items():
        say(f"{name}: {reason}")
    listener = listening_folder.ListeningFolder(
        output, examples, num_listen=num_listen, sample_rate=sample_rate
    )
    scores, latents, spectra = score(
        contenders,
        examples,
        model=model,
        latent_dim=latent_dim,
        sample_rate=sample_rate,
        batch_size=batch_size,
        say=say,
        on_sound=listener.write,
        visqol_keys=_visqol_keys(examples, visqol_examples, sample_rate),
    )
    results = {
        "format": FORMAT,
        "workdir": str(workdir),
        "step": step,
        "config": config.to_dict(),
        "shards": _describe(source, sample_rate),
        "fit_shards": fit_shards,
        "num_examples": len(examples),
        "seconds": sum(len(example.waveform) for example in examples) / sample_rate,
        "unreadable": unreadable,
        "noise_seed": contenders_lib.NOISE_SEED,
        "latents": {"rate": sample_rate / model.samples_per_latent, "dim": latent_dim} | latents,
        **scores_lib.table(contenders, scores),
        "spectral_frechet_distance": spectra,
        "listen": listener.index(),
    }
    results_file.write(output, results)
    return results


def format_table(results: dict[str, Any]) -> str:
    """The table for a console, and what it is of."""
    latents, distances = results["latents"], results["spectral_frechet_distance"]
    titles = {row["name"]: row["title"] for row in results["rows"]}
    listed = ", ".join(f"{titles[name]} {value:.2f}" for name, value in distances.items())
    lines = [
        scores_lib.format_table(results),
        f"latents: {latents['dim']} values at {latents['rate']:g} Hz, rms {latents['rms']:.3f}, "
        f"effective rank {latents['effective_rank']:.1f}, over {latents['num_frames']} frames",
        f"Frechet distance of log spectra (lower): {listed}",
        *(f"{name}: {reason}" for name, reason in results["missing"].items()),
        f"{results['num_examples']} examples, {results['seconds']:.1f} s of sound",
    ]
    return "\n".join(lines)


def _training_data(config: ml_collections.ConfigDict, workdir: str) -> str:
    """The run's own mixture, if its folders are still there."""
    names = [name for name, _ in mixtures.parse(config.data.train or "?")]
    folders = [name for name in names if not name.startswith(sources.TFDS_PREFIX)]
    absent = [folder for folder in folders if not pathlib.Path(folder).is_dir()]
    if absent:
        raise ValueError(
            f"the PCA reference is fitted on the training data of {workdir}, config.data.train="
            f"{config.data.train!r}, but there is no folder {absent[0]}: give --fit_shards=DIR"
        )
    return config.data.train


def _visqol_keys(
    examples: Sequence[examples_lib.Example], wanted: int, sample_rate: int
) -> set[str]:
    """Keys of examples of a second or more: ViSQOL has no value for shorter ones."""
    long = [example.key for example in examples if len(example.waveform) >= sample_rate]
    return {long[index] for index in sources.spaced(len(long), wanted)}


def _describe(source: sources.ShardSet | sources.TfdsExamples, sample_rate: int) -> dict[str, Any]:
    return {
        "path": source.name,
        "fingerprint": source.fingerprint,
        "num_records": len(source),
        "seconds": source.seconds,
        "sample_rate": sample_rate,
    }
