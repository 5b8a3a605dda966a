# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Layers of several discriminators of one kind at once.

A stack is an array [stack, *places, b, c]: one entry per discriminator (or band of one), its places
(the positions of its rows, or blocks of bins and rows of frames), examples, channels. Examples lie
between places and channels, so that the neighbours of a place are whole tiles of a TPU's memory
away: nothing is moved within a tile. Entries that have fewer places than others end in some that are
not valid, and hold zeros.
"""

from collections.abc import Sequence
import functools
import math

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_SLOPE = 0.1  # of the leaky ReLU (DAC)
# The weights of a stack are one array; the first axis tells its entries apart.
_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=(0,))

Padding = Sequence[tuple[int, int]]  # zeros before and after, per axis of places


def valid_places(
    held: np.ndarray, first_samples: np.ndarray, num_samples: jax.Array | np.ndarray
) -> jax.Array:
    """Which places of a stack are valid: bool [stack, *places, b, 1].

    Every place has a stretch of samples of its own, and the stretches of a row tile the sound. A
    place is valid where its stretch has any valid sample: so every sample is judged, an example of
    half the length has half the places, and one shorter than a stretch has a place, too. Were all
    samples asked for, the last part of a sound would be judged by nobody; were the whole window
    asked, which is wider, places of padding would be judged by a margin of sound.

    Args:
        held: bool [stack, *places], those that an entry has at all.
        first_samples: int [stack, *places], of each place's stretch.
        num_samples: int32 [b], valid ones of every example.
    """
    has_sound = first_samples[..., None] < num_samples.reshape((1,) * held.ndim + (-1,))
    return (held[..., None] & has_sound)[..., None]


def weights(module: nn.Module, name: str, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Kernel of `shape` (stack first, in and out last) and bias [stack, 1, 1, out].

    Args:
        module: whose parameters they are, in float32; they are returned in its compute_dtype.
        name: of the layer.
        shape: of the kernel.
    """
    kernel = module.param(f"{name}_kernel", _KERNEL_INIT, shape)
    bias = module.param(f"{name}_bias", nn.initializers.zeros_init(), (shape[0], 1, 1, shape[-1]))
    return kernel.astype(module.compute_dtype), bias.astype(module.compute_dtype)


def layer(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, valid: jax.Array, padding: Padding = ()
) -> jax.Array:
    """A convolution, a bias and a leaky ReLU; zeros where a place is not valid: layers after it must
    see padding as they begin.

    Args:
        x: [stack, *places, b, in].
        kernel: [stack, *taps, in, out], without taps for a product at every place by itself.
        bias: [stack, 1, 1, out].
        valid: bool [stack, *places, b, 1], of the result.
        padding: of the places, as in `convolve`.
    """
    bias = bias.reshape(bias.shape[0], *[1] * (x.ndim - 2), bias.shape[-1])
    return activate(convolve(x, kernel, padding) + bias, valid)


@jax.custom_jvp
def activate(x: jax.Array, valid: jax.Array) -> jax.Array:
    """DAC's leaky ReLU where `valid`, zeros elsewhere; `x` is finite everywhere.

    The sign of the result is all that the backward pass needs: 0 is where a place is not valid. (So
    no gradient passes an exact 0, which without a bias silence is.) Products and maxima instead of
    selections: a TPU's compiler keeps what is selected by as bits, and packs them for longer than
    all else here takes.
    """
    return jnp.maximum(x, _SLOPE * x) * valid.astype(x.dtype)


@activate.defjvp
def _activate_jvp(primals, tangents):
    result, (tangent, _) = activate(*primals), tangents
    sign = jnp.sign(result)
    return result, jnp.maximum(sign, -_SLOPE * sign) * tangent


