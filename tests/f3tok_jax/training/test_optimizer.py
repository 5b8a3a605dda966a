# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The optimizer: schedule, clipping, decay, against numbers worked out by hand."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from f3tok_jax.training import optimizer

_SECTION = dict(
    learning_rate=1e-2,
    warmup_steps=4,
    schedule="constant",
    decay=0.5,
    final_fraction=0.1,
    b1=0.9,
    b2=0.99,
    weight_decay=0.0,
    clip_norm=1.0,
)


def _rates(num_steps: int = 10, **changes) -> np.ndarray:
    schedule = optimizer.make_schedule(_SECTION | changes, num_steps)
    return np.array([schedule(step) for step in range(num_steps + 1)])


def test_warm_up_is_linear_and_learns_from_the_first_step():
    np.testing.assert_allclose(_rates()[:5], [0.0025, 0.005, 0.0075, 0.01, 0.01], rtol=1e-6)


def test_exponential_decay_is_per_step_after_the_warm_up():
    np.testing.assert_allclose(
        _rates(schedule="exponential")[4:8], 1e-2 * 0.5 ** np.arange(4), rtol=1e-6
    )


def test_cosine_ends_at_its_fraction():
    rates = _rates(schedule="cosine")
    np.testing.assert_allclose(rates[[4, 7, 10]], [1e-2, 1e-2 * 0.55, 1e-3], rtol=1e-6)


def test_no_warm_up():
    np.testing.assert_allclose(_rates(warmup_steps=0)[:2], 1e-2, rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    # Adam's ratio hides the scale of its gradients: look at their running mean instead.
    tx = optimizer.make_optimizer(_SECTION, 10)
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    grads = {"a": jnp.full(3, 30.0), "b": jnp.full((2, 2), 40.0)}
    _, state = tx.update(grads, tx.init(params), params)
    mean = optax.tree.get(state, "mu")
    norm = np.sqrt(3 * 30.0**2 + 4 * 40.0**2)
    np.testing.assert_allclose(mean["a"], 0.1 * 30.0 / norm, rtol=1e-5)


def test_weight_decay_spares_vectors():
    tx = optimizer.make_optimizer(_SECTION | dict(weight_decay=0.1, warmup_steps=0), 10)
    params = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 2))}
    grads = {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 2))}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["bias"], 0.0)
    np.testing.assert_allclose(updates["kernel"], -1e-2 * 0.1, rtol=1e-6)


def test_weight_decay_spares_biases_and_scales_that_a_scan_stacks():
    tx = optimizer.make_optimizer(_SECTION | dict(weight_decay=0.1, warmup_steps=0), 10)
    names = ("bias", "scale", "kernel")
    params = {name: nn.LogicallyPartitioned(jnp.ones((3, 2)), ("layers", None)) for name in names}
    plain = {name: jnp.ones((3, 2)) for name in names}
    for tree in (params, plain):
        state = tx.init(tree)
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, tree), state, tree)
        sums = {name: float(jax.tree.leaves(updates[name])[0].sum()) for name in names}
        assert sums["bias"] == sums["scale"] == 0.0 > sums["kernel"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(schedule="linear"), "schedule must be one of"),
        (
            dict(schedule="cosine", warmup_steps=10),
            "warmup_steps=10 must be smaller than num_steps=10",
        ),
        (dict(learning_rate=0.0), "learning_rate must be greater than 0, got 0.0"),
        (dict(clip_norm=-1.0), "clip_norm must be greater than 0, got -1.0"),
    ],
)
def test_impossible_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        optimizer.make_optimizer(_SECTION | changes, 10)
