# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run writes down of held-out sound, and how far that is from the truth."""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.records import pcm16
from f3tok_jax.evaluation import error_rates
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import results as results_lib

TASK = "transcription"
_NUM_SHOWN = 8  # transcripts that are written out
_AT_A_TIME = 20  # records, after which progress is said


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path | None = None,
    *,
    step: int | None = None,
    moved: Mapping[str, str] | None = None,
    num_examples: int = 100,
    say: Callable[[str], None] = print,
) -> results_lib.Transcripts:
    """Transcribes records of a set, evenly spaced in it.

    Args:
        workdir: of a supervised run of the representation stage.
        shards: set with the texts of speech, of sound or latents.
        output: JSON file to write, if any.
        step: of the checkpoint; None for the newest whole one.
        moved: where what the run names lies now; see F3Tokenizer.from_pretrained.
        num_examples: at most.
        say: where progress goes.

    Returns:
        The rates are edits by the length of all transcripts together.

    Raises:
        ValueError: if the run was not trained to transcribe, or the set has nothing for it.
    """
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir, step, moved=moved, say=say)
    source = sources.open_source(shards, sample_rate=tokenizer.sample_rate)
    is_latents = isinstance(source, sources.LatentSet)
    if is_latents:
        source.check_autoencoder(tokenizer.fingerprint)
    found = [index for index in range(len(source)) if _reference(source, index)]
    if not found or num_examples < 1:
        raise ValueError(
            f"--shards must hold whole sentences of speech with their texts, and --num_examples be "
            f"at least 1, got {len(found)} in {shards} and {num_examples}"
        )
    indices = [found[place] for place in sources.spaced(len(found), num_examples)]
    examples = []
    for start in range(0, len(indices), _AT_A_TIME):
        records = [source[index] for index in indices[start : start + _AT_A_TIME]]
        if is_latents:
            latents = [record.latents for record in records]
        else:
            latents = tokenizer.codec.encode([pcm16.to_float(r.waveform) for r in records])
        for record, heard in zip(records, tokenizer.representer.represent(latents)):
            said = tokenizer.transcriber.answer(heard, task=TASK)
            reference = _reference(source, indices[len(examples)])
            one = results_lib.Transcript(key=record.key, reference=reference, hypothesis=said)
            examples.append(one)
        say(f"{shards}: transcribed {len(examples)} of {len(indices)}")
    pairs = [(example.reference, example.hypothesis) for example in examples]
    results = results_lib.Transcripts(
        step=tokenizer.representer.step,
        shards=shards,
        num_examples=len(examples),
        characters=error_rates.rate(error_rates.characters(*pair) for pair in pairs),
        words=error_rates.rate(error_rates.words(*pair) for pair in pairs),
        examples=examples[:_NUM_SHOWN],
    )
    if output is not None:
        results_lib.write(output, results)
    return results


def format_table(results: results_lib.Transcripts) -> str:
    """Some transcripts and the rates for a console."""
    lines = [f"  {one.reference}\n> {one.hypothesis}" for one in results.examples]
    lines.append(
        f"{results.num_examples} sentences: character error rate {results.characters:.3f}, "
        f"word error rate {results.words:.3f}"
    )
    return "\n".join(lines)


def _reference(source: Any, index: int) -> str:
    """What is said in a record, "" if nothing tells; of several transcripts the first."""
    record = source[index]
    answers = tasks.find(TASK).answers(record, is_whole=source.is_whole(record))
    return answers[0] if answers else ""
