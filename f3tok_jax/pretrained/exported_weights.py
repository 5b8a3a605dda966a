# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of an exported folder, as parameters of the players of its runs."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import lineage

_GENERATOR = "generator"  # the autoencoder as a player of its run
GENERATION = "generation"  # what a generation run samples with, likewise
ANSWERS = "answers"  # what reads representations, likewise


def fingerprints_of(run: exported.Exported) -> dict[str, str]:
    """Path -> fingerprint of each array of the autoencoder, all of which are read.

    Raises:
        ValueError: where they are not whole, not finite or not those of its config.json.
    """
    with config_lib.values_of(run.workdir):
        autoencoder = pretrained_autoencoder.of_run(run)
        abstract = {_GENERATOR: pretrained_autoencoder.abstract_params(autoencoder)}
    found = _arrays(run.workdir, run.written, abstract)
    return fingerprints.of_whole({"ema_params": found})


def load(folder: str, written: Mapping[str, Any], abstract: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by player, in float32, each where its abstract one says."""
    return jax.tree.map(_placed, _arrays(folder, written, abstract), abstract)


def _arrays(folder: str, written: Mapping[str, Any], abstract: Mapping[str, Any]) -> dict[str, Any]:
    """The same on the host."""
    found = {}
    for player, tree in abstract.items():
        names = _NAMES[player]
        parts = {names.get(module, module): params for module, params in tree.items()}
        stored = tensors(folder, written, torch_weights.shapes(parts), parts)
        arrays = torch_weights.from_tensors(stored, parts)
        found[player] = {module: arrays[names.get(module, module)] for module in tree}
    return found


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
        parts: whose they are.
        dtype: of the arrays.

    Raises:
        ValueError: for tensors that are missing, left over, of another shape or not finite.
    """
    others = tuple(f"{part}." for part in written["parts"] if part not in parts)
    with weight_files.WeightFiles(folder) as files:
        files.check(shapes, beside=others)
        return {
            name: files.part(name, (slice(None),) * len(shape), dtype)
            for name, shape in shapes.items()
        }


# Player -> which of its modules have another name there.
_NAMES = {
    _GENERATOR: {},
    lineage.ENCODER: {"encoder": "representation_encoder"},
    GENERATION: {"encoder": "generation_encoder", "head": "flow_head"},
    ANSWERS: {"projector": "answer_projector"},
}


def _placed(array: np.ndarray, like: Any) -> jax.Array:
    where = like.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])
