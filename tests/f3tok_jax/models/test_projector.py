# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The projector: audio tokens at the scale of a language model's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import projector as projector_lib


@pytest.mark.parametrize("kind", projector_lib.PROJECTORS)
def test_audio_tokens_begin_at_rms_one_whatever_comes_in(kind):
    projector = projector_lib.Projector(patch=2, width=32, kind=kind)
    states = 30.0 * jax.random.normal(jax.random.key(0), (2, 7, 16))
    variables = projector.init(jax.random.key(1), states)
    audio = projector.apply(variables, states)
    assert audio.shape == (2, 4, 32)
    rms = np.sqrt(np.mean(np.square(audio), axis=-1))
    np.testing.assert_allclose(rms, 1.0, rtol=1e-4)  # epsilon against a mean square near 1


def test_an_unknown_projector_is_refused():
    with pytest.raises(ValueError, match="projector kind must be one of .*'linear'.*'cubic'"):
        projector_lib.Projector(patch=2, width=8, kind="cubic").init(
            jax.random.key(0), jnp.zeros((1, 2, 4))
        )
