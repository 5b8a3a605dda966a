# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has met and owes, from its first step on, whatever has restarted it since."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from data_pipelines.reading import replaced as replaced_lib

EVALUATION, SAMPLES = "evaluation", "samples"  # what a step may owe


@dataclasses.dataclass
class Tally:
    """Counts that a checkpoint keeps beside the state.

    Attributes:
        nonfinite: steps that were skipped.
        replaced: rows of batches that held another record than theirs, in any process.
        owed: what was due after the last step and is left out, as the run has to leave.
    """

    nonfinite: int = 0
    replaced: replaced_lib.Replaced = replaced_lib.Replaced()
    owed: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, meta: Mapping[str, Any], *, say: Callable[[str], None] = print) -> "Tally":
        """The tally of the checkpoint with this metadata, {} for a fresh run.

        Args:
            meta: of the step that was restored.
            say: where it is said that a checkpoint of before has none, and what was replaced.
        """
        seen = meta.get("seen")
        if meta and not seen:
            say(
                f"note: the checkpoint of step {meta['step']} does not say how many steps before "
                "it were not finite: config.loop.max_nonfinite counts from there"
            )
        seen = seen or {}
        # An evaluation that was taken again is in the metadata of its step.
        settled = {EVALUATION} if meta.get("metrics") else set()
        owed = [name for name in seen.get("owed", ()) if name not in settled]
        rows = seen.get("replaced", {"count": 0, "digest": "0"})
        replaced = replaced_lib.Replaced(int(rows["count"]), int(rows["digest"], 16))
        if replaced.count:
            say(f"note: before step {meta['step']} {replaced}")
        return cls(nonfinite=int(seen.get("nonfinite", 0)), replaced=replaced, owed=owed)

    def with_rows(self, since: Sequence[tuple[int, int]]) -> "Tally":
        """The tally with the rows that each process has replaced since it started."""
        rows = replaced_lib.Replaced.sum([self.replaced, *since])
        return dataclasses.replace(self, replaced=rows)

    def as_json(self) -> dict[str, Any]:
        """What `read` reads, for the metadata of a checkpoint."""
        rows = {"count": self.replaced.count, "digest": self.replaced.hexadecimal}
        return {"nonfinite": self.nonfinite, "replaced": rows, "owed": list(self.owed)}
