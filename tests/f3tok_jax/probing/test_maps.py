# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of features: known planes come back, whatever the number of clips and features."""

import numpy as np
import pytest

from f3tok_jax.probing import features as features_lib
from f3tok_jax.probing import maps


def test_a_plane_comes_back_with_its_shares():
    draw = np.random.default_rng(0)
    points = draw.normal(size=(50, 2)) * (3.0, 1.0)
    points -= points.mean(0)
    axes, _ = np.linalg.qr(draw.normal(size=(8, 2)))
    found = maps.plane((points @ axes.T + 5.0).astype(np.float32))
    # Distances are kept: the plane is turned, nothing else.
    x, y = np.array(found.x), np.array(found.y)
    np.testing.assert_allclose(np.hypot(x, y), np.hypot(*points.T), rtol=2e-3, atol=1e-3)
    assert np.var(x) > np.var(y) and abs(np.mean(x)) < 1e-3
    assert sum(found.shares) == pytest.approx(1.0, abs=1e-3) and found.shares[0] > 0.8


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (3, 40)])
def test_few_clips_or_features_are_drawn_too(shape):
    found = maps.plane(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    assert len(found.x) == len(found.y) == shape[0] and len(found.shares) == 2
    assert np.isfinite([*found.x, *found.y, *found.shares]).all()


def test_the_same_features_make_the_same_map_and_signs_do_not_flip():
    values = np.random.default_rng(2).normal(size=(20, 6)).astype(np.float32)
    first = maps.plane(values)
    again = maps.plane(np.concatenate([values, values]))
    assert np.sign(first.x).tolist() == np.sign(again.x[:20]).tolist()


def test_labels_stand_beside_evenly_spaced_clips():
    examples = features_lib.Examples(
        {
            "latents": np.eye(10, dtype=np.float32),
            "log_mel": np.ones((10, 3), np.float32),
            "latents:attentive": np.ones((10, 32, 2), np.float32),
        },
        [{"digit": str(index)} if index != 4 else {} for index in range(10)],
        [""] * 10,
        [""] * 10,
    )
    found = maps.draw(examples, ["digit"], max_clips=5)
    assert found.labels == {"digit": ("0", "2", "", "6", "8")}
    assert {name: len(plane.x) for name, plane in found.features.items()} == {
        "latents": 5,
        "log_mel": 5,
    }
    assert set(found.features["log_mel"].x) == {0.0}
