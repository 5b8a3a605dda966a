# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The representation stage with and without each of its losses.

    python -m f3tok_jax.ablation --arms=losses --help

No metric is of all arms: what ranks them are the probes of f3tok_jax.ablation, which trains them.
"""

from f3tok_jax.sweeping import space


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the representation stage's recipe."""
    return space.Sweep(
        recipe=f"../representation.py:{preset}",
        arms=(
            space.Arm("full"),
            # Nothing to warm up with: the language model's loss counts from the first step.
            space.Arm(
                "without RQ-MTP",
                ("rq.weight=0.0", "optimizer.encoder.modules.projector.start=0.0"),
            ),
            space.Arm("without language model", ("supervision.weight=0.0",)),
        ),
        metric="eval/answer_loss",
    )
