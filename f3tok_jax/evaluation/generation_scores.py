# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is measured of generated sound: how it ends, how long it is, what is heard in it.

And how far its latents and representations are from those of recordings.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from f3tok_jax.evaluation import distributions
from f3tok_jax.runs import results

_PARTS = 3  # beginning, middle and end, of the drift


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationScores:
    """Measures rows of sound against recordings of the same texts.

    Attributes:
        truth: latents [t, d] of each recording.
        represent: lists of latents to lists of representations [t, width]; None where nothing does.
        seconds_per_latent: of sound.
        recognition: name of a figure -> waveforms to that figure; see `recognition`.
    """

    truth: Sequence[np.ndarray]
    represent: Callable[[Sequence[np.ndarray]], list[np.ndarray]] | None
    seconds_per_latent: float
    recognition: Mapping[str, Callable[[Sequence[np.ndarray]], float]] = dataclasses.field(
        default_factory=dict
    )

    def row(
        self,
        name: str,
        title: str,
        waveforms: Sequence[np.ndarray],
        latents: Sequence[np.ndarray],
        stopped: np.ndarray | None = None,
    ) -> results.GeneratedRow:
        """Figures of one row.

        Args:
            name: of the row.
            title: likewise, for people.
            waveforms: [n] float32 of each example.
            latents: [t, d] of each.
            stopped: [n] bool, which ended by themselves; None where the length was given.

        Returns:
            Those of `recognition`; frechet_distance of single representations, if any; latents, see
            `latent_figures`; and of generated sound the shares never_stopped and stopped_at_once
            (within a quarter of the recording's length), seconds on average, and duration_error,
            the mean difference from the recording, seconds.
        """
        figures: dict[str, Any] = {
            figure: measure(waveforms) for figure, measure in self.recognition.items()
        }
        if self.represent:
            found, wanted = (
                distributions.moments_of(np.concatenate(self.represent(rows)))
                for rows in (latents, self.truth)
            )
            figures["frechet_distance"] = distributions.frechet_distance(found, wanted)
        figures["latents"] = latent_figures(latents, self.truth)
        if stopped is not None:
            lengths = np.array([len(row) for row in latents])
            wanted = np.array([len(row) for row in self.truth])
            figures |= {
                "never_stopped": float(np.mean(~stopped)),
                "stopped_at_once": float(np.mean(lengths * 4 < wanted)),
                "seconds": float(lengths.mean() * self.seconds_per_latent),
                "duration_error": float(np.abs(lengths - wanted).mean() * self.seconds_per_latent),
            }
        return results.GeneratedRow(name=name, title=title, **figures)


def latent_figures(
    latents: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> dict[str, list[float] | float]:
    """How the frames of sounds differ from those of recordings.

    Args:
        latents: [t, d] of each sound.
        truth: likewise, of recordings.

    Returns:
        "mean_error" and "std_error", the root mean square over channels of the difference of each
        channel's mean and standard deviation; and "drift", the same of the means in the first, the
        second and the last third of every sound.
    """

    def gap(statistic, found, wanted) -> float:
        one, other = (statistic(np.concatenate(rows), axis=0) for rows in (found, wanted))
        return float(np.sqrt(np.mean(np.square(one - other))))

    thirds = [gap(np.mean, _parts(latents, part), _parts(truth, part)) for part in range(_PARTS)]
    return {
        "mean_error": gap(np.mean, latents, truth),
        "std_error": gap(np.std, latents, truth),
        "drift": thirds,
    }


def _parts(rows: Sequence[np.ndarray], part: int) -> list[np.ndarray]:
    """One third of each row, at least a frame; what three does not divide has frames in several."""
    return [
        row[part * len(row) // _PARTS : max(-(-(part + 1) * len(row) // _PARTS), 1)] for row in rows
    ]
