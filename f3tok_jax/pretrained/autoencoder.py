# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder of a run, with its averaged weights alone."""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage


def make(config: ml_collections.ConfigDict) -> autoencoder_lib.Autoencoder:
    """The autoencoder of a run's config."""
    return autoencoder_lib.Autoencoder(
        **config.model, bottleneck=bottleneck_kinds.make(config.bottleneck)
    )


def of_run(run: lineage.Lineage) -> autoencoder_lib.Autoencoder:
    """The autoencoder of a finished run.

    Raises:
        ValueError: where it is of a version whose autoencoders have other fields.
    """
    given = ("bottleneck", "spare_products")
    weights.check_fields(run, autoencoder_lib.Autoencoder, *given, later=("level_db",))
    return make(run.config)


def for_use(autoencoder: autoencoder_lib.Autoencoder) -> autoencoder_lib.Autoencoder:
    """An autoencoder that has been trained, as it is fastest on this machine.

    A CPU gains nothing from bfloat16 and counts products: there it is float32, with fewer of them.
    """
    if jax.default_backend() != "cpu":
        return autoencoder
    return autoencoder.clone(compute_dtype="float32", spare_products=True)


def init_params(module: nn.Module, key: jax.Array, waveform: jax.Array) -> Any:
    """Fresh parameters of a module that takes a waveform [b, n].

    sequence-layers boxes its parameters in sharding metadata. Here shardings follow from shapes,
    and checkpoints hold plain arrays.
    """
    return nn.unbox(module.init(key, waveform)["params"])


def abstract_params(autoencoder: autoencoder_lib.Autoencoder) -> Any:
    """Shapes and dtypes of an autoencoder's parameters."""
    waveform = jax.ShapeDtypeStruct((1, autoencoder.samples_per_latent), jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)  # nothing is compiled
    return jax.eval_shape(functools.partial(init_params, autoencoder), key, waveform)


def load(
    run: lineage.Lineage, *, shardings: Any = None, say: Callable[[str], None] = print
) -> tuple[autoencoder_lib.Autoencoder, Any, lineage.Lineage]:
    """The module, its parameters, and the run at the step that they are of.

    Args:
        run: of the autoencoder stage.
        shardings: a tree like the parameters; default the first local device.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the run is of another version.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    with config_lib.values_of(run.workdir):
        autoencoder = of_run(run)
        abstract = {"generator": abstract_params(autoencoder)}
    params, run = weights.restore(run, abstract, shardings and {"generator": shardings}, say=say)
    return autoencoder, params["generator"], run
