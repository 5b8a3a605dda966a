# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""One convolution of 3 x 3 of an autoencoder, in all forms that it could have.

The ordinary one; by short filters, as a CPU has it; as one product of all nine neighbours beside each
other, in float32, bfloat16 and int8 with wide sums; three products of three neighbours in frequency,
each for another time; and, which is another function with a ninth of the weights, one filter per
channel and a product of channels.
"""

import argparse
from collections.abc import Callable, Iterator
import functools
from typing import Any

from data_pipelines import command
from f3tok_jax.runs import results


def add_flags(parser: command.Parser) -> None:
    """Those of this benchmark."""
    add = functools.partial(parser.add_argument, type=command.at_least(1))
    add("--frames", default=1000, help="of a spectrum, 10 ms each")
    add("--bins", default=30, help="groups of bins, a multiple of 5")
    add("--channels", default=256, help="in and out")
    add("--rounds", default=7, help="that count")


def tables(given: argparse.Namespace) -> Iterator[tuple[str, list[results.Timing]]]:
    """One: a row for each form; of products that the ordinary convolution has, in billions."""
    import jax
    import numpy as np

    from f3tok_jax.benchmarking import turns

    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, given.frames, given.bins, given.channels), np.float32)
    kernel = rng.standard_normal((3, 3, given.channels, given.channels), np.float32)
    calls = {}
    for name, form in forms().items():
        compiled = jax.jit(form)
        calls[name] = functools.partial(_finished, compiled, *jax.device_put((x, kernel)))
    products = 1e-9 * x.size * kernel.shape[3] * 9
    yield (
        f"3 x 3, {given.frames} x {given.bins} x {given.channels}",
        turns.measure(
            calls, rounds=given.rounds, amounts=dict.fromkeys(calls, products), unit="gigaproducts"
        ),
    )


def forms() -> dict[str, Callable[[Any, Any], Any]]:
    """By name: ([b, t, f, c], [3, 3, c, c]) -> [b, t, f, c], causal in time."""
    import jax
    import jax.numpy as jnp

    from f3tok_jax.models import short_filters

    layout = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def direct(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((2, 0), (1, 1)), **layout)

    def short(x, kernel):
        return short_filters.convolve(x, kernel, time_padding=(2, 0))

    def beside(x, times):
        """Neighbours in frequency of each of `times` beside each other: [b, t, f, n * c]."""
        bins, frames = x.shape[2], x.shape[1]
        x = jnp.pad(x, ((0, 0), (2, 0), (1, 1), (0, 0)))
        return jnp.concatenate(
            [x[:, i : i + frames, j : j + bins] for i in times for j in range(3)], axis=-1
        )

    def one_product(x, kernel, dtype=jnp.float32, sums=jnp.float32):
        neighbours = beside(x.astype(dtype), range(3))
        kernel = kernel.reshape(-1, kernel.shape[3]).astype(dtype)
        return jnp.matmul(neighbours, kernel, preferred_element_type=sums).astype(x.dtype)

    def three_products(x, kernel):
        return sum(
            jnp.matmul(beside(x, [i]), kernel[i].reshape(-1, kernel.shape[3])) for i in range(3)
        )

    def separable(x, kernel):
        each = kernel[:, :, :1]
        x = jax.lax.conv_general_dilated(
            x, each, (1, 1), ((2, 0), (1, 1)), feature_group_count=x.shape[3], **layout
        )
        return jnp.matmul(x, kernel[0, 0])

    return {
        "direct": direct,
        "short filters": short,
        "one product": one_product,
        "one product, bfloat16": functools.partial(one_product, dtype=jnp.bfloat16),
        "one product, int8": functools.partial(one_product, dtype=jnp.int8, sums=jnp.int32),
        "three products": three_products,
        "separable": separable,
    }


def _finished(compiled: Callable[..., Any], *arguments: Any) -> None:
    compiled(*arguments).block_until_ready()
