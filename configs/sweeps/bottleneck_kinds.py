# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder's bottleneck: F3's against each half of it, against none, and against its rivals.

    bash launch/sweep.sh --sweep configs/sweeps/bottleneck_kinds.py:tiny --workdir runs/bottleneck_kinds \
        --config.data.train=DIR/train --config.data.heldout=DIR/test

Everything but the bottleneck is the recipe's. The mel distance is that of clean latents: what a decoder
bears beside them, `python -m f3tok_jax.evaluate` says of each run.
"""

from f3tok_jax.sweeping import space

_STEPS = {"tiny": 1200, "base": 100_000}


def _f3(name: str, *, normalize: bool, perturb: bool) -> space.Arm:
    flags = dict(normalize=normalize, perturb=perturb)
    return space.Arm(name, tuple(f"bottleneck.{key}={value}" for key, value in flags.items()))


def _kl_vae(weight: str) -> space.Arm:
    return space.Arm(
        f"kl_vae-{weight}", ("bottleneck.kind=kl_vae", f"bottleneck.kl_vae.weight={weight}")
    )


def get_sweep(preset: str = "tiny") -> space.Sweep:
    """The sweep of a preset of the autoencoder's recipe."""
    return space.Sweep(
        recipe=f"../autoencoder.py:{preset}",
        arms=(
            _f3("f3", normalize=True, perturb=True),
            _f3("norm_only", normalize=True, perturb=False),
            _f3("noise_only", normalize=False, perturb=True),
            _f3("neither", normalize=False, perturb=False),
            _kl_vae("1e-2"),
            _kl_vae("1e-4"),
            _kl_vae("5e-5"),
            space.Arm("sigma_vae", ("bottleneck.kind=sigma_vae",)),
            space.Arm("soft_norm", ("bottleneck.kind=soft_norm",)),
        ),
        metric="eval/mel",
        overrides=(f"num_steps={_STEPS[preset]}",),
    )
