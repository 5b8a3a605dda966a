# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder on held-out sound, beside baselines of as many values per second."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import os
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np

from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import sources
from data_pipelines.reading import staged
from f3tok_jax.evaluation import baselines
from f3tok_jax.evaluation import distributions
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import metrics
from f3tok_jax.evaluation import opus
from f3tok_jax.evaluation import rows as rows_lib
from f3tok_jax.evaluation import scores as scores_lib
from f3tok_jax.evaluation import sounds_folder
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.inference import model_folder
from f3tok_jax.models import flops
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import semantic_encoder
from f3tok_jax.runs import places as places_lib
from f3tok_jax.runs import results as results_lib
from f3tok_jax.runs import sound as sound_lib

_ORIGINAL = "original"
_COUNTED_SECONDS = 10.0  # of sound whose products are counted
_MAX_FIT_SECONDS = 3600.0  # of sound for the principal components: they settle long before


def fit_pca(mixture: str, geometry: sound_lib.Sound) -> baselines.PcaCodec:
    """Fits the PCA reference on at most an hour of sound, evenly spaced over a mixture's parts."""
    names = [name for name, _ in mixtures.parse(mixture)]
    parts = [sources.open_sound(name, sample_rate=geometry.sample_rate) for name in names]

    def waveforms() -> Iterator[np.ndarray]:
        for part in parts:
            mean_seconds = part.seconds / len(part)
            wanted = int(_MAX_FIT_SECONDS / len(parts) / mean_seconds) + 1
            examples, _ = examples_lib.read_examples(part, wanted)
            yield from (example.waveform for example in examples)

    return baselines.fit_pca(
        waveforms(), frame_length=geometry.samples_per_latent, latent_dim=geometry.latent_dim
    )


