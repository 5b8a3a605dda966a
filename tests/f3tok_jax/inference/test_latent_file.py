# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents on disk: what goes in comes out, and nothing else is taken."""

import dataclasses

import numpy as np
import pytest

from f3tok_jax.inference import frames
from f3tok_jax.inference import latent_file


def _save(path, **changes) -> frames.Frames:
    rows = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    values = dict(
        rows=rows,
        latent_rate=25.0,
        sample_rate=44_100,
        num_samples=[8_820] * len(changes.get("rows", rows)),
        fingerprint="0123abcd",
    )
    saved = frames.Frames(**(values | changes))
    latent_file.save(saved, path)
    return saved


@pytest.mark.parametrize("kind", [frames.LATENTS, frames.REPRESENTATIONS])
def test_round_trip(tmp_path, kind):
    saved = _save(tmp_path / "a.npz", kind=kind)
    loaded = latent_file.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.values, saved.values)
    assert dataclasses.replace(loaded, rows=()) == dataclasses.replace(saved, rows=())
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def _truncated(path):
    _save(path)
    path.write_bytes(path.read_bytes()[:200])


def _pickled(path):
    np.savez(path, latents=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _nan(path):
    _save(path, rows=np.full((1, 2, 8), np.nan, np.float32))


def _other_rank(path):
    _save(path, rows=np.zeros((2, 8), np.float32))


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


def test_sounds_of_unlike_lengths_are_not_one_file(tmp_path):
    with pytest.raises(ValueError, match=r"channels of one length, got \[3, 5\] samples"):
        _save(tmp_path / "a.npz", num_samples=[5, 3])
    assert not list(tmp_path.iterdir())
