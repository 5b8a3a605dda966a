# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run writes down of held-out sound, and how far that is from the truth."""

from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.records import pcm16
from f3tok_jax.evaluation import error_rates
from f3tok_jax.inference import represent
from f3tok_jax.runs import results as results_lib
from f3tok_jax.runs import results_file

TASK = "transcription"
_NUM_SHOWN = 8  # transcripts that are written out


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    num_examples: int = 100,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Transcribes as `measure` does, writes `output`, and returns what was written."""
    found = measure(workdir, shards, step=step, num_examples=num_examples, say=say)
    results = {"format": results_lib.Transcripts.FORMAT, "shards": shards, **found}
    results_file.write(output, results)
    return results


def format_table(results: dict[str, Any]) -> str:
    """Some transcripts and the rates for a console."""
    lines = [f"  {one['reference']}\n> {one['hypothesis']}" for one in results["examples"]]
    lines.append(
        f"{results['num_examples']} sentences: character error rate {results['characters']:.3f}, "
        f"word error rate {results['words']:.3f}"
    )
    return "\n".join(lines)


def measure(
    workdir: str,
    shards: str,
    *,
    step: int | None = None,
    num_examples: int = 100,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Transcribes records of a set, evenly spaced in it.

    Args:
        workdir: of a supervised run of the representation stage.
        shards: set with the texts of speech, of sound or latents.
        step: of the checkpoint; None for the newest whole one.
        num_examples: at most.
        say: where progress goes.

    Returns:
        "step" of the run; "num_examples"; the rates "characters" and "words", edits by the length of
        all transcripts together; "examples" with "key", "reference" and "hypothesis".

    Raises:
        ValueError: if the run was not trained to transcribe, or the set has nothing for it.
    """
    listener = represent.Listener.load(workdir, step, say=say)
    rate = listener.tokenizer.autoencoder.sample_rate
    source = sources.open_source(shards, sample_rate=rate)
    if isinstance(source, sources.LatentSet):
        source.check_autoencoder(listener.tokenizer.fingerprint)
    found = [index for index in range(len(source)) if _reference(source, index)]
    if not found or num_examples < 1:
        raise ValueError(
            f"--shards must hold whole sentences of speech with their texts, and --num_examples be "
            f"at least 1, got {len(found)} in {shards} and {num_examples}"
        )
    places = sources.spaced(len(found), num_examples)
    examples = []
    for index in (found[place] for place in places):
        representations = listener.represent(_latents(source[index], listener))
        said = listener.transcriber.answer(representations, task=TASK)
        reference = _reference(source, index)
        examples.append(dict(key=source[index].key, reference=reference, hypothesis=said))
        if len(examples) % 20 == 0:
            say(f"{shards}: transcribed {len(examples)} of {len(places)}")
    pairs = [(example["reference"], example["hypothesis"]) for example in examples]
    return {
        "step": listener.step,
        "num_examples": len(examples),
        "characters": _rate(error_rates.characters(*pair) for pair in pairs),
        "words": _rate(error_rates.words(*pair) for pair in pairs),
        "examples": examples[:_NUM_SHOWN],
    }


def _reference(source: Any, index: int) -> str:
    record = source[index]
    return tasks.find(TASK).answer(record, is_whole=source.is_whole(record))


def _latents(record: Any, listener: represent.Listener) -> np.ndarray:
    """[1, t, d]."""
    if hasattr(record, "latents"):
        return record.latents[None]
    sound = pcm16.to_float(record.waveform)[None]
    return np.concatenate(list(listener.tokenizer.encode_blocks([sound], 1)), axis=1)


def _rate(counts: Any) -> float:
    edits, lengths = zip(*counts)
    return sum(edits) / sum(lengths)
