# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Upsampling over time and frequency: causal transposed convolution, in two formulations of the same
function, and repetition."""

import dataclasses
import fractions
import functools
import itertools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import streaming_layers as sl

FORMULATIONS = ("auto", "transposed", "subpixel")


def transposed_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int],
    formulation: str,
    num_past: int = 0,
) -> jax.Array:
    """Upsamples `x` by `strides`, causally in time and centred in frequency.

    "transposed" is XLA's dilated convolution, the cheapest form on a TPU. "subpixel" is an ordinary
    convolution to one channel per phase and a reshape: on XLA's CPU backend the weight gradient of
    the first form is 20 to 40 times slower than that of the second. "auto" is the better one for
    the platform that the program is compiled for.

    Args:
        x: [b, num_past + t, f, c_in].
        kernel: [k_t, k_f, c_in, c_out].
        strides: (time, frequency).
        formulation: one of `FORMULATIONS`.
        num_past: leading frames of `x` that are context only; what they alone produce is not
            returned.

    Returns:
        [b, t * strides[0], f * strides[1], c_out]
    """
    # The full result has kernel - stride entries too many: in time all are dropped at the end,
    # which is causality; in frequency half at either end.
    crops = (0, (kernel.shape[1] - strides[1]) // 2)
    options = strides, crops, num_past
    dilated = lambda x, kernel: _dilated(x, kernel, *options)  # noqa: E731
    subpixel = lambda x, kernel: _subpixel(x, kernel, *options)  # noqa: E731
    if formulation == "transposed":
        return dilated(x, kernel)
    if formulation == "subpixel":
        return subpixel(x, kernel)
    if formulation == "auto":
        return jax.lax.platform_dependent(x, kernel, cpu=subpixel, default=dilated)
    raise ValueError(f"formulation must be one of {FORMULATIONS}, got {formulation!r}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _dilated(x, kernel, strides, crops, num_past):
    """With the gradients of what it is the transpose of, a convolution with strides: those that JAX
    writes dilate both sides, and a TPU's compiler turns whole activations round for them."""
    padding = [
        (size - 1 - crop - skip, stride - 1 + crop)
        for size, stride, crop, skip in zip(
            kernel.shape[:2], strides, crops, (strides[0] * num_past, 0), strict=True
        )
    ]
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=padding,
        lhs_dilation=strides,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _dilated_forward(x, kernel, strides, crops, num_past):
    return _dilated(x, kernel, strides, crops, num_past), (x, kernel)


def _dilated_backward(strides, crops, num_past, saved, cotangent):
    x, kernel = saved
    padding = [
        (crop + stride * past, size - stride - crop)
        for size, stride, crop, past in zip(
            kernel.shape[:2], strides, crops, (num_past, 0), strict=True
        )
    ]

    def strided(kernel):
        return jax.lax.conv_general_dilated(
            cotangent, kernel, strides, padding, dimension_numbers=("NHWC", "HWOI", "NHWC")
        )

    return strided(kernel), *jax.linear_transpose(strided, kernel)(x)


_dilated.defvjp(_dilated_forward, _dilated_backward)


