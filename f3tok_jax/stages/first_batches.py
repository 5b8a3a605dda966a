# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sums over a run's first training batches: what is measured once, before its first step."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.reading import pipeline
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import stage

# Of a batch, its latents [b, t, d] as the autoencoder gives them, and their mask [b, t].
Measure = Callable[[stage.Batch, jax.Array, jax.Array], Sequence[jax.Array]]


def sums(
    config: ml_collections.ConfigDict, frozen: frozen_lib.FrozenModels, measure: Measure
) -> list[np.ndarray]:
    """What `measure` gives, added in float64 over config.rq.statistics_batches batches.

    The same on every mesh: one process reads the global batches, on one device.
    """
    sound = frozen.sound
    frozen.check_named()
    batches = pipeline.Pipeline(
        config.data.train,
        pipeline.Options(
            batch_size=config.data.batch_size,
            seed=config.seed,
            max_replaced=config.data.max_replaced,
        ),
        sample_rate=sound.sample_rate,
        crop_length=sound_lib.crop_length(config, sound),
        random_crop=False,
        autoencoder=frozen.run.parents["autoencoder"].latents_fingerprint,
    )
    params = {} if config.data.latents else {"autoencoder": frozen.load_autoencoder()}

    @jax.jit
    def sums_of(params, batch):
        return measure(batch, *frozen.latents(params, batch))

    totals = None
    for step in range(config.rq.statistics_batches):
        more = [np.asarray(value, np.float64) for value in
                jax.device_get(sums_of(params, batches.local_batch(step)))]  # fmt: skip
        totals = more if totals is None else [one + two for one, two in zip(totals, more)]
    return totals


def energy(latents: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of squares of latents [b, t, d], and how many values there are, where `mask` is True."""
    squares = jnp.sum(jnp.square(latents.astype(jnp.float32)), axis=-1)
    count = latents.shape[-1] * jnp.sum(mask, dtype=jnp.float32)
    return jnp.sum(jnp.where(mask, squares, 0.0)), count


def rms(sums_of_energy: Sequence[np.ndarray]) -> float:
    """Root mean square of latents, of added `energy`.

    Raises:
        ValueError: where they are silent, or not finite.
    """
    total, count = sums_of_energy
    if not (count > 0 and 0 < total < np.inf):
        raise ValueError(
            "latents must have an rms above 0 to be divided by, which an autoencoder without "
            f"config.bottleneck.normalize leaves open, got a sum of squares of {float(total)} over "
            f"{int(count)} values: look at that autoencoder and at config.data.train"
        )
    return float(np.sqrt(total / count))
