# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The train step compiled for a slice that is not there yet: whether it fits, and what it costs."""

from collections.abc import Iterator, Mapping, Sequence
import hashlib
import importlib.util
import json
import os
import pathlib
from typing import Any

import jax

from data_pipelines.records import atomic
from data_pipelines.records import user_cache
from f3tok_jax.cost import step as cost_step
from f3tok_jax.devices import slices
from f3tok_jax.runs import code
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import environment
from f3tok_jax.runs import language_model_folder
from f3tok_jax.runs import lineage
from f3tok_jax.stages import registry

_EFFORT = -1.0  # of XLA: several times faster than training's, to about the same memory


def can_compile() -> bool:
    """Whether the TPU's compiler is installed."""
    return importlib.util.find_spec("libtpu") is not None


def rehearse(run: lineage.Lineage, target: slices.Slice, flags: Sequence[str]) -> Mapping[str, Any]:
    """Compiles the train step of a run for a slice; what is known from before is not compiled.

    Args:
        run: with its config, and where what that names lies.
        target: slices to compile for.
        flags: of the compiler, which has them in its environment.

    Returns:
        "memory" and "limit", bytes per device; "seconds" of a step as the compiler estimates it.

    Raises:
        cost_step.MemoryDoesNotFitError: with what it needs and what there is.
        ValueError: where config and slices do not fit together.
    """
    kept, config = _kept(run, target, flags), run.config
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    jax.config.update("jax_exec_time_optimization_effort", _EFFORT)
    compiled, work = cost_step.compile_part(config, target, run=run)
    cost = cost_step.measure(compiled, work, target, scopes=registry.of(config.stage).scopes)
    memory = cost["memory_bytes"]
    found = {
        "memory": memory["peak"],
        "limit": memory["limit"],
        "seconds": max(cost["roofline"]["seconds"], cost["estimated"]["seconds"]),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(kept, json.dumps(found))
    return found


def _kept(run: lineage.Lineage, target: slices.Slice, flags: Sequence[str]) -> pathlib.Path:
    """Where what was found is kept: by all that it follows from, this code included."""
    places = [sorted(run.places.moved.items()), run.places.path]
    facts = [
        *_ancestry(run),
        str(target),
        *flags,
        os.environ.get("XLA_FLAGS", ""),
        os.getcwd(),  # from which the config's relative places are seen
        json.dumps(places),
        json.dumps(environment.versions(), sort_keys=True),
        code.fingerprint(),
    ]
    name = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]
    return user_cache.folder("rehearsals") / f"{name}.json"


def _ancestry(run: lineage.Lineage) -> Iterator[str]:
    """What the configs of a run and of the models that it names say now, wherever they lie."""
    yield config_lib.to_json(run.config)
    for _, parent in sorted(run.parents.items()):
        yield from _ancestry(parent)
    if "supervision" in run.config and (folder := run.language_model_folder):
        found = language_model_folder.find(folder, language_model_folder.CONFIG_NAME)
        yield found.read_text(encoding="utf-8")
    if run.tokenizer:
        yield language_model_folder.tokenizer_fingerprint(run.tokenizer)


def in_words(found: Mapping[str, Any], target: slices.Slice, num_steps: int) -> str:
    """What a rehearsal has found, on one line."""
    gigabytes = [f"{found[key] / 2**30:.2f}" for key in ("memory", "limit")]
    hours = found["seconds"] * num_steps / 3600
    return (
        f"rehearsed on {target}: {gigabytes[0]} of {gigabytes[1]} GiB per device, "
        f"{1e3 * found['seconds']:.0f} ms a step as the compiler estimates it at its least effort, "
        f"{hours:,.1f} hours for {num_steps:,} steps"
    )
