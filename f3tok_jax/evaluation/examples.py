# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out sounds, evenly spaced over a set."""

import dataclasses

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import pcm16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A held-out sound: its key, and its valid samples [n], float32 in [-1, 1]."""

    key: str
    waveform: np.ndarray


def read_examples(
    source: sources.ShardSet | sources.TfdsExamples, num_examples: int
) -> tuple[list[Example], list[str]]:
    """Reads records that are evenly spaced over a source, in its order.

    Args:
        source: to read from.
        num_examples: how many; 0 for all.

    Returns:
        The examples, and a reason for each record that could not be read.

    Raises:
        ValueError: if none could be read.
    """
    examples, unreadable = [], []
    for index in sources.spaced(len(source), num_examples or len(source)):
        try:
            record = source[index]
        except sources.Unreadable as error:
            unreadable.append(str(error))
            continue
        waveform = pcm16.to_float(record.waveform)
        examples.append(Example(key=record.key, waveform=waveform))
    if not examples:
        raise ValueError(
            f"no record of {source.name} can be read, the first because: {unreadable[0]}"
        )
    return examples, unreadable
