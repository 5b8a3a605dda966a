# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Period discriminators see rows of every n-th sample as plain convolutions would."""

import jax
import numpy as np

from f3tok_jax.models.discriminators import periods as periods_lib
from tests.support import noise
from tests.support import plain_discriminators

# Matrix products against convolutions in float32: sums of a few hundred terms in another order.
_TOLERANCE = 2e-5


def test_period_view_is_every_period_th_sample():
    waveform = noise.waveform(2, 100)
    view = np.asarray(periods_lib.period_view(waveform, period=3, fold=4))
    assert view.shape == (3, 9, 2, 4)  # 100 samples fill 8.3 blocks of 12
    padded = np.pad(waveform, ((0, 0), (0, 8)))
    for row in range(3):
        of_examples = view[row].swapaxes(0, 1).reshape(2, -1)
        np.testing.assert_array_equal(of_examples, padded[:, row::3])


def test_period_discriminator_equals_convolutions_along_its_rows():
    """A stack of rows one after another against a plain convolution per period and row."""
    periods, fold, channels = (2, 5), 3, (4, 6, 8)
    module = periods_lib.PeriodDiscriminators(
        periods=periods, fold=fold, channels=channels, compute_dtype="float32"
    )
    waveform = noise.waveform(3, 301)
    whole = np.full(len(waveform), waveform.shape[1])
    params = jax.jit(module.init)(jax.random.key(0), waveform, whole)
    params = noise.with_random_biases(params)
    ((*_, logits),), ((*_, valid),) = jax.jit(module.apply)(params, waveform, whole)
    expected = jax.jit(plain_discriminators.of_periods, static_argnames=("periods", "fold"))(
        params["params"], waveform, periods=periods, fold=fold
    )
    for values, where, own in zip(np.asarray(logits), np.asarray(valid), expected[-1]):
        assert np.all(where == where[:, :1])  # of all examples, which are equally long, the same
        np.testing.assert_allclose(values[where[:, 0]], own[..., 0].T, atol=_TOLERANCE)
