# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The representation stage with 1, 2 and 4 latents per audio token, for flow_head.py.

    bash launch/sweep.sh --sweep configs/sweeps/patches.py:tiny --workdir runs/patches \
        --config.autoencoder.workdir=runs/autoencoder --config.language_model.folder=MODEL \
        --config.data.train=DIR/train --config.data.heldout=DIR/test
"""

from f3tok_jax.sweeping import space


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the representation stage's recipe."""
    return space.Sweep(
        recipe=f"../representation.py:{preset}",
        arms=space.grid({"supervision.patch": (1, 2, 4)}),
        metric="eval/answer_loss",
    )
