# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What features of a frozen semantic encoder ask of those that are made of them, or beside them.

Every loss returns (sum, weight), two float32 scalars, as those of losses.reconstruction do. `mask` is
boolean [b, t], True where a frame is valid: what lies elsewhere, NaN included, reaches neither a loss
nor a gradient. No gradient flows to a target.
"""

import jax
import jax.numpy as jnp

from f3tok_jax.losses import reconstruction

SUPERVISIONS = ("both", "high", "low")  # levels at which features are a target

_LEAST_NORM = (
    1e-12  # of a vector that is divided by its norm; that of torch.nn.functional.normalize
)


def feature_reconstruction(
    features: jax.Array, output: jax.Array, mask: jax.Array
) -> reconstruction.Loss:
    """Mean square difference of directions, over channels and frames.

    Of a frame it is (2 - 2 cos) / d, of the cosine between both vectors: LoSATok's weight of 1000 only
    undoes the mean over its 1280 channels.

    Args:
        features: [b, t, d], the target.
        output: [b, t, d], what was made of them again.
        mask: [b, t] bool.

    Returns:
        (sum, weight); the weight is the number of valid frames.

    Source: LoSATok (arXiv 2605.27840), L_recon as its code has it.
    """
    features, output = _checked(features, output, mask)
    square = jnp.square(_direction(output) - _direction(features))
    return _over_frames(jnp.mean(square, axis=-1), mask)


def time_relation(features: jax.Array, latents: jax.Array, mask: jax.Array) -> reconstruction.Loss:
    """Mean square difference of the cosines between all pairs of frames of an example.

    Args:
        features: [b, t, d], the target.
        latents: [b, t, c], whose cosines are to be those of the features.
        mask: [b, t] bool.

    Returns:
        (sum, weight); the weight is the number of pairs of valid frames: where all are valid, sum /
        weight is the published mean over b, t and t.

    Source: LoSATok, L_tr as its code has it.
    """
    features, latents = _checked(features, latents, mask, same_width=False)
    square = jnp.square(_cosines(latents) - _cosines(features))
    pairs = mask[:, :, None] & mask[:, None, :]
    return jnp.sum(jnp.where(pairs, square, 0.0)), jnp.sum(pairs, dtype=jnp.float32)


def feature_distance(
    features: jax.Array, output: jax.Array, mask: jax.Array
) -> reconstruction.Loss:
    """Mean square difference over channels and frames; arguments as of `feature_reconstruction`.

    Source: LoSATok, L_H and L_L. For DashengTokenizer's preservation of semantics, whose equation is
    not known, it is our choice.
    """
    features, output = _checked(features, output, mask)
    return _over_frames(jnp.mean(jnp.square(output - features), axis=-1), mask)


def supervision(
    high: tuple[jax.Array, jax.Array],
    low: tuple[jax.Array, jax.Array] | None,
    mask: jax.Array,
    *,
    levels: str,
) -> dict[str, reconstruction.Loss]:
    """What semantic features ask of acoustic ones, before and after these are made narrow.

    Args:
        high: semantic features, the target, and acoustic ones, [b, t, d] each.
        low: the same of width latent_dim; None for a model that has no narrow ones.
        mask: [b, t] bool.
        levels: one of SUPERVISIONS.

    Returns:
        "supervision_high" and "supervision_low", or one of them.

    Raises:
        ValueError: for other levels, and where what is asked for is not there.
    """
    check_levels(levels, is_narrow=low is not None)
    found = {}
    if levels != "low":
        found["supervision_high"] = feature_distance(*high, mask)
    if levels != "high":
        found["supervision_low"] = feature_distance(*low, mask)
    return found


def check_levels(levels: str, *, is_narrow: bool) -> None:
    """Raises ValueError for levels that there are none of.

    Args:
        levels: as of `supervision`.
        is_narrow: whether the model has narrow features.
    """
    if levels not in SUPERVISIONS:
        raise ValueError(f"supervision must be one of {SUPERVISIONS}, got {levels!r}")
    if not is_narrow and levels != "high":
        raise ValueError(
            f"supervision must be 'high' for a model whose streams are added at full width, got "
            f"{levels!r}: there are no narrow features to supervise"
        )


def _direction(x: jax.Array) -> jax.Array:
    """Vectors along the last axis, divided by their norms."""
    energy = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(energy, _LEAST_NORM**2))


def _cosines(x: jax.Array) -> jax.Array:
    """Of all pairs of frames of [b, t, c]: [b, t, t]."""
    directions = _direction(x)
    return jnp.einsum("bic,bjc->bij", directions, directions, precision="highest")


def _over_frames(values: jax.Array, mask: jax.Array) -> reconstruction.Loss:
    return jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask, dtype=jnp.float32)


def _checked(
    target: jax.Array, output: jax.Array, mask: jax.Array, *, same_width: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Both in float32 with zeros where they are not valid, the target detached."""
    fits = target.ndim == output.ndim == 3 and target.shape[:2] == output.shape[:2] == mask.shape
    if not fits or (same_width and target.shape != output.shape):
        raise ValueError(
            "features, what is compared with them and the mask must be [b, t, d], [b, t, d] and [b, "
            f"t] of the same frames, got {target.shape}, {output.shape} and {mask.shape}; cut the "
            "longer ones"
        )
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean, True where valid, got {mask.dtype}")
    where, target = mask[..., None], jax.lax.stop_gradient(target)
    return tuple(jnp.where(where, x.astype(jnp.float32), 0.0) for x in (target, output))
