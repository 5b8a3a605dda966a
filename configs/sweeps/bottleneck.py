# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder's bottleneck: noise x normalisation x width of a latent.

    bash launch/sweep.sh --sweep configs/sweeps/bottleneck.py:tiny --workdir runs/bottleneck \
        --config.data.train=DIR/train --config.data.heldout=DIR/test

The mel distance is that of clean latents: how a decoder bears noise, which is what gamma is for, `python
-m f3tok_jax.evaluate` says of each run.
"""

from f3tok_jax.sweeping import space

_WIDTHS = {"tiny": (16, 32), "base": (32, 64, 128)}
_STEPS = {"tiny": 1200, "base": 100_000}


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the autoencoder's recipe."""
    return space.Sweep(
        recipe=f"../autoencoder.py:{preset}",
        arms=space.grid(
            {
                "bottleneck.gamma": (0.0, 0.5, 1.0),
                "bottleneck.normalize": (True, False),
                "model.latent_dim": _WIDTHS[preset],
            }
        ),
        metric="eval/mel",
        overrides=(f"num_steps={_STEPS[preset]}",),
    )
