# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is drawn for the rows of a batch: a function of (seed, step) alone."""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

_TASK_STREAM = 1 << 64  # where the random numbers begin that choose text tasks


class Drawn(NamedTuple):
    """What is drawn for each row of a global batch, in the order of its records.

    Attributes:
        positions: where crops lie in the room that they have, in [0, 1).
        gains_db: dB; None for none.
        tasks: which text goes with a record, in [0, 1).
    """

    positions: Sequence[float]
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
        gain_db: dB, bounds of the uniform random gain.
        texts: whether there are any.
    """

    seed: int
    batch_size: int
    train: bool
    crops: bool
    gain_db: tuple[float, float]
    texts: bool

    def of(self, step: int) -> Drawn:
        """What is drawn for the batch of a step."""
        nothing = [0.0] * self.batch_size
        tasks = nothing
        if self.texts:
            tasks = self._random(step, _TASK_STREAM).random(self.batch_size).tolist()
        if not self.train:
            return Drawn(nothing, None, tasks)
        positions, share = self._random(step).random((2, self.batch_size))
        low, high = self.gain_db
        positions = positions.tolist() if self.crops else nothing
        return Drawn(positions, low + (high - low) * share, tasks)

    def _random(self, step: int, stream: int = 0) -> np.random.Generator:
        """Random numbers of one step; streams are far apart and never overlap."""
        return np.random.Generator(np.random.Philox(key=[self.seed, step], counter=stream))
