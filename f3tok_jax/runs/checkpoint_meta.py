# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept beside a saved state: step, config, data, versions, a fingerprint per leaf."""

from collections.abc import Iterable, Mapping
import importlib.metadata
import json
from typing import Any

from etils import epath
import jax
import numpy as np

from f3tok_jax.runs import fingerprint

_LIBRARIES = "jax jaxlib flax optax orbax-checkpoint numpy grain array_record soxr".split()


class CheckpointError(OSError):
    """A checkpoint that could not be written or that is not whole."""


class Mismatch(ValueError):
    """The checkpoint is whole and of another run: an error of the user's, not of the disk."""


def versions() -> dict[str, str]:
    """Returns library -> version, of those that decide what a step computes and stores."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def read(folder: epath.Path, step: int) -> dict[str, Any]:
    """Returns what is kept beside the state of `step` in a folder of checkpoints.

    Raises:
        CheckpointError: where it is missing or damaged.
    """
    path = folder / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({first_line(error)})") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("fingerprints"), dict):
        raise CheckpointError(f"{path} holds no fingerprints")
    return meta


def check_data(meta: Mapping[str, Any], data_fingerprint: str, step: int) -> None:
    """Refuses a checkpoint of other data.

    Raises:
        Mismatch: with both fingerprints.
    """
    if meta.get("data_fingerprint") != data_fingerprint:
        raise Mismatch(
            f"the checkpoint of step {step} was trained on data with fingerprint "
            f"{meta.get('data_fingerprint')}, got {data_fingerprint}: the shards, their weights, "
            "the batch size, the crop or the seed differ; give the same data, or another --workdir"
        )


def check_tree(
    prints: Mapping[str, str], abstract_tree: Any, step: int, *, partial: bool = False
) -> None:
    """Refuses a checkpoint whose paths, shapes or dtypes are not those of the config's state.

    Args:
        prints: path -> fingerprint, of the checkpoint.
        abstract_tree: of the state that is wanted.
        step: for the message.
        partial: whether the checkpoint may hold more.

    Raises:
        Mismatch: listing what is missing, extra and different.
    """
    wanted = {
        name: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
        for name, leaf in zip(fingerprint.paths(abstract_tree), jax.tree.leaves(abstract_tree))
    }
    stored = {name: text.rsplit(":", 1)[0] for name, text in prints.items()}
    missing = sorted(set(wanted) - set(stored))
    extra = [] if partial else sorted(set(stored) - set(wanted))
    changed = [
        f"{name} is {stored[name]} there and {wanted[name]} here"
        for name in sorted(set(wanted) & set(stored))
        if wanted[name] != stored[name]
    ]
    parts = {"missing": missing, "extra": extra, "different": changed}
    got = "; ".join(f"{how}: {listed(names)}" for how, names in parts.items() if names)
    if got:
        raise Mismatch(
            f"the checkpoint of step {step} must have the arrays of this config, got {got}; give "
            "the config it was trained with, or another --workdir"
        )


def listed(names: Iterable[str]) -> str:
    """Returns the first few names as text."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def first_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else 'no message'}"
