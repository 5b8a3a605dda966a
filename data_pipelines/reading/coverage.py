# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What of the records reaches a model: sound and texts that were cut, too long or without room, and
padding, counted per batch where batches are made."""

import collections
from collections.abc import Mapping
import threading

from data_pipelines.reading import tasks

_MAX_STEPS = 4096  # whose counts are kept: more than are ever between two lines of a log

# Why a row has no text, as its count is named.
_LOST = {tasks.NO_TASK: "no_text", tasks.CUT: "cut", tasks.TOO_LONG: "too_long"}


class Counts:
    """What is counted of the batches of a host. A record counts where it was drawn, whichever row it
    is arranged into.

    Attributes:
        sums: name -> sum.
    """

    def __init__(self, room: Mapping[str, int] = {}, *, num_rows: int = 0):
        """Counts of a batch of `num_rows` rows, each of which has `room` for so much of what."""
        self.sums = collections.Counter()
        for name in room:
            self.sums[f"room/{name}"] = room[name] * num_rows

    def add(
        self,
        *,
        seconds: float,
        heard_seconds: float | None,
        text: tasks.Row | None,
        is_left_out: bool | None,
    ) -> None:
        """Counts an example.

        Args:
            seconds: of sound in its record.
            heard_seconds: of them, in front of the crop; None where crops lie anywhere.
            text: that goes with it; None where there are no texts.
            is_left_out: whether no row has room for it; None where each has a row of its own.
        """
        sums = self.sums
        sums["records"] += 1
        sums["seconds"] += seconds
        if heard_seconds is not None:
            sums["cut_seconds"] += max(seconds - heard_seconds, 0.0)
        if is_left_out is not None:
            sums["left_out_seconds"] += is_left_out * (heard_seconds or seconds)
        if text is None:
            return
        sums[
            "left_out_texts" if is_left_out and not text.lost else _LOST.get(text.lost, "texts")
        ] += 1
        sums["wanted_tokens"] += text.num_wanted
        if not (text.lost or is_left_out):
            sums["kept_tokens"] += text.num_wanted

    def add_alone(self, num_records: int, *, seconds: float, heard_seconds: float | None) -> None:
        """Counts examples without text that have a row each, all at once; seconds as in `add`."""
        self.sums["records"] += num_records
        self.sums["seconds"] += seconds
        if heard_seconds is not None:
            self.sums["cut_seconds"] += seconds - heard_seconds

    def use(self, needs: Mapping[str, int]) -> None:
        """Counts what an example takes of the room of a row."""
        for name in needs:
            self.sums[f"used/{name}"] += needs[name]


class Log:
    """The counts of one host's batches, by their step. Safe to share between threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts: dict[int, Counts] = {}

    def add(self, step: int, counts: Counts) -> None:
        """Notes the counts of a batch. One that is made again counts once."""
        with self._lock:
            self._counts[step] = counts
            while len(self._counts) > _MAX_STEPS:
                del self._counts[min(self._counts)]

    def between(self, start_step: int, stop_step: int) -> dict[str, float]:
        """The sums over the batches from `start_step` on and before `stop_step`.

        Batches are made ahead: what lies behind does not count yet, and what lies before is
        forgotten.
        """
        with self._lock:
            for step in [step for step in self._counts if step < start_step]:
                del self._counts[step]
            found = [counts for step, counts in self._counts.items() if step < stop_step]
        sums = collections.Counter()
        for counts in found:
            sums.update(counts.sums)
        return dict(sums)


def shares(sums: Mapping[str, float]) -> dict[str, float]:
    """What a log says of sums of counts: name -> share in [0, 1]; nothing of what is not counted.

    Of the sound of the records: "sound_cut", behind the crop, and "sound_left_out", for which no row
    had room. Of the records: "text_none", which never had one. Of the texts of the others:
    "text_cut", with a part of their sound, "text_too_long" and "text_left_out". Of the tokens of
    answers, of lost texts too, as far as they are known: "answers_kept". Of what rows have room
    for: "padding".
    """
    records, seconds = sums.get("records", 0.0), sums.get("seconds", 0.0)
    lost = ("cut", "too_long", "left_out_texts")
    texts = sum(sums.get(name, 0.0) for name in (*lost, "texts"))
    has_texts = "wanted_tokens" in sums
    parts = {}
    for name in ("cut", "left_out"):
        if f"{name}_seconds" in sums:
            parts[f"sound_{name}"] = (sums[f"{name}_seconds"], seconds)
    if has_texts:
        parts["text_none"] = (sums.get("no_text", 0.0), records)
        for name in lost:
            parts[f"text_{name.removesuffix('_texts')}"] = (sums.get(name, 0.0), texts)
        parts["answers_kept"] = (sums.get("kept_tokens", 0.0), sums["wanted_tokens"])
    found = {name: float(part / whole) for name, (part, whole) in parts.items() if whole}
    for name in (name.removeprefix("room/") for name in sums if name.startswith("room/")):
        found[f"padding/{name}"] = 1.0 - sums.get(f"used/{name}", 0.0) / sums[f"room/{name}"]
    return found
