# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters under PyTorch's names and in its layout, and back, bit for bit.

    decoder/stage_0/shortcut_layer/shortcut/kernel  decoder.stages.0.shortcut.weight
    decoder/block_0/depthwise/kernel                decoder.blocks.0.depthwise.weight
    transformer/layers/attention/query/kernel       transformer.layers.0.attention.query.weight, ...

Matrices are [out, in] there, convolutions [out, in, time] or [out, in, time, frequency], and each layer
of a transformer has tensors of its own.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any

import jax
import numpy as np

from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import fingerprint as fingerprints

_LAYERS = "transformer/layers/"  # below which leaves are stacked, layer by layer
_NUMBERED = re.compile(r"(stage|block)_(?=\d+$)")  # one of several
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
        for name, part in _parts(path, _empty(leaf.shape)):
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
    wanted = shapes(like)
    for problem, differing in (
        ("lack", wanted.keys() - tensors.keys()),
        ("have beyond them", tensors.keys() - wanted.keys()),
    ):
        if differing:
            listed = checkpoint_meta.listed(sorted(differing))
            raise ValueError(f"the weights must be those of the config: they {problem} {listed}")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"the tensor {name} must be of shape {shape}, got {tensors[name].shape}"
            )
    leaves = zip(fingerprints.paths(like), jax.tree.leaves(like), strict=True)
    found = [_joined(path, leaf.shape, tensors) for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _joined(path: str, shape: tuple[int, ...], tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """One parameter of its tensors."""
    parts = []
    for name, part in _parts(path, _empty(shape)):
        axes = np.argsort(_axes(path, part.ndim)).tolist()
        parts.append(tensors[name].transpose(tuple(axes)))
    return np.stack(parts) if _is_stacked(path) else parts[0]


def _empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of a shape that takes no memory."""
    return np.broadcast_to(np.int8(0), shape)


def _parts(path: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the tensors that a parameter becomes, in JAX's layout."""
    names = {"shortcut_layer": None, "kernel": "weight", "scale": "weight"}
    words = (names.get(word, _NUMBERED.sub(r"\1s.", word)) for word in path.split("/"))
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
