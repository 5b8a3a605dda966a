# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""RQ-MTP: frames ahead (K) x codebooks (G) x codes of each (V).

    bash launch/sweep.sh --sweep configs/sweeps/rq_mtp.py:tiny --workdir runs/rq_mtp \
        --config.autoencoder.workdir=runs/autoencoder --config.language_model.folder=MODEL \
        --config.data.train=DIR/train --config.data.heldout=DIR/test

Codes of other codebooks are other questions, so RQ-MTP's own loss ranks nothing: what the language model
makes of the representations does.
"""

from f3tok_jax.sweeping import space

_AXES = {
    "tiny": {
        "rq.num_heads": (1, 3),
        "rq.num_codebooks": (1, 4),
        "rq.codebook_size": (64, 256),
    },
    "base": {
        "rq.num_heads": (1, 3, 5),
        "rq.num_codebooks": (1, 4, 8),
        "rq.codebook_size": (512, 2048, 8192),
    },
}
# Outputs of all heads: at the recipe's own the heads have 37 % of the encoder's parameters, and above
# they decide the price of a step.
_MOST_OUTPUTS = {"tiny": 3 * 4 * 256, "base": 5 * 4 * 2048}


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the representation stage's recipe."""

    def is_too_wide(values: dict[str, int]) -> bool:
        outputs = values["rq.num_heads"] * values["rq.num_codebooks"] * values["rq.codebook_size"]
        return outputs > _MOST_OUTPUTS[preset]

    return space.Sweep(
        recipe=f"../representation.py:{preset}",
        arms=space.grid(_AXES[preset], skip=is_too_wide),
        metric="eval/answer_loss",
    )
