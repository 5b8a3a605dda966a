# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sums over a run's first training examples: what is measured once, before its first step."""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import pipeline
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import stage

# Of a batch, its latents [b, t, d] as the autoencoder gives them, and their mask [b, t].
Sums = Callable[[stage.Batch, jax.Array, jax.Array], Sequence[jax.Array]]

_AUTOENCODER = "autoencoder"


def statistics(
    config: ml_collections.ConfigDict,
    frozen: frozen_lib.FrozenModels,
    sums: Sums,
    finish: Callable[[Sequence[np.ndarray]], Mapping[str, Any]],
    *,
    num_frames: int,
) -> stage.Statistics:
    """Statistics of so many frames, or a few more, in whole examples.

    Padding is among them.

    Args:
        config: of a run on latents.
        frozen: the models that it hears with.
        sums: that are added over examples.
        finish: as in stage.Statistics.
        num_frames: at least.
    """
    spec = frozen.sound.batch_spec(config.data)
    return stage.Statistics(
        num_examples=-(-num_frames // config.data.crop_frames),
        example={
            name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in spec.items()
        },
        open_data=functools.partial(_open_data, config, frozen),
        reads=() if config.data.latents else (_AUTOENCODER,),
        load=lambda places: {
            name: frozen.load_autoencoder(place) for name, place in places.items()
        },
        sums=lambda arrays, batch: sums(batch, *frozen.latents(arrays, batch)),
        finish=finish,
    )


def _open_data(
    config: ml_collections.ConfigDict, frozen: frozen_lib.FrozenModels, **rows: Any
) -> pipeline.Pipeline:
    """The sound of the training data, in its order, without text."""
    frozen.check_named()
    data, sound = config.data, frozen.sound
    return pipeline.Pipeline(
        frozen.run.places.mapped_mixture(data.train),
        mixture_pipeline.Options(
            seed=config.seed, max_replaced=data.max_replaced, num_threads=data.num_threads, **rows
        ),
        sample_rate=sound.sample_rate,
        crop_length=sound_lib.crop_length(config, sound),
        random_crop=False,
        autoencoder=frozen.run.parents[_AUTOENCODER].latents_fingerprint,
    )


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
            "latents must have an rms above 0 to be divided by, which an autoencoder without the norm of "
            f"config.bottleneck leaves open, got a sum of squares of {float(total)} over "
            f"{int(count)} values: look at that autoencoder and at config.data.train"
        )
    return float(np.sqrt(total / count))
