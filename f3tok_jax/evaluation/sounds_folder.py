# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds of some examples beside the results of an evaluation."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.sound import audio_files
from f3tok_jax.runs import results
from f3tok_jax.runs import summed_folder


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
        self._sample_rate, self._place = sample_rate, f"listen/{output.stem}"
        self._folder = summed_folder.SummedFolder(output.parent / self._place)
        chosen = sources.spaced(len(examples), num_listen)
        self._entries = {index: {"key": examples[index].key, "files": {}} for index in chosen}
        for index in chosen:
            self.write(index, "original", examples[index].waveform)

    def write(self, index: int, row: str, waveform: np.ndarray) -> None:
        """Writes one sound if its example was chosen."""
        if index not in self._entries:
            return
        name = f"{index:04d}_{row}.wav"
        self._folder.write(name, audio_files.wav(np.clip(waveform, -1.0, 1.0), self._sample_rate))
        self._entries[index]["files"][row] = f"{self._place}/{name}"

    def close(self) -> list[results.Sounds]:
        """Writes the checksums; returns per example its key and row -> path by the results."""
        self._folder.close()
        return [results.Sounds(**entry) for entry in self._entries.values()]
