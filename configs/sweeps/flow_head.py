# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The flow head: latents per patch x patches before it x depth.

    bash launch/sweep.sh --sweep configs/sweeps/flow_head.py:tiny --workdir runs/flow_head \
        --config.data.train=DIR/train --config.data.heldout=DIR/test

A patch is what a representation run has made of it: those of patches.py must be there, in runs/patches
or where --map=runs/patches=PLACE says.
"""

from f3tok_jax.sweeping import space

_DEPTHS = {"tiny": (2, 4), "base": (4, 8)}


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the generation stage's recipe."""
    patches = {
        str(patch): {
            "representation.workdir": f"runs/patches/patch-{patch}_0",
            "representation.recipe.supervision.patch": patch,  # where compile_check reads it
        }
        for patch in (1, 2, 4)
    }
    return space.Sweep(
        recipe=f"../generation.py:{preset}",
        arms=space.grid(
            {
                "patch": patches,
                "model.history": (1, 2),
                "model.num_layers": _DEPTHS[preset],
            }
        ),
        metric="eval/flow_loss",
    )
