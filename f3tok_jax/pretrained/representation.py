# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The representation encoder and the projector of a run, with their averaged weights alone."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage


def make_encoder(run: lineage.Lineage, **changes: Any) -> encoder_lib.RepresentationEncoder:
    """The representation encoder of a run.

    Args:
        run: finished, or about to begin.
        changes: fields that are to be other than the run's.

    Raises:
        ValueError: where it is of a version whose encoders have other fields.
    """
    weights.check_fields(run, encoder_lib.RepresentationEncoder, "latent_dim")
    fields = {**run.config.model, **changes}
    return encoder_lib.RepresentationEncoder(latent_dim=run.sound.latent_dim, **fields)


def make_projector(config: ml_collections.ConfigDict, width: int) -> projector_lib.Projector:
    """The projector of a run's config to a language model of `width`."""
    return projector_lib.Projector(
        patch=config.supervision.patch,
        width=width,
        kind=config.supervision.projector,
        compute_dtype=config.model.compute_dtype,
    )


def abstract_params(
    encoder: encoder_lib.RepresentationEncoder,
    projector: projector_lib.Projector | None = None,
    *,
    boxed: bool = False,
) -> dict[str, Any]:
    """Shapes and dtypes: "encoder", and "projector" where there is one; in their logical axes if
    they are to be `boxed`."""
    shapes = {"encoder": _boxed(encoder, encoder.latent_dim)}
    if projector is not None:
        shapes["projector"] = _boxed(projector, encoder.width)
    return shapes if boxed else sharding.unbox(shapes)


def _boxed(module: nn.Module, input_width: int) -> Any:
    inputs = jnp.zeros((1, 1, input_width))
    return jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]


def _abstract(module: nn.Module, input_width: int) -> Any:
    return sharding.unbox(_boxed(module, input_width))


def load(
    run: lineage.Lineage,
    abstract: Mapping[str, Any],
    *,
    shardings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], lineage.Lineage]:
    """The parameters that are asked for, and the run at the step that they are of.

    Args:
        run: of the representation stage.
        abstract: of `abstract_params`, or a part of it.
        shardings: a tree like it; default the first local device.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the run has no arrays of these shapes.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    shardings = shardings and {lineage.ENCODER: shardings}
    params, run = weights.restore(run, {lineage.ENCODER: abstract}, shardings, say=say)
    return params[lineage.ENCODER], run


def load_encoder(
    run: lineage.Lineage, *, say: Callable[[str], None] = print
) -> tuple[encoder_lib.RepresentationEncoder, Any, lineage.Lineage]:
    """The encoder of a run, its parameters, and the run at their step; see `load`."""
    with config_lib.values_of(run.workdir):
        encoder = make_encoder(run)
        abstract = abstract_params(encoder)
    params, run = load(run, abstract, say=say)
    return encoder, params["encoder"], run


def load_projector(
    run: lineage.Lineage, width: int, *, say: Callable[[str], None] = print
) -> tuple[projector_lib.Projector, Any]:
    """The projector of a supervised run to a language model of `width`, and its parameters."""
    with config_lib.values_of(run.workdir):
        projector = make_projector(run.config, width)
        abstract = {"projector": _abstract(projector, run.config.model.width)}
    params, _ = load(run, abstract, say=say)
    return projector, params["projector"]
