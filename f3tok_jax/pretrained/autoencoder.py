# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder of a run, with its averaged weights alone.

Of either family: one that hears through a frozen semantic encoder has that within it.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.models import semantic_coder
from f3tok_jax.pretrained import semantic_autoencoder
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as sound_lib

# Both have one interface, but for streams, which the second has not.
Autoencoder = autoencoder_lib.Autoencoder | semantic_coder.SemanticCoder


def make(config: ml_collections.ConfigDict, run: lineage.Lineage | None = None) -> Autoencoder:
    """The autoencoder of a run's config; the run, where there is one, says what it was trained on."""
    if sound_lib.is_semantic(config):
        return semantic_autoencoder.make(run or lineage.Lineage(config=config))
    return autoencoder_lib.Autoencoder(
        **config.model, bottleneck=bottleneck_kinds.make(config.bottleneck)
    )


def of_run(run: lineage.Lineage) -> Autoencoder:
    """The autoencoder of a finished run.

    Raises:
        ValueError: where it is of a version whose autoencoders have other fields.
    """
    if sound_lib.is_semantic(run.config):
        return semantic_autoencoder.of_run(run)
    given = ("bottleneck", "spare_products")
    weights.check_fields(run, autoencoder_lib.Autoencoder, *given, later=("level_db",))
    return make(run.config)


def for_use(autoencoder: Autoencoder) -> Autoencoder:
    """An autoencoder that has been trained, as it is fastest on this machine.

    A CPU gains nothing from bfloat16 and counts products: there it is float32, with fewer of them.
    """
    if jax.default_backend() != "cpu":
        return autoencoder
    if isinstance(autoencoder, semantic_coder.SemanticCoder):
        parts = {name: getattr(autoencoder, name) for name in ("encoder", "autoencoder")}
        cloned = {name: part.clone(compute_dtype="float32") for name, part in parts.items()}
        return autoencoder.clone(**cloned)
    return autoencoder.clone(compute_dtype="float32", spare_products=True)


def init_params(module: nn.Module, key: jax.Array, waveform: jax.Array) -> Any:
    """Fresh parameters, those that are trained, of a module that takes a waveform [b, n].

    sequence-layers boxes its parameters in sharding metadata. Here shardings follow from shapes,
    and checkpoints hold plain arrays.
    """
    if isinstance(module, semantic_coder.SemanticCoder):
        return semantic_autoencoder.init_params(module, key, waveform)
    return nn.unbox(module.init(key, waveform)["params"])


def abstract_trained(autoencoder: Autoencoder) -> Any:
    """Shapes and dtypes of the parameters of an autoencoder that its run has trained."""
    waveform = jax.ShapeDtypeStruct((1, autoencoder.samples_per_latent), jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)  # nothing is compiled
    return jax.eval_shape(functools.partial(init_params, autoencoder), key, waveform)


def abstract_frozen(autoencoder: Autoencoder) -> dict[str, Any]:
    """The same of what it reads beside them."""
    if isinstance(autoencoder, semantic_coder.SemanticCoder):
        return semantic_autoencoder.abstract_frozen(autoencoder)
    return {}


def abstract_params(autoencoder: Autoencoder) -> Any:
    """The same of all parameters of an autoencoder in use."""
    return joined(abstract_trained(autoencoder), abstract_frozen(autoencoder))


def joined(params: Any, frozen: Mapping[str, Any]) -> Any:
    """Parameters of an autoencoder: those that are trained, and what is frozen, where anything is."""
    return semantic_coder.joined(params, frozen) if frozen else params


def load(
    run: lineage.Lineage, *, shardings: Any = None, say: Callable[[str], None] = print
) -> tuple[Autoencoder, Any, lineage.Lineage]:
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
        abstract, of_frozen = {"generator": abstract_trained(autoencoder)}, None
    is_semantic = isinstance(autoencoder, semantic_coder.SemanticCoder)
    if is_semantic and shardings:
        shardings, of_frozen = semantic_coder.parted(shardings)
    params, run = weights.restore(run, abstract, shardings and {"generator": shardings}, say=say)
    frozen = {}
    if is_semantic:
        frozen = semantic_autoencoder.load_frozen(run, autoencoder, of_frozen, say=say)
    return autoencoder, joined(params["generator"], frozen), run
