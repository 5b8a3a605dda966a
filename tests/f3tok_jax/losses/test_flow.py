# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What flow matching draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import flow as flow_loss


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_a_draw_lies_between_its_noise_and_its_target():
    target = 2.0 + _normal(20_000, 1, 2)
    drawn = flow_loss.draw(jax.random.key(0), target)
    t = np.asarray(drawn.time)[:, None, None]
    assert drawn.time.shape == (20_000,) and 0 < t.min() < t.max() < 1
    noise = np.asarray(target - drawn.velocity)
    np.testing.assert_allclose(drawn.noisy, t * target + (1 - t) * noise, atol=1e-5)
    # Standard errors are below 0.01: of noise N(0, 1), of times whose logits are.
    for values in (noise, np.log(t / (1 - t))):
        assert values.mean() == pytest.approx(0.0, abs=0.03)
        assert values.std() == pytest.approx(1.0, abs=0.03)
    assert abs(np.corrcoef(t[:, 0, 0], noise[:, 0, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[:, 0, 0], noise[:, 0, 1])[0, 1]) < 0.03
