# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of arrays: equal on every mesh, different after one flipped bit.

JAX is imported where arrays are: what the files of a run say is read without it.
"""

from collections.abc import Mapping
import hashlib
import math
from typing import Any

import numpy as np

# Multipliers and shifts of SplitMix64's finaliser (public domain, Sebastiano Vigna): a permutation
# of the 64-bit numbers that spreads every bit over all of them.
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_CHUNK = 2**21  # elements hashed at a time: bounds the host memory to some tens of MB


def path_name(path: Any) -> str:
    """Returns a key path of jax.tree_util as text with slashes, such as params/decoder/kernel."""
    return "/".join(
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path
    )


def paths(tree: Any) -> list[str]:
    """Returns the path of every leaf, in the tree's order."""
    import jax

    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def of(tree: Any) -> tuple[dict[str, str], dict[str, int]]:
    """Returns path -> fingerprint, and path -> count of non-finite values where there are any.

    Each process hashes the parts that it holds, and only two numbers per leaf travel between
    processes. With several processes all of them must call it. Done on the host, because compiling
    the same for a tree of 300 shapes takes XLA minutes; numpy takes about a second per 10^8 words.

    Args:
        tree: of jax arrays of at most 32 bits per element.
    """
    import jax
    from jax.experimental import multihost_utils

    leaves = jax.tree.leaves(tree)
    sums = np.zeros((len(leaves), 2), np.uint64)
    for row, leaf in zip(sums, leaves):
        for shard in leaf.addressable_shards:
            # Of equal copies on several devices, one counts.
            if shard.replica_id == 0:
                row += _sums(jax.device_get(shard.data), shard.index, leaf.shape)
    if jax.process_count() > 1:
        halves = sums.view(np.uint32)  # 64-bit numbers do not pass through JAX's default types
        gathered = multihost_utils.process_allgather(halves)
        sums = np.sum(np.ascontiguousarray(gathered).view(np.uint64), axis=0, dtype=np.uint64)
    prints, nonfinite = {}, {}
    for name, leaf, (digest, count) in zip(paths(tree), leaves, sums, strict=True):
        prints[name] = _print(leaf, digest)
        if count:
            nonfinite[name] = int(count)
    return prints, nonfinite


def of_whole(tree: Any) -> dict[str, str]:
    """Returns path -> fingerprint of NumPy arrays, which each process holds whole; see `of`."""
    import jax

    leaves = zip(paths(tree), jax.tree.leaves(tree), strict=True)
    return {name: _print(leaf, _sums(leaf, (), leaf.shape)[0]) for name, leaf in leaves}


def _print(leaf: Any, digest: np.uint64) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}:{int(digest):016x}"


def digest(tree: Any) -> str:
    """Returns one short fingerprint of a whole tree, 16 hexadecimal digits; see `of`."""
    return digest_of(of(tree)[0])


def digest_of(prints: Mapping[str, str]) -> str:
    """Returns what `digest` does, of fingerprints by path that `of` gave before."""
    return hashlib.sha256(repr(sorted(prints.items())).encode()).hexdigest()[:16]


def size_of(print_: str) -> int:
    """Returns the number of elements of an array whose fingerprint it is."""
    shape, _, _ = print_.partition("[")[2].partition("]")
    return math.prod(int(size) for size in shape.split(",") if size)


def autoencoder_fingerprint(params: Any) -> str:
    """Returns what latents carry to say whose they are: `digest` of the autoencoder's weights.

    Args:
        params: averaged weights, as pretrained.autoencoder.load returns them.
    """
    return digest({"params": params})


def of_level(print_: str, level_db: float) -> str:
    """Returns what latents carry of weights with that fingerprint that hear sound at a level.

    Args:
        print_: of the weights.
        level_db: dBFS; 0 for sound as it comes, whose latents carry that of the weights alone.
    """
    return digest_of({"weights": print_, "level_db": repr(float(level_db))}) if level_db else print_


def _sums(array: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """[2] uint64, hashed words summed and non-finite values counted, of the part at `index`."""
    words, nonfinite = array.reshape(-1), 0
    if np.issubdtype(array.dtype, np.inexact) or array.dtype.name == "bfloat16":
        nonfinite = np.count_nonzero(~np.isfinite(words))
    words = words.view(f"u{array.dtype.itemsize}")
    total = np.zeros(1, np.uint64)  # an array wraps without a warning, a scalar does not
    for start in range(0, words.size, _CHUNK):
        chunk = words[start : start + _CHUNK]
        positions = np.arange(start, start + chunk.size, dtype=np.uint64)
        mixed = _global_positions(positions, array.shape, index, shape)
        # The word and its position make one number; hashing it is a permutation, so that a changed
        # word always changes the sum. Integer sums are the same in any order, hence on any mesh.
        mixed <<= np.uint64(32)
        mixed |= chunk
        for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS):
            mixed ^= mixed >> shift
            mixed *= multiplier
        mixed ^= mixed >> _SHIFTS[-1]
        total += np.sum(mixed, dtype=np.uint64)
    return np.array([total[0], nonfinite], np.uint64)


def _global_positions(
    positions: np.ndarray, part: tuple[int, ...], index: tuple[slice, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Returns the flat position in the whole of each flat position in the part."""
    if part == shape:
        return positions
    result = np.zeros_like(positions)
    stride = 1
    for size, whole, where in reversed(list(zip(part, shape, index, strict=True))):
        result += (positions % np.uint64(size) + np.uint64(where.start or 0)) * np.uint64(stride)
        positions = positions // np.uint64(size)
        stride *= whole
    return result


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Returns the paths in `found` whose fingerprint is not the expected one."""
    return [name for name, value in found.items() if expected.get(name) != value]
