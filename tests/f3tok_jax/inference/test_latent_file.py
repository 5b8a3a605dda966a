# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents on disk: what goes in comes out, and nothing else is taken."""

import dataclasses

import numpy as np
import pytest

from f3tok_jax.inference import latent_file


def _latents(**changes):
    values = dict(
        latents=np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32),
        latent_rate=25.0,
        sample_rate=44_100,
        num_samples=8_820,
        fingerprint="0123abcd",
    )
    return latent_file.LatentFile(**(values | changes))


def test_round_trip(tmp_path):
    saved = _latents()
    saved.save(tmp_path / "a.npz")
    loaded = latent_file.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.latents, saved.latents)
    assert dataclasses.replace(loaded, latents=None) == dataclasses.replace(saved, latents=None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def _truncated(path):
    _latents().save(path)
    path.write_bytes(path.read_bytes()[:200])


def _pickled(path):
    np.savez(path, latents=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _nan(path):
    _latents(latents=np.full((1, 2, 8), np.nan, np.float32)).save(path)


def _other_rank(path):
    _latents(latents=np.zeros((2, 8), np.float32)).save(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("text"),
        lambda path: np.savez(path, other=np.zeros(3)),
        _truncated,
        _pickled,
        _nan,
        _other_rank,
    ],
)
def test_what_is_not_latents_is_refused(write, tmp_path):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError, match="a.npz must"):
        latent_file.load(path)
