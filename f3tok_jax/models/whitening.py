# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whitening: a linear map after which channels have variance 1 and no correlation.

For the random quantizer in place of a standard deviation per channel. Latents whose variance lies
in few directions fall into few of its codes otherwise: of the tiny autoencoder's, spoken digits, 4
codebooks of 64, per channel 42 % of the codes are in use by perplexity, whitened 82 %; of 2048, 8 %
and 42 %. The weakest directions, which whitening makes as large as any, may hold little but phase
and noise: `directions` keeps the leading ones alone.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_PRECISION = jax.lax.Precision.HIGHEST
# Fewer, and the variances along the directions found are wrong by a factor of two and more: between
# (1 - r)^2 and (1 + r)^2 of the true ones, r^2 = channels / frames (Marchenko and Pastur).
_FRAMES_PER_CHANNEL = 10


class TooFewFramesError(ValueError):
    """There are not enough frames to tell how the channels vary together."""


def measure(features: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over the valid frames of a batch; add those of all batches on the host, in float64.

    Args:
        features: [b, t, d].
        mask: [b, t], bool, True where a frame is valid.

    Returns:
        Sum [d], sum of products [d, d] and number of frames, float32.
    """
    features = jnp.where(mask[..., None], features.astype(jnp.float32), 0.0)
    products = jnp.einsum("btc,btd->cd", features, features, precision=_PRECISION)
    return jnp.sum(features, axis=(0, 1)), products, jnp.sum(mask, dtype=jnp.float32)


def finish(
    sums: Sequence[np.ndarray], *, directions: int = 0, floor: float = 1e-4
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and whitening matrix of added `measure`.

    Args:
        sums: of all batches.
        directions: of most variance that are kept; the others are projected out. 0 for all.
        floor: added to every variance, as a share of the largest: directions with less hold noise.

    Returns:
        Mean [d] and matrix [d, d], float32: (features - mean) @ matrix is white, in a space of
        `directions` dimensions.

    Raises:
        TooFewFramesError: if there were too few valid frames for so many channels.
        ValueError: if the sums are not finite, or there are fewer directions.
    """
    total, products, count = (np.asarray(value, np.float64) for value in sums)
    needed = _FRAMES_PER_CHANNEL * len(total)
    if count < needed:
        raise TooFewFramesError(
            f"whitening {len(total)} channels needs at least {needed} valid frames, got {int(count)}"
        )
    if not np.isfinite(total).all() or not np.isfinite(products).all():
        raise ValueError(
            f"whitening needs finite values, got others among those of {int(count)} frames"
        )
    if not 0 <= directions <= len(total):
        raise ValueError(
            f"the directions that whitening keeps must be 1 to {len(total)}, the width of what is "
            f"whitened, or 0 for all, got {directions}"
        )
    mean = total / count
    variances, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    variances = np.maximum(variances, 0.0)
    scale = 1.0 / np.sqrt(variances + floor * max(variances[-1], 1e-12))
    if directions:
        scale[:-directions] = 0.0  # variances ascend
    # Back to the channels: symmetric, so that a sign or an order of directions decides nothing.
    matrix = (vectors * scale) @ vectors.T
    return mean.astype(np.float32), matrix.astype(np.float32)


def into_table(matrix: np.ndarray, std: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A quantizer's table that whitens what was standardised per channel, by one product as before.

    Args:
        matrix: [d, d], from `finish`.
        std: [d], by which the frames were divided.
        table: [d, n], of rq_mtp.make_table.

    Returns:
        [d, n] float32: frames / std times it are frames times `matrix` times `table`.
    """
    product = std[:, None].astype(np.float64) * (matrix.astype(np.float64) @ table)
    return product.astype(np.float32)
