# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The frozen semantic encoder, of a finished run or of published weights: one interface to both."""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.records import json_object
from f3tok_jax.devices import sharding
from f3tok_jax.models import semantic_encoder
from f3tok_jax.pretrained import semantic_weights
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import language_model_folder as folders
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places as places_lib

STAGE = "semantic_encoder"  # and its only player
MEAN, VARIANCE = "mel_mean", "mel_variance"  # among what a run has measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Semantic:
    """A semantic encoder in use; nothing trains it, and its statistics stay.

    Attributes:
        encoder: the module.
        variables: its parameters and statistics.
        origin: whose weights they are, in words, for tables.
        run: that trained it, at the step that the weights are of; None for published weights.
    """

    encoder: semantic_encoder.SemanticEncoder
    variables: Any
    origin: str
    run: lineage.Lineage | None = None

    @property
    def rate(self) -> float:
        """Features per second, Hz."""
        return self.encoder.sample_rate / self.encoder.samples_per_feature

    def features(self, waveform: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Features [b, t, width] of sound [b, n] at `encoder.sample_rate`, as the module has them."""
        return self._apply(self.variables, waveform, mask)

    @functools.cached_property
    def _apply(self) -> Callable[..., jax.Array]:
        return jax.jit(self.encoder.apply)

    def check_sample_rate(self, sample_rate: int) -> None:
        """Raises ValueError for sound of another rate than it hears."""
        if sample_rate != self.encoder.sample_rate:
            raise ValueError(
                f"the semantic encoder ({self.origin}) hears sound at {self.encoder.sample_rate} Hz, got "
                f"{sample_rate} Hz: resample it, or build shards at that rate"
            )


def load(
    place: str | os.PathLike,
    *,
    step: int | None = None,
    compute_dtype: str = "",
    places: places_lib.Places | None = None,
    say: Callable[[str], None] = print,
) -> Semantic:
    """The semantic encoder that lies in a place.

    Args:
        place: a run of the semantic encoder's stage, or weights as semantic_weights.read takes them.
        step: of the run's checkpoint; the newest whole one if None.
        compute_dtype: of the products; "" for that of the run, float32 for weights.
        places: where the run may lie.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where neither lies there, or the weights are others than it says.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    place = os.fspath(place)
    if _holds_weights(pathlib.Path(place)):
        if step is not None:
            raise ValueError(
                f"{place} must be a run to have the step {step}, got published weights"
            )
        encoder, variables = semantic_weights.read(place, compute_dtype=compute_dtype or "float32")
        origin = _origin_of_weights(place)
        return Semantic(encoder=encoder, variables=jax.device_put(variables), origin=origin)
    run = lineage.Lineage.read(place, step, stage=STAGE, places=places)
    with config_lib.values_of(run.workdir):
        encoder = make(run.config)
        abstract = {STAGE: {"encoder": sharding.unbox(abstract_params(encoder))}}
    params, run = weights.restore(run, abstract, say=say)
    if compute_dtype:
        encoder = encoder.clone(compute_dtype=compute_dtype)
    variables = {"params": params[STAGE]["encoder"], **statistics(run.measured)}
    origin = _origin_of_run(run)
    return Semantic(encoder=encoder, variables=variables, origin=origin, run=run)


def origin_of_heard(run: lineage.Lineage) -> str:
    """Whose weights those are through which a finished run hears, in words, for tables."""
    if isinstance(run, exported.Exported):
        return exported_config.origin_of_semantic_encoder(run.written)
    if run.semantic_weights:
        return _origin_of_weights(run.semantic_weights)
    return _origin_of_run(run.ancestor(STAGE))


def _origin_of_weights(place: str) -> str:
    return f"published weights, {pathlib.Path(place).name}"


def _origin_of_run(run: lineage.Lineage) -> str:
    return f"trained by this project, {run.step:,} steps"


def of_heard(run: lineage.Lineage) -> semantic_encoder.SemanticEncoder:
    """The module through which another run hears: of the run or the published weights that
    config.semantic_encoder names, or its semantic bottleneck; or, where none is named, of the recipe.

    Args:
        run: finished, or about to begin.
    """
    section = run.config.semantic_encoder
    if run.semantic_weights:
        return semantic_weights.make(run.semantic_weights, compute_dtype=section.compute_dtype)
    found = run.ancestor(STAGE)
    recipe = found.config if found else section.recipe
    return make(recipe).clone(compute_dtype=section.compute_dtype)


def load_heard(run: lineage.Lineage, *, say: Callable[[str], None] = print) -> Semantic:
    """What lies there, with its weights; see `load`."""
    check_heard(run)
    if run.semantic_weights:
        return load(run.semantic_weights, say=say)
    found = run.ancestor(STAGE)
    return load(found.workdir, step=found.step, places=found.places, say=say)


def check_heard(run: lineage.Lineage) -> None:
    """Raises ValueError where nothing is named, which is enough for compile_check alone, or two things
    are."""
    section = run.config.semantic_encoder
    if section.workdir and section.get("folder"):
        raise ValueError(
            f"config.semantic_encoder.folder={section.folder!r} must be '' where config.semantic_encoder."
            f"workdir={section.workdir!r} names a run: one semantic encoder hears the sound"
        )
    if not run.semantic_weights and run.ancestor(STAGE) is None:
        raise ValueError(
            "config.semantic_encoder.workdir must name a run of the semantic_encoder stage, or config."
            "semantic_encoder.folder published weights, through which sound is heard, got ''"
        )


def _holds_weights(place: pathlib.Path) -> bool:
    """Whether a place on a disk has weights: a file, or a folder that is no run."""
    if not place.exists():
        return False  # perhaps a bucket
    described = place / folders.CONFIG_NAME
    return not described.is_file() or "stage" not in json_object.read(described)


def make(config: ml_collections.ConfigDict) -> semantic_encoder.SemanticEncoder:
    """The semantic encoder of a run's config."""
    return semantic_encoder.SemanticEncoder(**config.model)


def abstract_params(encoder: semantic_encoder.SemanticEncoder) -> Any:
    """Shapes and dtypes of its parameters, in their logical axes."""
    sound = jnp.zeros((1, encoder.frame_length))
    return jax.eval_shape(encoder.init, jax.random.key(0), sound)["params"]


def abstract_variables(encoder: semantic_encoder.SemanticEncoder) -> dict[str, Any]:
    """The same of all its variables, parameters and statistics."""
    statistics = abstract_statistics(encoder)
    return {"params": abstract_params(encoder), semantic_encoder.STATISTICS: statistics}


def abstract_statistics(encoder: semantic_encoder.SemanticEncoder) -> dict[str, Any]:
    """The same of its statistics."""
    return dict.fromkeys(
        ("mean", "variance"), jax.ShapeDtypeStruct((encoder.num_mels,), jnp.float32)
    )


def statistics(measured: Any) -> dict[str, Any]:
    """The collection of statistics of what a run has measured."""
    arrays = {"mean": measured[MEAN], "variance": measured[VARIANCE]}
    arrays = {name: jnp.asarray(np.asarray(values, np.float32)) for name, values in arrays.items()}
    return {semantic_encoder.STATISTICS: arrays}
