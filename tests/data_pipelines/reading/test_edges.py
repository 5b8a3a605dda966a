# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a batch says of the beginnings and ends of recordings is true: of crops and of segments."""

import numpy as np
import pytest
import soundfile

from data_pipelines.building import builder
from data_pipelines.building import latent_writer
from data_pipelines.inputs import folders
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from tests.support import sounds

_SEGMENT, _HOP = 8_000, 400
_LENGTHS = (3_200, 8_000, 8_001, 16_000, 20_000, 25_600)  # samples, some of several segments


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Recordings in which sample n is n + 1, so that every sample tells where it lies."""
    folder = tmp_path_factory.mktemp("ramps")
    (folder / "sounds").mkdir()
    for length in _LENGTHS:
        ramp = np.arange(1, length + 1, dtype=np.int16)
        soundfile.write(folder / "sounds" / f"{length}.wav", ramp, 16_000)
    source = folders.Folder(str(folder / "sounds"))
    conversion = sounds.conversion(segment_length=_SEGMENT)
    builder.build(source, folder / "shards", conversion, say=lambda line: None)
    return folder / "shards"


@pytest.fixture(scope="module")
def latents(shards, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("latents"), manifest.Latents("abc", 1, _HOP, "")
    latent_writer.build(
        sources.ShardSet(shards), folder, _every_hop, latents=made, say=lambda line: None
    )
    return folder


def _every_hop(waveforms):
    return [waveform[::_HOP, None] for waveform in waveforms], [1.0] * len(waveforms)


@pytest.mark.parametrize("crop", [1_200, 4_000, 8_000, 12_000])
@pytest.mark.parametrize("kind", ["beginnings", "crops", "latents"])
def test_edges_are_those_of_the_recording(shards, latents, crop, kind):
    loader = sounds.open_pipeline(
        latents if kind == "latents" else shards,
        sample_rate=16_000,
        crop_length=crop,
        batch_size=4,
        random_crop=kind == "crops",
    )
    seen = set()
    for step in range(60):
        batch = loader.local_batch(step)
        for row, (source, index) in enumerate(loader.places(step)):
            edges = _edges(batch, row, length=int(source[index].source.removesuffix(".wav")))
            assert (batch["begins"][row], batch["ends"][row]) == edges, source[index].key
            seen.add(edges)
    assert (False, False) in seen
    assert (True, False) in seen or kind == "crops"  # which seldom begin at the first sample
    assert ((True, True) in seen) == (crop >= 4_000)


def _edges(batch, row, *, length):
    """Whether a row holds the first and the last sample of its recording."""
    name, hop = ("latents", _HOP) if "latents" in batch else ("waveform", 1)
    held = np.ravel(batch[name][row])[batch["mask"][row]]
    first, last = (round(float(value) * 2**15) - 1 for value in (held[0], held[-1]))
    return first == 0, last + hop >= length
