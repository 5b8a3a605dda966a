# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of semantic features against NumPy, and whom their gradients reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import semantic

_RNG = np.random.default_rng(0)
_FEATURES = _RNG.normal(size=(3, 7, 20)).astype(np.float32)
_OUTPUT = _RNG.normal(size=(3, 7, 20)).astype(np.float32)
_LATENTS = _RNG.normal(size=(3, 7, 5)).astype(np.float32)
_LENGTHS = (7, 4, 0)
_MASK = np.arange(7)[None] < np.array(_LENGTHS)[:, None]


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _mean(loss):
    total, weight = loss
    assert total.dtype == weight.dtype == jnp.float32
    return float(total / weight)


def test_feature_reconstruction_is_that_of_directions():
    expected = np.mean((_unit(_OUTPUT) - _unit(_FEATURES))[_MASK] ** 2)
    loss = semantic.feature_reconstruction(_FEATURES, 3.0 * _OUTPUT, _MASK)
    assert loss[1] == 11
    assert _mean(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("width", [20, 1280])
def test_a_weight_of_1000_only_undoes_the_mean_over_channels(width):
    """L_recon = (2 - 2 cos) / d; at 1280 channels 1000 of it are 0.78 of a squared distance."""
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 2, 6, width))
    squared_distance = 2 - 2 * np.mean(np.sum(_unit(one) * _unit(two), axis=-1))
    loss = semantic.feature_reconstruction(jnp.array(one), jnp.array(two), jnp.ones((2, 6), bool))
    assert _mean(loss) == pytest.approx(squared_distance / width, rel=1e-5)
    if width == 1280:
        assert 1e3 * _mean(loss) == pytest.approx(0.78125 * squared_distance, rel=1e-5)


def test_time_relation_is_that_of_gram_matrices():
    total = count = 0.0
    for row, length in enumerate(_LENGTHS):
        gram = lambda x: _unit(x[row, :length]) @ _unit(x[row, :length]).T
        total += np.sum((gram(_LATENTS) - gram(_FEATURES)) ** 2)
        count += length**2
    loss = semantic.time_relation(_FEATURES, _LATENTS, _MASK)
    assert loss[1] == count == 49 + 16
    assert _mean(loss) == pytest.approx(total / count, rel=1e-5)
    # Of whole examples it is the published mean over b, t and t.
    whole = [_unit(x) @ _unit(x).swapaxes(1, 2) for x in (_LATENTS, _FEATURES)]
    loss = semantic.time_relation(_FEATURES, _LATENTS, np.ones_like(_MASK))
    assert _mean(loss) == pytest.approx(np.mean((whole[0] - whole[1]) ** 2), rel=1e-5)


def test_a_turned_space_keeps_its_time_relations():
    turn = np.linalg.qr(_RNG.normal(size=(20, 20)))[0].astype(np.float32)
    loss = semantic.time_relation(_FEATURES, 2.0 * _FEATURES @ turn, _MASK)
    assert _mean(loss) == pytest.approx(0.0, abs=1e-10)


def test_feature_distance_is_a_mean_square():
    loss = semantic.feature_distance(_FEATURES, _OUTPUT, _MASK)
    assert _mean(loss) == pytest.approx(np.mean((_OUTPUT - _FEATURES)[_MASK] ** 2), rel=1e-5)


@pytest.mark.parametrize(
    "loss, output",
    [
        (semantic.feature_reconstruction, _OUTPUT),
        (semantic.time_relation, _LATENTS),
        (semantic.feature_distance, _OUTPUT),
    ],
)
def test_padding_and_targets_get_no_gradient(loss, output):
    hole = np.where(_MASK[..., None], 0.0, np.nan).astype(np.float32)
    value, gradients = jax.value_and_grad(lambda *both: loss(*both, _MASK)[0], argnums=(0, 1))(
        _FEATURES + hole, output + hole
    )
    assert float(value) == pytest.approx(float(loss(_FEATURES, output, _MASK)[0]))
    assert not np.any(gradients[0])
    assert np.all(np.any(gradients[1], axis=-1) == _MASK)
    # Vectors without a direction.
    gradient = jax.grad(lambda x: loss(_FEATURES, x, _MASK)[0])(np.zeros_like(output))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    "levels, names",
    [
        ("both", {"supervision_high", "supervision_low"}),
        ("high", {"supervision_high"}),
        ("low", {"supervision_low"}),
    ],
)
def test_supervision_is_of_the_levels_that_are_asked_for(levels, names):
    high, low = (_FEATURES, _OUTPUT), (_LATENTS, _LATENTS + 0.5)
    found = semantic.supervision(high, low, _MASK, levels=levels)
    assert found.keys() == names
    expected = {"supervision_high": np.mean((_OUTPUT - _FEATURES)[_MASK] ** 2)}
    expected["supervision_low"] = 0.25
    for name, loss in found.items():
        assert _mean(loss) == pytest.approx(expected[name], rel=1e-5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"got \(3, 7, 20\), \(3, 6, 20\) and \(3, 7\); cut"):
        semantic.feature_distance(_FEATURES, _OUTPUT[:, :6], _MASK)
    with pytest.raises(ValueError, match="same frames, got"):
        semantic.feature_reconstruction(_FEATURES, _LATENTS, _MASK)
    with pytest.raises(ValueError, match="boolean, True where valid, got float32"):
        semantic.time_relation(_FEATURES, _LATENTS, _MASK.astype(np.float32))
    with pytest.raises(ValueError, match="one of .*'low'.*, got 'middle'"):
        semantic.supervision((_FEATURES, _OUTPUT), None, _MASK, levels="middle")
    with pytest.raises(ValueError, match="must be 'high' .* got 'both'"):
        semantic.supervision((_FEATURES, _OUTPUT), None, _MASK, levels="both")
