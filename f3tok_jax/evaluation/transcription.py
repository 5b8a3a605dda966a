# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run writes down of held-out sound, and how far that is from the truth."""

from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.records import pcm16
from f3tok_jax.evaluation import error_rates
from f3tok_jax.inference import represent

TASK = "transcription"
_NUM_SHOWN = 8  # transcripts that are written out


def measure(
    workdir: str, shards: str, *, num_examples: int = 100, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Transcribes records of a set, evenly spaced in it.

    Args:
        workdir: of a supervised run of the representation stage.
        shards: set with the texts of speech.
        num_examples: at most.
        say: where progress goes.

    Returns:
        "num_examples"; the rates "characters" and "words"; "examples" with "key", "reference" and
        "hypothesis".

    Raises:
        ValueError: if the run was not trained to transcribe, or the set has nothing for it.
    """
    listener = represent.Listener.load(workdir, say=say)
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
