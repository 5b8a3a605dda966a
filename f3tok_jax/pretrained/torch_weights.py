# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters under PyTorch's names and in its layout, and back, bit for bit.

    decoder/stage_0/shortcut_layer/shortcut/kernel  decoder.stages.0.shortcut.weight
    transformer/layers/attention/query/kernel       transformer.layers.0.attention.query.weight, ...

Matrices are [out, in] there, convolutions [out, in, time, frequency], and each layer of a transformer
has tensors of its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import fingerprint as fingerprints

_LAYERS = "transformer/layers/"  # below which leaves are stacked, layer by layer
_OUTPUTS_FIRST = (3, 2, 0, 1)  # [time, frequency, in, out] -> [out, in, time, frequency]
_INPUTS_FIRST = (2, 3, 0, 1)  # of transposed convolutions


def tensors(params: Any) -> dict[str, np.ndarray]:
    """Parameters by name, float32."""
    found = {}
    for path, leaf in zip(fingerprints.paths(params), jax.tree.leaves(params)):
        array = np.asarray(leaf, np.float32)
        for name, part in _parts(path, array):
            found[name] = np.ascontiguousarray(part.transpose(_axes(path, part.ndim)))
    return found


def shapes(like: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape, as stored, of what `tensors` makes of parameters of the shapes of `like`."""
    found = {}
    for path, leaf in zip(fingerprints.paths(like), jax.tree.leaves(like)):
        for name, part in _parts(path, np.broadcast_to(np.int8(0), leaf.shape)):
            found[name] = part.transpose(_axes(path, part.ndim)).shape
    return found


def from_tensors(tensors: Mapping[str, np.ndarray], like: Any) -> Any:
    """The reverse of `tensors`.

    Args:
        tensors: by name; in a program of JAX, of parameters that are not stacked, its arrays, too.
        like: a tree of the parameters' shapes.

    Returns:
        Arrays in the structure of `like`, in the dtypes of `tensors`.

    Raises:
        ValueError: where a tensor is missing, too many, or of another shape.
    """
    leaves = dict(zip(fingerprints.paths(like), jax.tree.leaves(like)))
    names = {
        path: [name for name, _ in _parts(path, np.broadcast_to(np.int8(0), leaf.shape))]
        for path, leaf in leaves.items()
    }
    wanted = {name for each in names.values() for name in each}
    for problem, differing in (
        ("lack", wanted - tensors.keys()),
        ("have beyond them", tensors.keys() - wanted),
    ):
        if differing:
            listed = checkpoint_meta.listed(sorted(differing))
            raise ValueError(f"the weights must be those of the config: they {problem} {listed}")
    found = [_joined(path, names[path], leaf, tensors) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _joined(
    path: str, names: list[str], leaf: Any, tensors: Mapping[str, np.ndarray]
) -> np.ndarray:
    """One parameter of its tensors."""
    shape = leaf.shape[1:] if _is_stacked(path) else leaf.shape
    axes = _axes(path, len(shape))
    parts = []
    for name in names:
        array, stored = tensors[name], tuple(shape[axis] for axis in axes)
        if array.shape != stored:
            raise ValueError(f"the tensor {name} must be of shape {stored}, got {array.shape}")
        parts.append(array.transpose(tuple(np.argsort(axes).tolist())))
    return np.stack(parts) if _is_stacked(path) else parts[0]


def _parts(path: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the tensors that a parameter becomes, in JAX's layout."""
    names = {"shortcut_layer": None, "kernel": "weight", "scale": "weight"}
    words = (names.get(word, word.replace("stage_", "stages.")) for word in path.split("/"))
    name = ".".join(filter(None, words))
    if not _is_stacked(path):
        yield name, array
        return
    before, _, after = name.rpartition("transformer.layers.")
    for layer, part in enumerate(array):
        yield f"{before}transformer.layers.{layer}.{after}", part


def _is_stacked(path: str) -> bool:
    return f"/{_LAYERS}" in f"/{path}"


def _axes(path: str, rank: int) -> tuple[int, ...]:
    """Of a parameter in JAX, in the order in which PyTorch has them."""
    *_, owner, kind = path.split("/")
    if kind == "kernel" and rank == 4:
        return _INPUTS_FIRST if owner == "up" else _OUTPUTS_FIRST
    return tuple(reversed(range(rank))) if kind == "kernel" else tuple(range(rank))
