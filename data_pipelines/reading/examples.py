# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a record becomes in a batch: how much of its sound, which text, and what it takes of a row."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from data_pipelines.reading import arrangement
from data_pipelines.reading import batches
from data_pipelines.reading import sources
from data_pipelines.reading import tasks


class Example(NamedTuple):
    """A record on its way into a batch.

    Attributes:
        source: of the record.
        record: as it is read.
        text: that goes with it.
        heard: samples of it that a row holds.
        needs: what it takes of what a row has room for.
    """

    source: sources.Source
    record: Any
    text: tasks.Row
    heard: int
    needs: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """How records become examples.

    Attributes:
        layout: of a row's sound or latents.
        text: what each record is asked; None where nothing is.
        rows: which examples share.
    """

    layout: batches.Sound | batches.Latents
    text: tasks.TextTasks | None
    rows: arrangement.Rows

    def example(self, source: sources.Source, record: Any, draw: float) -> Example:
        """The example of a record, whose text falls where `draw` in [0, 1) does."""
        heard, text = self.layout.heard(record), tasks.Row()
        if self.text is not None:
            text = self.text.row(
                record,
                draw,
                is_whole=source.is_whole(record) and self.layout.fits(record),
                lost_text=source.may_have_lost_text(record),
            )
        frames = -(-heard // self.rows.samples_per_frame)
        return Example(source, record, text, heard, self.rows.needs(frames, len(text.ids)))