def _subpixel(x, kernel, strides, crops, num_past):
    # y[s m + r] = sum_q x[m - q] w[s q + r + crop]: taps q and phases r of the kernel, zero
    # outside it.
    pads, taps, padding = [], [], []
    sizes, pasts = kernel.shape[:2], (num_past, 0)
    for size, stride, crop, past in zip(sizes, strides, crops, pasts, strict=True):
        first = -((stride - 1 + crop) // stride)
        last = (size - 1 - crop) // stride
        before = -(stride * first + crop)
        pads.append((before, stride * (last - first + 1) - before - size))
        taps.append(last - first + 1)
        padding.append((last - past, -first))
    c_in, c_out = kernel.shape[2:]
    phases = jnp.pad(kernel, (*pads, (0, 0), (0, 0)))
    phases = phases.reshape(taps[0], strides[0], taps[1], strides[1], c_in, c_out)
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(*taps, c_in, -1)[::-1, ::-1]
    y = jax.lax.conv_general_dilated(
        x,
        phases,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    b, t, f, _ = y.shape
    y = y.reshape(b, t, f, *strides, c_out).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, t * strides[0], f * strides[1], c_out)


def repeated(x: jax.Array, rates: tuple[int, int]) -> jax.Array:
    """Each frame and bin of `x` [b, t, f, c] as often as `rates` say, one after the other.

    A TPU's compiler takes six times as long to write a broadcast array, and to sum its gradient, as
    to add arrays that are dilated, and strided ones.
    """
    return jax.lax.platform_dependent(
        x,
        tpu=lambda x: _added_up(x, rates),
        default=lambda x: jnp.repeat(jnp.repeat(x, rates[0], axis=1), rates[1], axis=2),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _added_up(x, rates):
    """The sum of `x` dilated, once for each place of a repetition."""
    zero = jnp.zeros((), x.dtype)
    places = itertools.product(*map(range, rates))
    return sum(
        jax.lax.pad(
            x,
            zero,
            [
                (0, 0, 0),
                *((i, rate - 1 - i, rate - 1) for i, rate in zip(place, rates, strict=True)),
                (0, 0, 0),
            ],
        )
        for place in places
    )


def _added_up_backward(rates, _, cotangent):
    places = itertools.product(*map(range, rates))
    return (sum(cotangent[:, i :: rates[0], j :: rates[1]] for i, j in places),)


_added_up.defvjp(lambda x, rates: (_added_up(x, rates), None), _added_up_backward)


class Upsample2D(sl.Upsample2D):
    """The layer of that name by `repeated`."""

    class Config(sl.Upsample2D.Config):
        def make(self) -> "Upsample2D":
            return Upsample2D(self, name=self.name)

    def layer(self, x, *, training, constants=None):
        rates = self.config.rate
        mask = jnp.repeat(x.mask, rates[0], axis=1)
        return type(x)(repeated(x.values, rates), mask)


def _scaled_lecun_normal(strides: tuple[int, int]) -> nn.initializers.Initializer:
    """Unit output variance: each output meets only one in prod(strides) of the kernel's taps."""
    return nn.initializers.variance_scaling(math.prod(strides), "fan_in", "truncated_normal")


class CausalConv2DTranspose(sl.SequenceLayer):
    """`transposed_conv` as a sequence layer, whole or step by step."""

    @dataclasses.dataclass(frozen=True)
    class Config(sl.SequenceLayerConfig):
        """filters: output channels; kernel_size and strides: (time, frequency)."""

        filters: int
        kernel_size: tuple[int, int]
        strides: tuple[int, int]
        formulation: str
        compute_dtype: jnp.dtype
        name: str | None = None

        def make(self) -> "CausalConv2DTranspose":
            return CausalConv2DTranspose(self, name=self.name)

    config: Config

    @property
    def supports_step(self) -> bool:
        return True

    @property
    def output_ratio(self) -> fractions.Fraction:
        return fractions.Fraction(self.config.strides[0])

    @property
    def _num_past(self) -> int:
        return (self.config.kernel_size[0] - 1) // self.config.strides[0]

    @property
    def receptive_field_per_step(self):
        size, stride = self.config.kernel_size[0], self.config.strides[0]
        return {phase: (-((size - 1 - phase) // stride), 0) for phase in range(stride)}

    @nn.nowrap
    def get_output_shape(self, input_shape, *, constants=None):
        return (input_shape[0] * self.config.strides[1], self.config.filters)

    @nn.nowrap
    def get_output_dtype(self, input_dtype, *, constants=None):
        return self.config.compute_dtype

    def get_initial_state(self, batch_size, input_spec, *, training, constants=None):
        return jnp.zeros((batch_size, self._num_past, *input_spec.shape), input_spec.dtype)

    @nn.compact
    def _upsample(self, values: jax.Array, num_past: int) -> jax.Array:
        config = self.config
        shape = (*config.kernel_size, values.shape[-1], config.filters)
        kernel = self.param("kernel", _scaled_lecun_normal(config.strides), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (config.filters,))
        arrays = nn.dtypes.promote_dtype(values, kernel, bias, dtype=config.compute_dtype)
        values, kernel, bias = arrays
        form = dict(strides=config.strides, formulation=config.formulation)
        y = transposed_conv(values, kernel, **form, num_past=num_past)
        return y + bias.reshape(1, 1, 1, -1)

    def _with_mask(self, values: jax.Array, mask: jax.Array) -> sl.Sequence:
        return sl.Sequence(values, jnp.repeat(mask, self.config.strides[0], axis=1))

    def layer(self, x, *, training, constants=None):
        x = x.mask_invalid()
        return self._with_mask(self._upsample(x.values, 0), x.mask)

    def step(self, x, state, *, training, constants=None):
        x = x.mask_invalid()
        values = jnp.concatenate([state, x.values], axis=1)
        y = self._with_mask(self._upsample(values, self._num_past), x.mask)
        return y, values[:, values.shape[1] - self._num_past :]
