# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept beside a saved state: step, config, data, versions, a fingerprint per leaf; sealed."""

from collections.abc import Iterable, Mapping
import importlib.metadata
import json
from typing import Any

from etils import epath
import numpy as np

from data_pipelines.records import atomic
from data_pipelines.records import sealed
from data_pipelines.records import small_file
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import typed_json

_LIBRARIES = "jax jaxlib flax optax orbax-checkpoint numpy grain array_record soxr".split()

# What metadata of every version holds; of the earlier ones, which have no seal, nothing else.
_EVER = {
    "step": int,
    "config": dict,
    "data_fingerprint": str,
    "fingerprints": dict,
    "metrics": dict,
    "versions": dict,
}
_SINCE_SEALED = {"files": dict, "seen": dict}


class CheckpointError(OSError):
    """A checkpoint that could not be written or that is not whole."""


class Mismatch(ValueError):
    """The checkpoint is whole and of another run: an error of the user's, not of the disk."""


def versions() -> dict[str, str]:
    """Returns library -> version, of those that decide what a step computes and stores."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def other_versions(meta: Mapping[str, Any]) -> str:
    """Returns which libraries are others than those that a checkpoint was written with; "" if none.

    Another version may compute other numbers: what was learnt is then not bit for bit what it would
    have been.
    """
    before, now = meta["versions"], versions()
    changed = sorted(name for name in now.keys() & before.keys() if now[name] != before[name])
    return ", ".join(f"{name} {before[name]} -> {now[name]}" for name in changed)


def made(
    *,
    step: int,
    config: Mapping[str, Any],
    data_fingerprint: str,
    fingerprints: Mapping[str, str],
    metrics: Mapping[str, float] | None,
    files: Mapping[str, str],
    seen: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns what is kept of a step, sealed.

    Args:
        step: steps taken.
        config: of the run, as it is in JSON.
        data_fingerprint: of the training data.
        fingerprints: path -> fingerprint of each array of the state.
        metrics: of an evaluation of this state; what is not finite is left out.
        files: name -> digest of each small file of the run that decides what is learnt.
        seen: what the run has met so far, and a resumed one must not forget.
    """
    kept = {
        "step": step,
        "config": config,
        "data_fingerprint": data_fingerprint,
        "fingerprints": fingerprints,
        "metrics": _finite(metrics or {}),
        "versions": versions(),
        "files": dict(files),
        "seen": dict(seen or {}),
    }
    return sealed.seal(json.loads(json.dumps(kept)))


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def read(folder: epath.Path, step: int) -> dict[str, Any]:
    """Returns what is kept beside the state of `step` in a folder of checkpoints.

    "files" and "seen" are empty where an earlier version wrote it.

    Raises:
        CheckpointError: where it is missing or damaged, or is of another step.
    """
    path = _path(folder, step)
    try:
        meta = sealed.read(small_file.read_bytes(path), "it", _EVER)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({first_line(error)})") from error
    if not all(isinstance(value, str) for value in meta["fingerprints"].values()):
        raise CheckpointError(f"{path} holds no fingerprints")
    if not all(typed_json.is_number(value) for value in meta["metrics"].values()):
        raise CheckpointError(f"{path} holds metrics that are no numbers")
    if meta["step"] != step:
        raise CheckpointError(f"{path} is of step {meta['step']}, not of step {step}")
    return {name: kind() for name, kind in _SINCE_SEALED.items()} | meta


def add_metrics(folder: epath.Path, step: int, metrics: Mapping[str, float]) -> None:
    """Writes metrics into what is kept beside a saved state, whole or not at all.

    Raises:
        CheckpointError: where it is missing or damaged.
        OSError: where it cannot be written.
    """
    meta = read(folder, step)
    meta["metrics"] = meta["metrics"] | _finite(metrics)
    atomic.write_text(_path(folder, step), json.dumps(sealed.seal(meta)))


def _path(folder: epath.Path, step: int) -> epath.Path:
    return folder / str(step) / "meta" / "metadata"


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


def check_run(
    meta: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, str], step: int
) -> None:
    """Refuses a checkpoint of another run, which somebody may have put there.

    Args:
        meta: of the checkpoint.
        config: of the run, as it is in JSON.
        files: name -> digest of small files of the run.
        step: for the message.

    Raises:
        Mismatch: naming what differs.
    """
    differing = config_lib.differing(meta["config"], config)
    if not differing:
        changed = [name for name in files if meta["files"].get(name, files[name]) != files[name]]
        differing = f"{listed(changed)} was another file" if changed else ""
    if differing:
        raise Mismatch(f"the checkpoint of step {step} is of another run: {differing}")


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
    import jax  # where arrays are; what is kept beside them is read without it

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


def difference(prints: Mapping[str, str], restored: Any) -> str | None:
    """What in a restored tree of arrays is not as it was saved, None for nothing.

    Args:
        prints: path -> fingerprint of each array that was saved.
        restored: all of them, or some.
    """
    found, nonfinite = fingerprint.of(restored)
    if changed := fingerprint.differing(prints, found):
        return f"the fingerprint of {listed(changed)} differs from the saved one"
    # None is saved here; another program may have.
    return f"{listed(nonfinite)} hold non-finite values" if nonfinite else None


def listed(names: Iterable[str]) -> str:
    """Returns the first few names as text."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, after its kind where that is not our own."""
    kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
    text = str(error).strip().splitlines()
    return f"{kind}{text[0][:300] if text else 'no message'}"
