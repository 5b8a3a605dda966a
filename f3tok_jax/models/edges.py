# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a row of frames may be taken at its word for, where its sound was cut from something longer."""

import jax
import jax.numpy as jnp


def true_frames(
    num_samples: jax.Array,
    num_frames: int,
    begins: jax.Array,
    ends: jax.Array,
    *,
    samples_per_latent: int,
    before: int,
    after: int,
) -> jax.Array:
    """Frames whose values are those of the recording, though it may have been cut.

    What a frame depends on beyond an edge that is not the recording's own is not there: its label is
    that of silence which nobody has recorded.

    Args:
        num_samples: [b] int32, of sound in a row.
        num_frames: of a row.
        begins: [b] bool, whether the recording begins where the row does.
        ends: [b] bool, whether it ends where the sound of the row does.
        samples_per_latent: that a frame stands for.
        before: samples before a frame's span that it depends on.
        after: samples after it.

    Returns:
        [b, num_frames] bool; True in padding, too, where a recording has ended.
    """
    starts = samples_per_latent * jnp.arange(num_frames, dtype=jnp.int32)[None]
    has_past = begins[:, None] | (starts >= before)
    has_future = starts + samples_per_latent + after <= num_samples[:, None]
    return has_past & (ends[:, None] | has_future)