def score(
    rows: Sequence[rows_lib.Row],
    examples: Sequence[examples_lib.Example],
    *,
    model: rows_lib.Model,
    batch_size: int,
    visqol_keys: set[str],
    say: Callable[[str], None],
    on_sound: Callable[[int, str, np.ndarray], None],
) -> dict[str, Any]:
    """Codes every example with every row and compares.

    Args:
        rows: of the table.
        examples: held-out sounds.
        model: whose latents are measured.
        batch_size: examples at a time.
        visqol_keys: of the examples that ViSQOL hears; it takes seconds per second of sound.
        say: where progress goes.
        on_sound: called with (index of the example, row, waveform) for every sound.

    Returns:
        Of results_lib.Reconstruction the rows, the latents' statistics, and row -> Frechet
        distance of its spectra.
    """
    autoencoder, sample_rate = model.codec.autoencoder, model.codec.sample_rate
    scores = scores_lib.Scores()
    latents, means = (distributions.Moments(autoencoder.latent_dim) for _ in range(2))
    spectra: dict[str, distributions.Moments] = {}
    names = tuple(name for name in metrics.METRICS if name not in metrics.missing())
    start = time.monotonic()

    def compare(example: examples_lib.Example, estimate: np.ndarray):
        chosen = tuple(n for n in names if n != "visqol" or example.key in visqol_keys)
        return metrics.compare(example.waveform, estimate, sample_rate=sample_rate, names=chosen)

    def add_spectrum(row: str, waveform: np.ndarray) -> None:
        spectrum = distributions.log_spectrum(waveform, sample_rate=sample_rate)
        spectra.setdefault(row, distributions.Moments(spectrum.shape[1])).add(spectrum)

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(examples), batch_size):
            batch = examples[first : first + batch_size]
            for frames in model.encode(batch):
                latents.add(frames)
                means.add(frames.mean(axis=0, keepdims=True))
            for example in batch:
                add_spectrum(_ORIGINAL, example.waveform)
            for row in rows:
                estimates = row.reconstruct(batch)
                for compared in pool.map(compare, batch, estimates):
                    scores.add(row.name, *compared)
                for index, estimate in enumerate(estimates, first):
                    add_spectrum(row.name, estimate)
                    on_sound(index, row.name, estimate)
            done = first + len(batch)
            say(f"evaluated {done} of {len(examples)} examples, {time.monotonic() - start:.0f} s")
    truth = spectra.pop(_ORIGINAL)
    distances = {name: distributions.frechet_distance(m, truth) for name, m in spectra.items()}
    return dict(
        latents=scores_lib.latent_statistics(latents, means, rate=autoencoder.latent_rate),
        rows=[scores.scored(r.name, r.title, r.description, figures=names) for r in rows],
        spectral_frechet_distance=distances,
    )


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    num_examples: int = 200,
    moved: Mapping[str, str] | None = None,
    fit_shards: str = "",
    batch_size: int = 8,
    visqol_examples: int = 2,
    num_listen: int = 4,
    levels: Sequence[float] = (),
    judges: panel.Choice = panel.Choice(),
    say: Callable[[str], None] = print,
) -> results_lib.Reconstruction:
    """Evaluates a run; writes `output` and the sounds beside it.

    Args:
        workdir: of an autoencoder run.
        shards: held-out shard set, or tfds:NAME@SPLIT#FEATURE.
        output: JSON file to write.
        step: of the checkpoint; None for the newest whole one.
        num_examples: evenly spaced over the set; 0 for all.
        moved: the run's training data, or a folder above it -> where it lies now.
        fit_shards: the same, or a mixture, for the PCA reference; "" for the run's training data.
        batch_size: sounds coded at a time.
        visqol_examples: how many examples of a second or more ViSQOL hears; it takes over a second
            of a core per second of sound.
        num_listen: examples of which sounds are written.
        levels: dBFS of the peak, at most 0, at which the model hears every sound once more.
        judges: who hears some of the examples, in every row.
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
    if wrong := [level for level in levels if not -120 <= level <= 0]:
        raise ValueError(f"--levels must be dBFS of a peak, -120 to 0, got {wrong[0]:g}")
    judges.found()
    run = model_folder.read(workdir, step, moved=moved)
    run = run.ancestor("autoencoder") or run
    codec = codec_lib.Codec.load(run, say=say)
    rate, geometry = codec.sample_rate, run.sound
    source = sources.open_sound(shards, sample_rate=rate)
    fit_shards = fit_shards or _training_data(run.config, workdir, places_lib.Places(moved or {}))
    examples, unreadable = examples_lib.read_examples(source, num_examples)
    longest = max(len(example.waveform) for example in examples)
    model = rows_lib.Model(codec, batch_size=batch_size, num_samples=longest)
    if not run.normalizes_latents:
        model.measure(examples)
    say(f"fitting the PCA reference on {fit_shards}")
    rows = rows_lib.make_rows(
        model,
        fit_pca(fit_shards, geometry),
        baselines.MelCodec(**vars(geometry)),
        levels_db=levels,
    )
    missing = metrics.missing() | ({"opus": reason} if (reason := opus.missing()) else {})
    for name, reason in missing.items():
        say(f"{name}: {reason}")
    jury = panel.Panel(judges, examples, sample_rate=rate, say=say)
    sounds = sounds_folder.SoundsFolder(output, examples, num_listen=num_listen, sample_rate=rate)

    def on_sound(index: int, row: str, waveform: np.ndarray) -> None:
        sounds.write(index, row, waveform)
        jury.write(index, row, waveform)

    scored = score(
        rows,
        examples,
        model=model,
        batch_size=batch_size,
        say=say,
        on_sound=on_sound,
        visqol_keys=_visqol_keys(examples, visqol_examples, rate),
    )
    origin = semantic_encoder.origin_of_heard(run) if sound_lib.is_semantic(run.config) else ""
    results = results_lib.Reconstruction(
        workdir=str(workdir),
        step=codec.step,
        config=run.config.to_dict(),
        shards=_described(source, rate),
        fit_shards=fit_shards,
        num_examples=len(examples),
        seconds=sum(len(example.waveform) for example in examples) / rate,
        unreadable=unreadable,
        noise_seed=rows_lib.NOISE_SEED,
        noise_rms=model.latent_rms,
        silence_db=model.silence_db(),
        flops_per_second=_flops_per_second(codec.autoencoder),
        semantic_encoder=origin,
        missing=missing,
        metrics=scores_lib.columns(),
        judged=jury.close({row.name: row.title for row in rows}),
        sounds=sounds.close(),
        **scored,
    )
    results_lib.write(output, results)
    return results


def format_table(results: results_lib.Reconstruction) -> str:
    """The table for a console, and what it is of."""
    latents, titles = results.latents, {row.name: row.title for row in results.rows}
    distances = results.spectral_frechet_distance.items()
    lines = [
        scores_lib.format_table(results),
        f"latents: {latents.dim} values at {latents.rate:g} Hz, rms {latents.rms:.3f}, effective "
        f"rank {latents.effective_rank:.1f}, over {latents.num_frames} frames",
        *([f"semantic encoder: {results.semantic_encoder}"] if results.semantic_encoder else []),
        "Frechet distance of log spectra (lower): "
        + ", ".join(f"{titles[name]} {value:.2f}" for name, value in distances),
        f"silence comes out at {results.silence_db:.0f} dBFS",
        *(f"{name}: {reason}" for name, reason in results.missing.items()),
        *(panel.format_tables(results.judged) if results.judged else ()),
        f"{results.num_examples} examples, {results.seconds:.1f} s of sound",
    ]
    return "\n".join(lines)


def _flops_per_second(autoencoder: pretrained_autoencoder.Autoencoder) -> results_lib.Flops:
    """Of sound as long as _COUNTED_SECONDS: what attends to all of it has more of a longer one."""
    latents = round(_COUNTED_SECONDS * autoencoder.latent_rate)
    encoder, decoder = flops.halves(autoencoder, latents)
    encode = encoder.total + flops.frozen(autoencoder, latents)
    return results_lib.Flops(
        encode=encode / _COUNTED_SECONDS, decode=decoder.total / _COUNTED_SECONDS
    )


def _described(
    source: sources.ShardSet | sources.TfdsExamples, sample_rate: int
) -> results_lib.ShardSet:
    return results_lib.ShardSet(
        path=source.name,
        fingerprint=source.fingerprint,
        num_records=len(source),
        seconds=source.seconds,
        sample_rate=sample_rate,
    )


def _training_data(
    config: ml_collections.ConfigDict, workdir: str, places: places_lib.Places
) -> str:
    """The run's own mixture, if its folders are there."""
    if "data" not in config:
        raise ValueError(
            f"the PCA reference needs sound to be fitted on, and {workdir}, which was exported, does not "
            "say what it was trained on: give --fit_shards=DIR"
        )
    mixture = places.mapped_mixture(config.data.train)
    names = [name for name, _ in mixtures.parse(mixture or "?")]
    folders = [name for name in names if not name.startswith(sources.TFDS_PREFIX)]
    absent = [folder for folder in folders if not staged.is_set(folder)]
    if absent:
        raise ValueError(
            f"the PCA reference is fitted on the training data of {workdir}, config.data.train="
            f"{config.data.train!r}, but there is no folder {absent[0]}: give --fit_shards=DIR"
        )
    return mixture


def _visqol_keys(
    examples: Sequence[examples_lib.Example], wanted: int, sample_rate: int
) -> set[str]:
    """Keys of examples of a second or more: ViSQOL has no value for shorter ones."""
    long = [example.key for example in examples if len(example.waveform) >= sample_rate]
    return {long[index] for index in sources.spaced(len(long), wanted)}
