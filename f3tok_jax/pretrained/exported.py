# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The model of an exported folder, with weights that may have been trained on in PyTorch."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.reading import tasks
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import lineage

_GENERATOR = "generator"  # the autoencoder as a player of its run
_GENERATION = "generation"  # what a generation run samples with, likewise


def open_run(folder: str) -> exported.Exported:
    """The last run that an exported folder holds, with those before it; see `read`."""
    run = read(folder)
    for stage in exported_config.stages(run.written)[1:]:
        run = _run(folder, run.written, stage, run)
    return run


def read(folder: str) -> exported.Exported:
    """The autoencoder of an exported folder, as the run that it was; its weights are checked.

    Raises:
        ValueError: where the folder is of another model or format, or its weights are not whole, not
            finite or not those of its config.json.
    """
    written = exported_config.read(folder)
    run = _run(folder, written, "autoencoder", None)
    with config_lib.values_of(folder):
        autoencoder = pretrained_autoencoder.of_run(run)
        abstract = {_GENERATOR: pretrained_autoencoder.abstract_params(autoencoder)}
    found, _ = fingerprints.of({"ema_params": run.load(abstract)})
    return dataclasses.replace(run, prints=found)


def _run(
    folder: str, written: Mapping[str, Any], stage: str, parent: exported.Exported | None
) -> exported.Exported:
    with config_lib.values_of(folder):
        return exported.Exported(
            workdir=folder,
            config=exported_config.config_of(written, stage),
            step=written["step"],
            written=written,
            load=functools.partial(_load, folder, written),
            parent=parent,
        )


def _load(folder: str, written: Mapping[str, Any], abstract: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by player, in float32, each where its abstract one says."""
    found = {}
    with weight_files.WeightFiles(folder) as files:
        for player, tree in abstract.items():
            names = _NAMES[player]
            parts = {names.get(module, module): params for module, params in tree.items()}
            others = (part for part in written["parts"] if part not in parts)
            shapes = torch_weights.shapes(parts)
            files.check(shapes, beside=tuple(f"{part}." for part in others))
            tensors = {
                name: files.part(name, (slice(None),) * len(shape), np.float32)
                for name, shape in shapes.items()
            }
            arrays = torch_weights.from_tensors(tensors, parts)
            placed = jax.tree.map(_placed, arrays, parts)
            found[player] = {module: placed[names.get(module, module)] for module in tree}
    return found


# Player -> which of its modules have another name there.
_NAMES = {
    _GENERATOR: {},
    lineage.ENCODER: {"encoder": "representation_encoder"},
    _GENERATION: {"encoder": "generation_encoder", "head": "flow_head"},
}


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


def load_generation(run: exported.Exported) -> tuple[Generation, dict[str, Any]]:
    """The modules of an exported generation run and the weights of its generator.

    Raises:
        ValueError: where they are not those of config.json, or not finite.
    """
    with config_lib.values_of(run.workdir):
        fields, encoder_run = run.written[_GENERATION], run.ancestor("representation")
        kinds = dict(compute_dtype=fields["compute_dtype"], remat="none")
        # It says no text: its head is not exported.
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
    if "generation_encoder" not in run.written["parts"]:
        encoder = {"encoder": shapes.pop("encoder")}
        found = run.load({lineage.ENCODER: encoder})[lineage.ENCODER]
    else:
        found = {}
    found |= run.load({_GENERATION: shapes})[_GENERATION]
    dtype = jnp.dtype(fields["compute_dtype"])
    found["language_model"] = _language_model(run.workdir, generator.language_model, dtype)
    return found | {"embedding_rms": jnp.float32(fields["embedding_rms"])}


def _language_model(
    folder: str, model: language_model_lib.LanguageModel, dtype: jnp.dtype
) -> dict[str, Any]:
    """Its parameters in a dtype; no stage before has checked them."""
    shapes = {
        name.replace("model.", "language_model.", 1): (name, shape)
        for name, shape in pretrained_language_model.tensor_shapes(model).items()
    }
    with weight_files.WeightFiles(folder) as files:
        found = {
            name: files.part(stored, (slice(None),) * len(shape), dtype)
            for stored, (name, shape) in shapes.items()
        }
    return jax.tree.map(jnp.asarray, pretrained_language_model.from_tensors(model, found))


def _placed(array: np.ndarray, like: Any) -> jax.Array:
    where = like.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])
