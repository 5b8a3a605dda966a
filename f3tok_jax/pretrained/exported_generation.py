# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The generator of an exported folder."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax.numpy as jnp
import ml_collections

from data_pipelines.reading import tasks
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import exported_language_model
from f3tok_jax.pretrained import exported_weights
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import lineage

_LANGUAGE_MODEL = "language_model"  # the part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """What generation.Model is of a run, as far as sampling needs it; see there."""

    run: exported.Exported
    generator: generator_lib.Generator
    sampler: sampler_lib.Sampler

    @property
    def config(self) -> ml_collections.ConfigDict:
        return self.run.config

    def text_tasks(self) -> tasks.TextTasks:
        return pretrained_generation.text_tasks(self.config.text, self.run.workdir)


def load(run: exported.Exported) -> tuple[Generation, dict[str, Any]]:
    """The modules of an exported generation run and the weights of its generator.

    Raises:
        ValueError: where they are not those of config.json, or not finite.
    """
    with config_lib.values_of(run.workdir):
        fields, encoder_run = (
            run.written[exported_weights.GENERATION],
            run.ancestor("representation"),
        )
        kinds = dict(compute_dtype=fields["compute_dtype"], remat="none")
        # It says no text: a head of its own is exported for answers alone.
        of_text = {**fields["language_model"], "tie_word_embeddings": True}
        language_model = language_model_lib.make(of_text, **kinds)
        encoder = pretrained_representation.make_encoder(encoder_run)
        patch = fields["patch"]
        modules = generator_lib.Generator(
            encoder=encoder,
            projector=projector_lib.Projector(
                patch=patch,
                width=language_model.width,
                kind=fields["projector"],
                compute_dtype=encoder.compute_dtype,
            ),
            language_model=language_model,
            head=flow_head.FlowHead(
                latent_dim=run.sound.latent_dim, patch=patch, **run.config.model
            ),
        )
        sampler = sampler_lib.Sampler(**run.config.sampling)
        model = Generation(run=run, generator=modules, sampler=sampler)
        weights = _generator_weights(model, fields)
    return model, weights


def _generator_weights(model: Generation, fields: Mapping[str, Any]) -> dict[str, Any]:
    run, generator = model.run, model.generator
    shapes = pretrained_representation.abstract_params(generator.encoder, generator.projector)
    shapes["head"] = pretrained_generation.abstract_head(
        generator.head, generator.language_model.width
    )
    found = {}
    if "generation_encoder" not in run.written["parts"]:
        encoder = {"encoder": shapes.pop("encoder")}
        found = run.load({lineage.ENCODER: encoder})[lineage.ENCODER]
    found |= run.load({exported_weights.GENERATION: shapes})[exported_weights.GENERATION]
    dtype = jnp.dtype(fields["compute_dtype"])
    language_model = generator.language_model
    found["language_model"] = exported_language_model.load(
        run, language_model, _LANGUAGE_MODEL, dtype=dtype
    )
    return found | {"embedding_rms": jnp.float32(fields["embedding_rms"])}
