# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Layers of several discriminators of one kind at once: matrix products over positions.

A stack is an array [stack, b, positions, c]: one entry per discriminator (or band of one), and
positions that are rows of some steps, one row after another. Discriminators whose rows differ in
number or length share a stack: the shorter end in positions that are not valid, and hold zeros.
"""

from collections.abc import Sequence
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_SLOPE = 0.1  # of the leaky ReLU (DAC)
# The weights of a stack are one array; the first axis tells its entries apart.
_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=(0,))


@dataclasses.dataclass(frozen=True)
class Rows:
    """How the rows of an entry lie on its positions.

    Attributes:
        num_rows: one after another, from the first position on.
        steps: positions per row.
        valid_steps: of them that hold something; the others end each row in zeros.
        row_samples: samples between the beginnings of what two neighbouring rows see.
        step_samples: the same of two neighbouring steps of a row.
    """

    num_rows: int
    steps: int
    valid_steps: int
    row_samples: int = 0
    step_samples: int = 0


class Positions:
    """Which positions of a stack are valid, and which begin or end a row.

    Every position has a stretch of samples of its own, and the stretches of a row tile the sound. A
    position is valid where its stretch has any valid sample: so every sample is judged, an example
    of half the length has half the positions, and one shorter than a stretch has a position, too.
    Were all samples asked for, the last part of a sound would be judged by nobody; were the whole
    window asked, which is wider, positions of padding would be judged by a margin of sound.
    """

    def __init__(self, stack: Sequence[Rows], length: int, num_samples: jax.Array | None = None):
        """Lays the rows of every entry of `stack` on `length` positions.

        Args:
            stack: one entry per discriminator, or band of one.
            length: positions of the longest.
            num_samples: [b], int32, valid ones of every example; None where all are.
        """
        position, masks, first_samples = np.arange(length), [], []
        for rows in stack:
            row, step = position // rows.steps, position % rows.steps
            held = (position < rows.num_rows * rows.steps) & (step < rows.valid_steps)
            masks.append((held, step == 0, step == rows.steps - 1))
            first_samples.append(row * rows.row_samples + step * rows.step_samples)
        # Each bool [stack, 1, positions, 1].
        held, self._first, self._last = (np.stack(mask)[:, None, :, None] for mask in zip(*masks))
        # Positions that an entry has at all: they come first, but for bands' last steps.
        self.held = held
        self.valid = held  # bool [stack, b or 1, positions, 1]
        if num_samples is not None:
            first = np.stack(first_samples)[:, None, :, None]
            self.valid = held & (first < num_samples[None, :, None, None])

    def before(self, x: jax.Array) -> jax.Array:
        """What the step before holds, at every position; zeros at a row's first."""
        return jnp.where(self._first, 0, shift(x, -1))

    def after(self, x: jax.Array) -> jax.Array:
        """What the step after holds, at every position; zeros at a row's last."""
        return jnp.where(self._last, 0, shift(x, 1))

    def joined(self, x: jax.Array) -> jax.Array:
        """The step before, the step itself and the step after as channels: a kernel of 3."""
        return jnp.concatenate([self.before(x), x, self.after(x)], axis=-1)

    def keep_valid(self, x: jax.Array) -> jax.Array:
        """Zeros where a position is not valid: layers after it must see padding as they begin."""
        return jnp.where(self.valid, x, 0)


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


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[stack, b, positions, in] times [stack, in, out], entry by entry."""
    return jnp.einsum("sbpc,scd->sbpd", x, kernel)


def layer(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A product, a bias and a leaky ReLU; `kernel` may have its inputs on several axes."""
    kernel = kernel.reshape(kernel.shape[0], x.shape[-1], -1)
    return leaky_relu(product(x, kernel) + bias)


def leaky_relu(x: jax.Array) -> jax.Array:
    """With DAC's slope."""
    return nn.leaky_relu(x, _SLOPE)


def shift(x: jax.Array, offset: int) -> jax.Array:
    """x[:, :, i + offset] at position i of [stack, b, positions, c], zeros beyond the ends."""
    length = x.shape[2]
    start, stop = max(offset, 0), length + min(offset, 0)
    return jnp.pad(x[:, :, start:stop], ((0, 0), (0, 0), (length - stop, start), (0, 0)))


def pad_to(x: jax.Array, length: int = 0, *, axis: int, multiple: int = 1) -> jax.Array:
    """Zeros at the end of `axis` up to `length`, or up to a multiple."""
    missing = max(length - x.shape[axis], 0) or -x.shape[axis] % multiple
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def unstack(x: jax.Array) -> list[jax.Array]:
    """[stack, ...] as a list over the stack.

    A split, whose gradient is one concatenation; indexing would add up as many padded arrays.
    """
    return [part[0] for part in jnp.split(x, x.shape[0])]
