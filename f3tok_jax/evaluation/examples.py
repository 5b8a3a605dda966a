# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out sounds, evenly spaced over a set."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.reading import tasks
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
        transcript: what is said in it, "" where nothing tells.
    """

    key: str
    waveform: np.ndarray
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task: str = ""
    text: str = ""
    transcript: str = ""


def of_record(source: Any, record: Any, *, task: str = "", text: str = "") -> Example:
    """The example of a record of a source, with the text that a task has it say, if there is one."""
    return Example(
        key=record.key,
        waveform=pcm16.to_float(record.waveform),
        labels=dict(record.labels),
        task=task,
        text=text,
        transcript=_transcript(source, record),
    )


def _transcript(source: Any, record: Any) -> str:
    """What is said in a record: its transcript, or the digit that is its label, in words."""
    for task in ("transcription", "digit"):
        if answers := tasks.find(task).answers(record, is_whole=source.is_whole(record)):
            return answers[0]
    return ""


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
        examples.append(of_record(source, record, task=task, text=text))
    if unreadable and not examples:
        raise ValueError(
            f"no record of {source.name} can be read, the first because: {unreadable[0]}"
        )
    return examples, unreadable
