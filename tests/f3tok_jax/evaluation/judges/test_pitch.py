# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""CREPE re-run in JAX, beside PyTorch's own layers with the same weights."""

import numpy as np
import pytest

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.evaluation.judges import pitch
from f3tok_jax.pretrained import torch_file
from tests.support import sounds

_missing = pitch.Crepe.package.missing()


@pytest.fixture(scope="module")
def hearer():
    if _missing:
        pytest.skip(_missing)
    return pitch.Crepe()


def _by_torch(stored: dict, frames: np.ndarray) -> np.ndarray:
    """What the layers of PyTorch make of windows."""
    torch = pytest.importorskip("torch")
    functional, weights = torch.nn.functional, {n: torch.from_numpy(a) for n, a in stored.items()}
    x = torch.from_numpy(frames.astype(np.float32))[:, None, :, None]
    for layer in range(1, 7):
        name, stride = f"conv{layer}", 4 if layer == 1 else 1
        x = functional.pad(x, (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32))
        x = functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], (stride, 1))
        norm = [
            weights[f"{name}_BN.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
        ]
        x = functional.batch_norm(functional.relu(x), *norm, eps=0.0010000000474974513)
        x = functional.max_pool2d(x, (2, 1), (2, 1))
    x = x.permute(0, 2, 1, 3).reshape(len(frames), -1)
    found = functional.linear(x, weights["classifier.weight"], weights["classifier.bias"])
    return torch.sigmoid(found).numpy()


def test_the_network_is_that_of_torch(hearer):
    frames, _ = pitch.windows(sounds.speechlike(0.7).astype(np.float32))
    stored = torch_file.read(hearer.package.file(pitch._WEIGHTS))
    found = pitch._salience(hearer._weights, frames[:30])
    np.testing.assert_allclose(found, _by_torch(stored, frames[:30]), atol=1e-4)
    # By torchcrepe 0.0.24 itself, at a sound's beginning.
    np.testing.assert_array_equal(found[:15].argmax(axis=1), [115] * 15)
    confident = [0.3107, 0.7123, 0.8095, 0.854, 0.8696, 0.8628, 0.8727, 0.8647]
    np.testing.assert_allclose(found[:8].max(axis=1), confident, atol=1e-3)


def test_a_buzz_has_its_pitch(hearer):
    track = hearer.hear(sounds.speechlike(1.0), judge.RATE)
    heard = 10.0 * 2.0 ** (track.cents[track.is_voiced] / 1200.0)
    assert track.is_voiced.mean() > 0.3 and np.median(heard) == pytest.approx(120.0, rel=0.01)


def test_what_became_lower_or_silent_is_told(hearer):
    sound = sounds.speechlike(1.0, 16_000)
    slower = sounds.speechlike(0.5, 32_000)  # played at half of its rate: an octave lower
    found = hearer(slower, judge.RATE, reference=sound)
    assert found.values["pitch_frame_error"] > 0.3
    same = hearer(0.5 * sound, judge.RATE, reference=sound)
    assert same.values["pitch_frame_error"] < 0.02 and same.values["pitch_difference"] < 1.0
    assert hearer(np.zeros(16_000), judge.RATE, reference=sound).undefined == dict.fromkeys(
        hearer.figures, "the sound is silent"
    )


def test_errors_are_counted_over_what_is_loud_in_the_recording():
    loud = np.array([True] * 4 + [False])
    sure, unsure = np.full(5, 0.9), np.array([0.9, 0.9, 0.9, 0.1, 0.9])
    one = pitch.Track(np.array([3600.0, 3650.0, 4800.0, 3600.0, 0.0]), unsure, loud)
    other = pitch.Track(np.full(5, 3600.0), sure, loud)
    found = pitch.Crepe.verdict(None, one, reference=other)
    # Of four loud windows one is an octave off and one has lost its pitch.
    assert found.values["pitch_frame_error"] == 0.5 and found.values["pitch_difference"] == 50.0
    nothing = pitch.Track(one.cents, np.zeros(5), loud)
    found = pitch.Crepe.verdict(None, nothing, reference=other)
    assert found.undefined == {"pitch_difference": "no window has a pitch in both"}
