# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The models of finished runs, as later stages and programs need them: averaged weights alone."""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import bottleneck
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import lineage


def make_autoencoder(config: ml_collections.ConfigDict) -> autoencoder_lib.Autoencoder:
    """The autoencoder of a run's config."""
    return autoencoder_lib.Autoencoder(
        **config.model, bottleneck=bottleneck.Bottleneck(**config.bottleneck)
    )


def init_params(module: nn.Module, key: jax.Array, waveform: jax.Array) -> Any:
    """Fresh parameters of a module that takes a waveform [b, n].

    sequence-layers boxes its parameters in sharding metadata. Here shardings follow from shapes,
    and checkpoints hold plain arrays.
    """
    return nn.unbox(module.init(key, waveform)["params"])


def abstract_autoencoder(autoencoder: autoencoder_lib.Autoencoder) -> Any:
    """Shapes and dtypes of an autoencoder's parameters."""
    waveform = jax.ShapeDtypeStruct((1, autoencoder.samples_per_latent), jnp.float32)
    return jax.eval_shape(functools.partial(init_params, autoencoder), jax.random.key(0), waveform)


def restore_autoencoder(
    workdir: str,
    step: int | None = None,
    *,
    shardings: Any = None,
    say: Callable[[str], None] = print,
) -> tuple[autoencoder_lib.Autoencoder, Any, ml_collections.ConfigDict, int]:
    """The autoencoder of a run, without its optimizers.

    Args:
        workdir: run folder of the autoencoder stage.
        step: of the checkpoint; the newest whole one if None.
        shardings: a tree like the parameters; default the first local device.
        say: where messages to the user go: which steps are damaged.

    Returns:
        The module, its parameters, the run's config and the checkpoint's step.

    Raises:
        ValueError: where the folder is not such a run or holds no such checkpoint.
        checkpoint.CheckpointError: where no checkpoint asked for is whole.
    """
    config = lineage.read_config(workdir, "autoencoder")
    autoencoder = make_autoencoder(config)
    abstract = abstract_autoencoder(autoencoder)
    if shardings is not None:
        abstract = sharding.abstract(abstract, shardings)
    params, step = checkpoint.restore_params(workdir, {"generator": abstract}, step=step, say=say)
    return autoencoder, params["generator"], config, step
