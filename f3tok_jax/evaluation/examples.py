# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out sounds, evenly spaced over a set."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import pcm16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A held-out sound.

    Attributes:
        key: of its record.
        waveform: its valid samples [n], float32 in [-1, 1].
        labels: of its record.
        task: how its text is meant, "" where none was asked for.
        text: what is said in it, or what describes it.
    """

    key: str
    waveform: np.ndarray
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task: str = ""
    text: str = ""


def read_examples(
    source: sources.ShardSet | sources.TfdsExamples,
    num_examples: int,
    *,
    text_of: Callable[[Any], tuple[str, str] | None] | None = None,
) -> tuple[list[Example], list[str]]:
    """Reads records that are evenly spaced over a source, in its order.

    Args:
        source: to read from.
        num_examples: how many; 0 for all.
        text_of: record -> task and text, or None where it is passed over.

    Returns:
        The examples, and a reason for each record that could not be read.

    Raises:
        ValueError: if none could be read.
    """
    places = range(len(source))
    if text_of is not None:
        places = [place for place in places if text_of(source[place])]
    examples, unreadable = [], []
    for index in sources.spaced(len(places), num_examples or len(places)):
        try:
            record = source[places[index]]
        except sources.Unreadable as error:
            unreadable.append(str(error))
            continue
        task, text = text_of(record) if text_of else ("", "")
        waveform = pcm16.to_float(record.waveform)
        labels = dict(record.labels)
        found = Example(key=record.key, waveform=waveform, labels=labels, task=task, text=text)
        examples.append(found)
    if unreadable and not examples:
        raise ValueError(
            f"no record of {source.name} can be read, the first because: {unreadable[0]}"
        )
    return examples, unreadable
