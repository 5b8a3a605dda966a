# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files and shard sets that the tests of data_pipelines make for themselves."""

import pathlib

import numpy as np
import soundfile

from data_pipelines import audio_files
from data_pipelines import build_shards
from data_pipelines import inputs


def tone(seconds: float = 0.5, *, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """Returns a tone at half of full scale, [samples], float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def write_folder(folder: pathlib.Path, *, num_files: int = 8, rate: int = 16_000) -> pathlib.Path:
    """Writes tones of different pitch and length, `{digit}_{speaker}_{index}.wav`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num_files):
        sound = tone(0.3 + 0.11 * index, rate=rate, hertz=200.0 + 50.0 * index)
        name = f"{index % 10}_{('ada', 'bob')[index % 2]}_{index}.wav"
        soundfile.write(folder / name, sound, rate, subtype="PCM_16")
    return folder


def recipe(**changes) -> audio_files.Recipe:
    """A recipe at 16 kHz with segments of half a second."""
    fields = dict(
        sample_rate=16_000, segment_length=8_000, mono="mean", min_seconds=0.05, max_seconds=3600.0
    )
    return audio_files.Recipe(**(fields | changes))


def shard_set(folder: pathlib.Path, *, num_files: int = 8, **changes) -> pathlib.Path:
    """Builds a shard set of `num_files` tones below `folder` and returns the set's folder."""
    source = inputs.Folder(str(write_folder(folder / "sounds", num_files=num_files)))
    build_shards.build(source, folder / "shards", recipe(**changes), say=lambda line: None)
    return folder / "shards"
