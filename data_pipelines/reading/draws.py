# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is drawn for the rows of a batch: a function of (seed, step) alone."""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

# Where the random numbers begin that choose text tasks, and where else a crop may lie.
_TASK_STREAM, _CROP_STREAM = 1 << 64, 1 << 65


class Drawn(NamedTuple):
    """What is drawn for each row of a global batch, in the order of its records.

    Attributes:
        positions: where crops may lie in the room that they have, in [0, 1), in the order in which
            they are tried.
        gains_db: dB; None for none.
        tasks: which text goes with a record, in [0, 1).
    """

    positions: Sequence[Sequence[float]]
    gains_db: np.ndarray | None
    tasks: Sequence[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn for batches.

    Every host draws for all rows: a batch's numbers must not depend on who holds which row.

    Attributes:
        seed: of all that is drawn.
        batch_size: rows over all hosts.
        train: False draws neither crops nor gains.
        crops: whether crops lie anywhere; False for the beginnings.
        tries: places where a crop may lie.
        gain_db: dB, bounds of the uniform random gain.
        texts: whether there are any.
    """

    seed: int
    batch_size: int
    train: bool
    crops: bool
    tries: int
    gain_db: tuple[float, float]
    texts: bool

    def of(self, step: int) -> Drawn:
        """What is drawn for the batch of a step."""
        nothing = [0.0] * self.batch_size
        tasks = nothing
        if self.texts:
            tasks = self._random(step, _TASK_STREAM).random(self.batch_size).tolist()
        if not self.train:
            return Drawn([(0.0,)] * self.batch_size, None, tasks)
        first, share = self._random(step).random((2, self.batch_size))
        low, high = self.gain_db
        positions = [(0.0,)] * self.batch_size
        if self.crops and self.tries == 1:
            positions = [(position,) for position in first.tolist()]
        elif self.crops:
            more = self._random(step, _CROP_STREAM).random((self.tries - 1, self.batch_size))
            positions = np.concatenate([first[None], more]).T.tolist()
        return Drawn(positions, low + (high - low) * share, tasks)

    def _random(self, step: int, stream: int = 0) -> np.random.Generator:
        """Random numbers of one step; streams are far apart and never overlap."""
        return np.random.Generator(np.random.Philox(key=[self.seed, step], counter=stream))
