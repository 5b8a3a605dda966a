# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound that a diffusion transformer makes of the texts of held-out records, as long as these are."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from f3tok_jax.evaluation import asked as asked_lib
from f3tok_jax.evaluation import generation
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.inference import diffusion_transformer
from f3tok_jax.inference import generate
from f3tok_jax.inference import represent as represent_lib
from f3tok_jax.pretrained import diffusion_transformer as pretrained
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.runs import results as results_lib

format_table = generation.format_table


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    moved: Mapping[str, str] | None = None,
    representation: str = "",
    num_examples: int = 200,
    classifier_shards: str = "",
    classifier_label: str = "",
    text_sensitivity: bool = False,
    changes: Sequence[dict[str, Any]] = ({},),
    seed: int = 0,
    num_listen: int = 4,
    judges: panel.Choice = panel.Choice(),
    say: Callable[[str], None] = print,
) -> results_lib.Generation:
    """Evaluates a run by the table of generators; writes `output` and the sounds beside it.

    Each sound is as long as the recording of its text, by the protocol of the papers.

    Args:
        workdir: of a diffusion-transformer run.
        shards: held-out sound with texts.
        output: JSON file to write.
        step: of the checkpoint; None for the newest whole one.
        moved: where what the run names lies now; see F3Tokenizer.from_pretrained.
        representation: a run of that stage on the same autoencoder, of whose representations the
            Fréchet distance is; "" for no such distance.
        num_examples: as in `generation.evaluate`, and all that follow.
        classifier_shards: likewise.
        classifier_label: likewise.
        text_sensitivity: likewise.
        changes: likewise.
        seed: likewise.
        num_listen: likewise.
        judges: likewise.
        say: likewise.

    Returns:
        What was written.

    Raises:
        ValueError: if the run, the data or the numbers do not fit together.
    """
    generation.check_classifier(classifier_shards, classifier_label)
    judges.found()
    found = places.Places(moved or {})
    run = lineage.Lineage.read(workdir, step, stage=pretrained.PLAYER, places=found)
    represent = _represent(run, representation, found, say=say) if representation else None
    generator = diffusion_transformer.TextToWholeSound.load(run, say=say)
    options = dict(num_examples=num_examples, label=classifier_label)
    asked = ask(generator, shards, represent=represent, say=say, **options)
    recognized = generation.learn_classifier(asked, classifier_shards, classifier_label, say=say)
    measured = generation.measure(
        asked,
        output,
        recognized=recognized,
        text_sensitivity=text_sensitivity,
        changes=changes,
        seed=seed,
        num_listen=num_listen,
        judges=judges,
        say=say,
    )
    results = results_lib.Generation(
        workdir=str(workdir),
        step=generator.step,
        shards=shards,
        classifier=results_lib.ClassifierSource(shards=classifier_shards, label=classifier_label),
        sampler=dataclasses.asdict(generator.sampler),
        **measured,
    )
    results_lib.write(output, results)
    return results


def ask(
    generator: diffusion_transformer.TextToWholeSound,
    shards: str,
    *,
    represent: Callable[[Sequence[np.ndarray]], list[np.ndarray]] | None,
    num_examples: int,
    label: str = "",
    say: Callable[[str], None] = print,
) -> asked_lib.Asked:
    """Reads what is asked for; see `asked.ask`."""
    examples = asked_lib.read_examples(shards, generator, num_examples=num_examples, label=label)
    recordings, codec = [example.waveform for example in examples], generator.codec
    gains = codec.gains(recordings)
    truth = asked_lib.encode(codec, recordings, recordings, gains=gains)
    requests = [generate.Request(text=one.text, task=one.task) for one in examples]
    lengths = [len(row) for row in truth]
    if longer := sum(length > generator.trained_latents for length in lengths):
        say(
            f"note: {longer} of {len(lengths)} recordings are longer than any sound of training, "
            f"{generator.trained_latents} latents"
        )

    def speak(change, *, seed, numbers=None):
        wanted = range(len(requests)) if numbers is None else numbers
        # In the place of another, a text is as long as what it takes the place of.
        said, options = [requests[number] for number in wanted], dict(seed=seed, sampler=change)
        return generator.generate(said, lengths, batch_size=asked_lib.BATCH, **options), None

    return asked_lib.Asked(
        codec=codec,
        examples=examples,
        gains=gains,
        truth=truth,
        max_seconds=max(lengths) / codec.autoencoder.latent_rate,
        gives_lengths=True,
        speak=speak,
        represent=represent,
    )


def _represent(
    run: lineage.Lineage, representation: str, found: places.Places, *, say: Callable[[str], None]
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """The representations of another run on the same latents.

    Raises:
        ValueError: where it is of others.
    """
    other = lineage.Lineage.read(representation, stage="representation", places=found)
    other.check()
    if other.latents_fingerprint != run.latents_fingerprint:
        raise ValueError(
            f"--representation must name a run on the latents {run.latents_fingerprint} of "
            f"{run.workdir}, got {representation} on {other.latents_fingerprint}: give one on the same "
            "autoencoder"
        )
    return represent_lib.Representer.load(other, say=say).represent
