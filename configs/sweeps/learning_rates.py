# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Learning rates of the autoencoder by its width: which one a wider model needs.

    bash launch/sweep.sh --sweep configs/sweeps/learning_rates.py:base --workdir gs://BUCKET/RATES \
        --backend xpk --cluster NAME --accelerator v5litepod-16 \
        --config.data.train=gs://BUCKET/shards/train --config.data.heldout=gs://BUCKET/shards/test

Too high a rate shows early: the worse two thirds are stopped at a ninth and at a third of the steps where
Optuna is there (--prune=halving).
"""

from f3tok_jax.sweeping import space

# Of all stages of encoder and decoder; of `base` whole lanes of a TPU.
_WIDTHS = {
    "tiny": {"32": (16, 32, 32, 32), "64": (32, 64, 64, 64), "96": (48, 96, 96, 96)},
    "base": {"128": (128,) * 4, "256": (256,) * 4, "512": (512,) * 4},
}
_RATES = {"tiny": (3e-4, 1e-3, 3e-3, 1e-2), "base": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)}
_STEPS = {"tiny": 600, "base": 50_000}


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the autoencoder's recipe."""
    widths = {
        label: {"model.encoder_channels": channels, "model.decoder_channels": channels}
        for label, channels in _WIDTHS[preset].items()
    }
    return space.Sweep(
        recipe=f"../autoencoder.py:{preset}",
        arms=space.grid({"width": widths, "optimizer.generator.learning_rate": _RATES[preset]}),
        metric="eval/mel",
        overrides=(f"num_steps={_STEPS[preset]}",),
    )
