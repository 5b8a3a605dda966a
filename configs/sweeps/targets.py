# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the labels of RQ-MTP are made of; it alone teaches, so that nothing else decides.

    python -m f3tok_jax.ablation --arms=targets --help

Other labels are other questions: what ranks these arms are the probes of f3tok_jax.ablation, which trains
them, and not the accuracy of the next frame's labels.
"""

from f3tok_jax.sweeping import space

_KINDS = {
    "whitened": ("latents", "whiten"),
    "leading": ("latents", "leading"),
    "standardised": ("latents", "standardize"),
    "log_mel_standardised": ("log_mel", "standardize"),
    "log_mel_whitened": ("log_mel", "whiten"),
    "log_mel_leading": ("log_mel", "leading"),
}


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the representation stage's recipe."""
    return space.Sweep(
        recipe=f"../representation.py:{preset}",
        arms=tuple(
            space.Arm(
                name,
                ("supervision.weight=0.0", f"rq.target={target}", f"rq.normalization={kind}"),
            )
            for name, (target, kind) in _KINDS.items()
        ),
        metric="eval/rq_accuracy/k1",
        goal="maximize",
    )
