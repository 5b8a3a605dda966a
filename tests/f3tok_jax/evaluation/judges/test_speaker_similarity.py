# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""GE2E re-run in NumPy, beside PyTorch's LSTM with the same weights and the package itself."""

import numpy as np
import pytest

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.evaluation.judges import speaker_similarity
from tests.support import sounds

_missing = speaker_similarity.SpeakerSimilarity.package.missing()


@pytest.fixture(scope="module")
def hearer():
    if _missing:
        pytest.skip(_missing)
    return speaker_similarity.SpeakerSimilarity()


def _random_weights(rng) -> dict[str, np.ndarray]:
    weights = {"linear.weight": rng.normal(size=(256, 256)), "linear.bias": rng.normal(size=256)}
    for layer, width in enumerate((40, 256, 256)):
        shapes = dict(weight_ih=(1024, width), weight_hh=(1024, 256), bias_ih=1024, bias_hh=1024)
        for name, shape in shapes.items():
            weights[f"lstm.{name}_l{layer}"] = 0.05 * rng.normal(size=shape)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def test_the_network_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weights, mels = _random_weights(rng), np.square(rng.normal(size=(3, 160, 40)), dtype=np.float32)
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    for module, owner in ((lstm, "lstm."), (linear, "linear.")):
        own = {n.removeprefix(owner): t for n, t in tensors.items() if n.startswith(owner)}
        module.load_state_dict(own)
    with torch.no_grad():
        _, (hidden, _) = lstm(torch.from_numpy(mels))
        wanted = torch.nn.functional.normalize(torch.relu(linear(hidden[-1])), dim=1).numpy()
    # 480 steps of float32 in another order.
    np.testing.assert_allclose(speaker_similarity.embeddings(mels, weights), wanted, atol=1e-5)


def test_embeddings_are_those_of_the_package(hearer):
    # The five greatest of 256 by Resemblyzer 0.1.4 with librosa 0.11 and torch 2.13, of a sound that
    # it makes louder first; and the cosine with an embedding of noise.
    found = hearer.hear(0.02 * sounds.speechlike(2.6), judge.RATE)
    greatest = np.argsort(-found)[:5]
    np.testing.assert_array_equal(greatest, [246, 9, 218, 89, 36])
    wanted = [0.34078398, 0.24199156, 0.21674009, 0.21315357, 0.19202146]
    np.testing.assert_allclose(found[greatest], wanted, atol=1e-4)
    noise = 0.05 * np.random.default_rng(1).normal(size=30_000)
    similarity = hearer.verdict(found, reference=hearer.hear(noise, judge.RATE)).values
    assert similarity == pytest.approx({"speaker_similarity": 0.43882242}, abs=1e-3)


@pytest.mark.parametrize(
    "num_samples, count", [(1, 1), (25_600, 1), (31_510, 1), (31_530, 2), (96_000, 7)]
)
def test_parts_cover_a_sound_but_for_an_end_that_is_mostly_padding(num_samples, count):
    sound = np.random.default_rng(0).normal(size=num_samples).astype(np.float32)
    assert speaker_similarity.mel_parts(sound).shape == (count, 160, 40)


def test_without_a_recording_there_is_no_figure(hearer):
    assert hearer(sounds.speechlike(), judge.RATE) == ({}, {}, {})