def leaky_relu(x: jax.Array) -> jax.Array:
    """With DAC's slope."""
    return nn.leaky_relu(x, _SLOPE)


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding = ()) -> jax.Array:
    """A convolution over the places of every entry of a stack by itself.

    A TPU's compiler makes one convolution of all entries, of which it copies nothing. Elsewhere it
    is one product per entry of all taps side by side: a CPU has no fast convolution of this form,
    and differentiates products fast.

    Args:
        x: [stack, *places, b, in].
        kernel: [stack, *taps, in, out], as many taps' axes as places', or none of them.
        padding: zeros before and after, per axis of places.

    Returns:
        [stack, *places, b, out], places - taps + 1 of each axis after padding.
    """
    if kernel.ndim == 3:
        return jnp.einsum("s...c,scd->s...d", x, kernel)
    return lax.platform_dependent(
        x,
        kernel,
        tpu=lambda x, kernel: one_convolution(x, kernel, padding),
        default=lambda x, kernel: products(x, kernel, padding),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def one_convolution(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """`convolve` as one convolution of all entries.

    In two forms, of which either is copied or sent to other chips where the other is not: by
    `_as_places` the result and the gradient of `x`, by `_as_groups` the kernel's gradient. Where
    examples are spread over chips, the partitioner gathers them all for the first two by groups, and
    makes a result of a wrong shape of the third by places (jax 0.10.2). Of a wrong shape is, in a
    whole step, also the gradient of `x` that JAX writes, dilated on either side: it is written as what
    it is, the same convolution by the kernel from behind.
    """
    return _as_places(x, kernel, padding)


def _forward(x, kernel, padding):
    return _as_places(x, kernel, padding), (x, kernel)


def _backward(padding, saved, cotangent):
    x, kernel = saved
    taps = kernel.shape[1:-2]
    behind = jnp.flip(kernel, range(1, 1 + len(taps))).swapaxes(-1, -2)
    missing = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(taps, padding)]
    of_kernel = jax.linear_transpose(lambda kernel: _as_groups(x, kernel, padding), kernel)
    return _as_places(cotangent, behind, missing), *of_kernel(cotangent)


one_convolution.defvjp(_forward, _backward)


def _as_places(x, kernel, padding):
    """The stack as one more axis of places, as XLA writes products in batches: with n entries n
    apart, a kernel that is n long and steps of n - 1, the window at i meets one entry, the i-th, and
    that with its i-th tap."""
    stack, ones = x.shape[0], (1,) * len(padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        (max(stack - 1, 1), *ones),
        [(0, 0), *padding],
        lhs_dilation=(stack, *ones),
        dimension_numbers=_dimension_numbers(x.ndim),
    )


def _as_groups(x, kernel, padding):
    """The stack as groups of channels."""
    of_entry = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1,) * len(padding),
        padding=padding,
        dimension_numbers=_dimension_numbers(x.ndim - 1),
    )
    return jax.vmap(of_entry)(x, kernel)


def _dimension_numbers(ndim: int) -> tuple[str, str, str]:
    axes = "DHW"[: ndim - 2]
    return f"{axes}NC", f"{axes}IO", f"{axes}NC"


def products(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """`convolve` as one product per entry, with what each tap sees side by side as channels."""
    x = jnp.pad(x, [(0, 0), *padding, (0, 0), (0, 0)])
    taps = kernel.shape[1:-2]
    sizes = [length - size + 1 for length, size in zip(x.shape[1:], taps)]
    seen = [
        x[(slice(None), *(slice(i, i + size) for i, size in zip(place, sizes)))]
        for place in np.ndindex(*taps)
    ]
    kernel = kernel.reshape(kernel.shape[0], math.prod(taps) * x.shape[-1], -1)
    return jnp.einsum("s...c,scd->s...d", jnp.concatenate(seen, axis=-1), kernel)


def as_stack(x: jax.Array) -> jax.Array:
    """A map [b, *places, c] of one discriminator as a stack of one entry: [1, *places, b, c]."""
    return jnp.moveaxis(x, 0, -2)[None]


def pad_to(x: jax.Array, length: int = 0, *, axis: int, multiple: int = 1) -> jax.Array:
    """Zeros at the end of `axis` up to `length`, or up to a multiple."""
    missing = max(length - x.shape[axis], 0) or -x.shape[axis] % multiple
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
