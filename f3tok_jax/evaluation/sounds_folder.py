# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds of some examples beside the results of an evaluation."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np
import soundfile

from data_pipelines.reading import sources
from f3tok_jax.runs import results


class SoundsFolder:
    """Writes the sounds of some examples to listen/<name of the results>/ beside the results."""

    def __init__(
        self, output: pathlib.Path, examples: Sequence[Any], *, num_listen: int, sample_rate: int
    ):
        """Writes the originals.

        Args:
            output: JSON file of the results.
            examples: with "key" and "waveform" [n].
            num_listen: examples that are chosen, evenly spaced.
            sample_rate: Hz.
        """
        self._root, self._sample_rate = output.parent, sample_rate
        self._folder = output.parent / "listen" / output.stem
        chosen = sources.spaced(len(examples), num_listen)
        self._entries = {index: {"key": examples[index].key, "files": {}} for index in chosen}
        for index in chosen:
            self.write(index, "original", examples[index].waveform)

    def write(self, index: int, row: str, waveform: np.ndarray) -> None:
        """Writes one sound if its example was chosen."""
        if index not in self._entries:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{index:04d}_{row}.wav"
        soundfile.write(path, np.clip(waveform, -1.0, 1.0), self._sample_rate, subtype="PCM_16")
        self._entries[index]["files"][row] = str(path.relative_to(self._root))

    def index(self) -> list[results.Sounds]:
        """Per example its key and row -> path relative to the results."""
        return [results.Sounds(**entry) for entry in self._entries.values()]
