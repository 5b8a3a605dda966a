# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Transcribes labelled shards by a run of the representation stage, and counts the errors.

    python -m f3tok_jax.transcripts --workdir=runs/representation --shards=DIR/test \
        --output=runs/representation/transcripts.json

The frozen language model of the run writes down what it hears, by greedy decoding; edits are divided
by the characters, and by the words, of all transcripts together.

Exit codes: 0 finished, 1 wrong arguments, data or work folder; one sentence on stderr says which.
"""

import argparse
from collections.abc import Callable, Sequence
import functools
import pathlib
import sys
from typing import Any

import numpy as np

from data_pipelines import sources
from data_pipelines import tasks
from data_pipelines import transforms
from f3tok_jax import checkpoint
from f3tok_jax import error_rates
from f3tok_jax import listener as listener_lib
from f3tok_jax import probe_results
from f3tok_jax import results_file

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
    listener = listener_lib.Listener.load(workdir, say=say)
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
    places = np.unique(np.linspace(0, len(found) - 1, min(num_examples, len(found))).round())
    examples = []
    for index in (found[place] for place in places.astype(int)):
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


def _latents(record: Any, listener: listener_lib.Listener) -> np.ndarray:
    """[1, t, d]."""
    if hasattr(record, "latents"):
        return record.latents[None]
    sound = record.waveform.astype(np.float32)[None] / transforms.FULL_SCALE
    return np.concatenate(list(listener.tokenizer.encode_blocks([sound], 1)), axis=1)


def _rate(counts: Any) -> float:
    edits, lengths = zip(*counts)
    return sum(edits) / sum(lengths)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.transcripts",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of the representation stage")
    add("--shards", required=True, help="set of speech with its texts, of sound or latents")
    add("--output", required=True, type=pathlib.Path, help="JSON file to write")
    add("--num_examples", type=int, default=100, help="sentences at most")
    given = parser.parse_args(arguments)
    say = functools.partial(print, flush=True)
    try:
        found = measure(given.workdir, given.shards, num_examples=given.num_examples, say=say)
        results = {"format": probe_results.TRANSCRIPTS, "shards": given.shards, **found}
        results_file.write(given.output, results)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"transcripts: {error}", file=sys.stderr)
        return 1
    for example in found["examples"]:
        print(f"  {example['reference']}\n> {example['hypothesis']}")
    print(
        f"{found['num_examples']} sentences: character error rate {found['characters']:.3f}, "
        f"word error rate {found['words']:.3f}\n{given.output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
