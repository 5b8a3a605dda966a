# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A representation encoder in use: lists and streams say the same."""

import numpy as np
import pytest

from f3tok_jax.inference import represent
from tests.support import tiny_models


@pytest.mark.parametrize("whole_latents", [1000, 20])
def test_a_list_gives_each_sound_as_if_it_were_alone(whole_latents, monkeypatch):
    monkeypatch.setattr(represent, "_WHOLE_LATENTS", whole_latents)  # longer ones are streamed
    made, weights = tiny_models.generator()
    representer = represent.Representer(made.encoder, weights["encoder"])
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 4)).astype(np.float32) for n in (60, 1, 7, 20)]
    found = representer.represent(sequences, batch_size=2)
    for sequence, representations in zip(sequences, found, strict=True):
        (alone,) = representer.stream(sequence[None])
        assert representations.shape == (len(sequence), 16)
        # Float32 sums in another order; representations have rms near 1.
        np.testing.assert_allclose(representations, alone, atol=1e-4)
