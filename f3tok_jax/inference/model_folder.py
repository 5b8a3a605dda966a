# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which run, or exported folder, a command uses, and what it is: by its files alone.

JAX is not imported, but for an exported folder whose files were changed since: its weights are read.
"""

from collections.abc import Mapping
import importlib.util
import json
import os
import pathlib
from typing import Any

from f3tok_jax.inference import shipped
from f3tok_jax.pretrained import exported
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.runs import sound as sound_lib

STAGES = ("autoencoder", "representation", "generation")  # each knows those before it

_AUTOENCODER_WEIGHTS = "ema_params/generator/"  # in a checkpoint: the averaged ones
_VARIABLE = "F3TOK_MODEL"
_DEMO = "runs/demo"  # where launch/tpu_train.sh leaves a run of each stage
# What reads a bucket; TensorFlow reads those of any kind.
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def find(given: str | None, stage: str) -> str:
    """Returns the folder of the run to use.

    Args:
        given: that was named, or a folder of such runs, or the name of a model that comes with the
            package; None for $F3TOK_MODEL, or else shipped.DEFAULT where it is there and can do that, or
            else runs/demo.
        stage: what is to be done is of; runs of this stage and of later ones can.

    Raises:
        ValueError: where there is no such run, or it is of a stage before.
    """
    folder = given or os.environ.get(_VARIABLE)
    if folder:
        folder = inside(folder, stage)
        _check(folder, stage)
        return folder
    able = STAGES[STAGES.index(stage) :]
    comes = shipped.find(shipped.DEFAULT)
    if comes and written_stage(comes) in able:
        return comes
    if (found := inside(_DEMO, stage)) != _DEMO:
        return found
    raise ValueError(
        f"--model must name a run of the {' or '.join(able)} stage, got none, and neither the package "
        f"nor {_DEMO} holds one: give --model=RUN, set {_VARIABLE}, or train one by launch/tpu_train.sh"
    )


def inside(folder: str, stage: str = STAGES[0]) -> str:
    """The run that knows most in a folder of runs by their stages, such as a bundle.

    Of those of `stage` and of later ones; the folder itself where it holds none, or is a run. For the
    name of a model that comes with the package, its folder; see shipped.named.
    """
    folder = shipped.named(folder)
    if "://" in folder or os.path.lexists(os.path.join(folder, "config.json")):
        return folder
    able = STAGES[STAGES.index(stage) :]
    runs = (pathlib.Path(folder, name) for name in reversed(able))
    return next((str(run) for run in runs if _is_trained(run)), folder)


def read(
    folder: str, step: int | None = None, *, moved: Mapping[str, str] | None = None
) -> lineage.Lineage:
    """The run of a folder, or the one that knows most in a folder of runs, or that was exported.

    A run's weights are not read; those of an exported folder are where its files were changed.

    Args:
        folder: local or a bucket; or the name of a model that comes with the package.
        step: of the checkpoint; the newest that says what it holds if None.
        moved: see tokenizer.F3Tokenizer.from_pretrained.

    Raises:
        ValueError: where it is no run of these stages, or the runs that it was trained on are not
            what they were.
        checkpoint_meta.CheckpointError: where no checkpoint asked for says what it holds.
    """
    folder = inside(folder)
    found = open_run(folder, step, places.Places(moved or {}))
    if found.stage not in STAGES:
        raise ValueError(
            f"{folder} must be a run of the {', '.join(STAGES[:-1])} or {STAGES[-1]} stage, got "
            f"stage {found.stage!r}"
        )
    found.check()
    return found


def open_run(folder: str, step: int | None, found: places.Places) -> lineage.Lineage:
    """The run of a folder, of any stage, or the one that was exported; raises as `read` does."""
    if not exported_config.is_folder(folder):
        return lineage.Lineage.read(folder, step, places=found)
    return exported.open_run(folder).at(step)


def describe(run: lineage.Lineage) -> dict[str, Any]:
    """What a run is, ready for JSON: its own stage and step, and the autoencoder of its sound."""
    coder = run if run.stage == STAGES[0] else run.ancestor(STAGES[0])
    weights = {
        path: text for path, text in coder.prints.items() if path.startswith(_AUTOENCODER_WEIGHTS)
    }
    with config_lib.values_of(coder.workdir):
        model, ahead, late = coder.config.model, None, None  # all of a sound
        if not sound_lib.is_semantic(coder.config):
            ahead, late = model.frame_length - model.hop_length, model.decoder_lookahead
        return dict(
            model=run.workdir,
            stage=run.stage,
            step=run.step,
            sample_rate=run.sound.sample_rate,
            latent_rate=run.sound.latent_rate,
            latent_dim=run.sound.latent_dim,
            samples_per_latent=run.sound.samples_per_latent,
            encoder_lookahead_samples=ahead,
            decoder_lookahead_latents=late,
            level_db=run.level_db,
            parameters=sum(map(fingerprint.size_of, weights.values())),
            fingerprint=run.latents_fingerprint,
        )


def refuse(folder: str, stage: str, got: str):
    """Raises ValueError for a run of the stage `got` where one of `stage`, or later, is needed."""
    able = " or ".join(STAGES[STAGES.index(stage) :])
    raise ValueError(f"{folder} must be a run of the {able} stage, got stage {got!r}")


def _check(folder: str, stage: str) -> None:
    scheme, is_bucket, _ = folder.partition("://")
    if is_bucket:
        package = _PACKAGES.get(scheme)
        names = ("tensorflow", package) if package else ()
        if package and not any(map(importlib.util.find_spec, names)):
            raise ValueError(
                f"--model={folder} needs the package {package!r}, which is not installed: install "
                "it, or copy the run to a local folder"
            )
        return
    config = pathlib.Path(folder, "config.json")
    if not config.is_file():
        got = f"a folder without {config.name}" if os.path.isdir(folder) else "no folder"
        known = "".join(f", or {name}, which comes with the package" for name in shipped.names())
        raise ValueError(
            f"--model must be the work folder of a run, or a bundle{known}, got {folder}, which is {got}: "
            "give the --workdir that train was given, or the --output that export was given"
        )
    if (found := written_stage(folder)) in STAGES[: STAGES.index(stage)]:
        refuse(folder, stage, found)


def written_stage(folder: str) -> str:
    """The last stage of a run or an exported folder, by its config.json; "" where it says none."""
    try:
        written = json.loads(pathlib.Path(folder, "config.json").read_bytes())
        return _stage_of(written)
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""  # Whoever reads the run says what is wrong with it.


def _stage_of(written: Mapping[str, Any]) -> str:
    """The same of what that file says."""
    if written.get("model_type") != exported_config.MODEL_TYPE:
        return written.get("stage", "")
    return next(reversed(exported_config.stages(written)), "")


def _is_trained(folder: pathlib.Path) -> bool:
    """Whether a folder is of a run that has a checkpoint."""
    names = os.listdir(folder / "checkpoints") if (folder / "checkpoints").is_dir() else ()
    return (folder / "config.json").is_file() and any(name.isdecimal() for name in names)
