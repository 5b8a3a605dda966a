# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Period discriminators see rows of every n-th sample as plain convolutions would."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import periods as periods_lib
from tests.support import noise

# Matrix products against convolutions in float32: sums of a few hundred terms in another order.
_TOLERANCE = 2e-5


def test_period_view_is_every_period_th_sample():
    waveform = noise.waveform(2, 100)
    view = np.asarray(periods_lib.period_view(waveform, period=3, fold=4))
    assert view.shape == (2, 3, 9, 4)  # 100 samples fill 8.3 blocks of 12
    padded = np.pad(waveform, ((0, 0), (0, 8)))
    for row in range(3):
        np.testing.assert_array_equal(view[:, row].reshape(2, -1), padded[:, row::3])


def _conv(x, kernel, stride=1, padding=0):
    """[b, n, c] with [k, c, d]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(padding, padding)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision="highest",
    )


def test_period_discriminator_equals_convolutions_along_its_rows():
    """Stacked matrix products over positions against a plain convolution per period."""
    periods, fold, channels = (2, 5), 3, (4, 6, 8)
    module = periods_lib.PeriodDiscriminators(
        periods=periods, fold=fold, channels=channels, compute_dtype="float32"
    )
    waveform = noise.waveform(3, 301)
    whole = np.full(len(waveform), waveform.shape[1])
    params = jax.jit(module.init)(jax.random.key(0), waveform, whole)
    params = noise.with_random_biases(params)
    outputs, _ = jax.jit(module.apply)(params, waveform, whole)
    expected = jax.jit(_logits_of_rows, static_argnames=("periods", "fold"))(
        params["params"], waveform, periods=periods, fold=fold
    )
    for maps, logits in zip(outputs, expected):
        np.testing.assert_allclose(maps[-1], logits, atol=_TOLERANCE)


def _logits_of_rows(params, waveform, *, periods, fold):
    """Logits of every period by convolutions."""
    outputs = []
    for index, period in enumerate(periods):
        padded = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % (period * 3 * fold))))
        logits = []
        for row in range(period):
            x = padded[:, row::period].reshape(3, -1, fold)
            for layer, (stride, padding) in enumerate(((1, 2), (3, 0), (1, 1))):
                kernel, bias = (
                    params[f"conv_{layer}_kernel"][index],
                    params[f"conv_{layer}_bias"][index],
                )
                x = _conv(x, kernel, stride, padding) + bias
                x = jnp.where(x > 0, x, 0.1 * x)
            kernel, bias = params["logits_kernel"][index], params["logits_bias"][index]
            logits.append(_conv(x, kernel, 1, 1) + bias)
        outputs.append(jnp.concatenate(logits, axis=1))
    return outputs
