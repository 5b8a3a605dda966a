# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of an exported folder, as parameters of the players of its runs."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.devices import sharding
from f3tok_jax.models import semantic_coder
from f3tok_jax.models import semantic_encoder
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import lineage

GENERATOR = "generator"  # the autoencoder as a player of its run
GENERATION = "generation"  # what a generation run samples with, likewise
ANSWERS = "answers"  # what reads representations, likewise


def fingerprints_of(run: exported.Exported) -> dict[str, str]:
    """Path -> fingerprint of each array of the autoencoder, all of which are read.

    Raises:
        ValueError: where they are not whole, not finite or not those of its config.json.
    """
    with config_lib.values_of(run.workdir):
        autoencoder = pretrained_autoencoder.of_run(run)
        frozen = sharding.unbox(pretrained_autoencoder.abstract_frozen(autoencoder))
        abstract = {GENERATOR: pretrained_autoencoder.abstract_trained(autoencoder), **frozen}
    found = _arrays(run.workdir, run.written, abstract)
    return fingerprints.of_whole({"ema_params": found})


def load(folder: str, written: Mapping[str, Any], abstract: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by player, in float32, each where its abstract one says."""
    return jax.tree.map(_placed, _arrays(folder, written, abstract), abstract)


def _arrays(folder: str, written: Mapping[str, Any], abstract: Mapping[str, Any]) -> dict[str, Any]:
    """The same on the host."""
    found = {}
    for player, tree in abstract.items():
        parts = parts_of(player, tree)
        stored = tensors(folder, written, torch_weights.shapes(parts), parts)
        arrays = torch_weights.from_tensors(stored, parts)
        found[player] = {module: arrays[name] for module, name in zip(tree, parts, strict=True)}
    return found


def players(autoencoder: pretrained_autoencoder.Autoencoder, params: Any) -> dict[str, Any]:
    """The parameters of an autoencoder by whose they are: its run's own player, and what was frozen."""
    frozen = {}
    if isinstance(autoencoder, semantic_coder.SemanticCoder):
        params, frozen = semantic_coder.parted(params)
    return {GENERATOR: params, **frozen}


def parts_of(player: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The modules of a player by the names of parts of a model in PyTorch, or of what these are of."""
    names = _NAMES[player]
    return {names.get(module, module): params for module, params in tree.items()}


def tensors(
    folder: str,
    written: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    parts: Collection[str],
    dtype: jnp.dtype = jnp.float32,
) -> dict[str, np.ndarray]:
    """Reads the tensors of some parts.

    Args:
        folder: of the export.
        written: what its config.json says.
        shapes: by name, of all tensors that these parts have.
        parts: whose they are, or of which parts of these.
        dtype: of the arrays.

    Raises:
        ValueError: for tensors that are missing, left over, of another shape or not finite.
    """
    own = tuple(f"{part}." for part in parts)
    others = tuple(
        f"{piece}."
        for piece in exported_config.pieces(written)
        if not any(name.startswith(f"{piece}.") for name in own)
    )
    with weight_files.WeightFiles(folder) as files:
        files.check(shapes, beside=others)
        return {
            name: files.part(name, (slice(None),) * len(shape), dtype)
            for name, shape in shapes.items()
        }


# Player -> which of its modules have another name there.
_NAMES = {
    GENERATOR: {name: f"encoder.{name}" for name in ("acoustic", "acoustic_output", "output")},
    semantic_coder.BOTTLENECK: {"down": "encoder.semantic_bottleneck.down"},
    semantic_coder.ENCODER: {
        "params": "encoder.semantic_encoder",
        semantic_encoder.STATISTICS: "encoder.semantic_encoder.statistics",
    },
    lineage.ENCODER: {"encoder": "representation_encoder"},
    GENERATION: {"encoder": "generation_encoder", "head": "flow_head"},
    ANSWERS: {"projector": "answer_projector"},
}


def _placed(array: np.ndarray, like: Any) -> jax.Array:
    where = like.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])
