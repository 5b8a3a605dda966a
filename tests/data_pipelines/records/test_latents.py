# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Records of latents survive the trip to bytes and back, and damaged bytes are refused."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.records import latents as latent_records
from data_pipelines.records import sound as sound_records

_SOUND = sound_records.Record(
    key="a#00001",
    waveform=np.arange(100, dtype=np.int16),
    sample_rate=24_000,
    source="a",
    offset=96_000,
    ends=True,
    texts=(sound_records.Text("你好", "transcript"),),
    labels={"b": "1", "a": "2"},
    levels={"peak_db": -3.0},
)


def _record(**changes) -> latent_records.LatentRecord:
    latents = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    return dataclasses.replace(latent_records.from_sound(_SOUND, latents), **changes)


def test_round_trip_keeps_every_field_and_bit():
    record = _record()
    found = latent_records.decode(latent_records.encode(record), latent_dim=8)
    np.testing.assert_array_equal(found.latents, record.latents)
    assert found.latents.dtype == np.float32 and found.num_samples == 100
    for name in ("key", "sample_rate", "source", "offset", "ends", "texts", "labels", "levels"):
        assert getattr(found, name) == getattr(_SOUND, name)


@pytest.mark.parametrize("gain", [1.0, 100.0, 0.3])
def test_a_gain_is_kept_beside_the_levels_of_the_sound(gain):
    latents = np.zeros((5, 8), np.float32)
    record = latent_records.from_sound(_SOUND, latents, gain=gain)
    found = latent_records.decode(latent_records.encode(record), latent_dim=8)
    assert found.gain == pytest.approx(gain, rel=1e-12) and found.levels["peak_db"] == -3.0
    assert _SOUND.levels == {"peak_db": -3.0}
    assert (latent_records.GAIN_DB in found.levels) == (gain != 1.0)


@pytest.mark.parametrize(
    "latents",
    [
        np.zeros((5, 8)),
        np.zeros((0, 8), np.float32),
        np.zeros(8, np.float32),
        np.full((5, 8), np.nan, np.float32),
    ],
)
def test_encode_refuses_what_are_no_latents(latents):
    with pytest.raises(ValueError, match="latents of 'a#00001' must be finite float32"):
        latent_records.encode(_record(latents=latents))


def test_damaged_and_other_records_are_refused():
    data = latent_records.encode(_record())
    for damaged in (data[:-1], data[:20], data[:-160], b"F3TX" + data[4:]):
        with pytest.raises(ValueError):
            latent_records.decode(damaged, latent_dim=8)
    with pytest.raises(ValueError, match="frames of 7 latents"):
        latent_records.decode(data, latent_dim=7)
    with pytest.raises(ValueError, match="starts with b'F3TR', got b'F3TL'"):
        sound_records.decode(data)
    with pytest.raises(ValueError, match="starts with b'F3TL', got b'F3TR'"):
        latent_records.decode(sound_records.encode(_SOUND), latent_dim=8)
