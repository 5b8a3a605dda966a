# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""config.json of an exported folder: what it says, as configs of the runs that it was of.

Other programs write that file again: transformers, of a model that was trained on in PyTorch. Known
without JAX.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import ml_collections

from data_pipelines.records import json_object

MODEL_TYPE = "f3_tokenizer"
FORMAT = "f3tok export 1"  # another for other names, layouts or meanings

# Stage -> the parts of a model that its run has trained; a part's tensors begin with its name.
PARTS = {
    "autoencoder": ("encoder", "decoder"),
    "representation": ("representation_encoder",),
    "generation": ("projector", "flow_head", "language_model"),
}
_KNOWN = (
    *sum(PARTS.values(), ()),
    "generation_encoder",
)  # of a generation run that trained its own

_FILE_NAME = "config.json"
_KINDS = {
    "parts": list,
    "step": int,
    "latents_fingerprint": str,
    "encoder_fingerprint": str,
    "compute_dtype": str,
    **dict.fromkeys(("sampling_rate", "hop_length", "fold", "latent_dim"), int),
    **dict.fromkeys(("strides", "encoder_channels", "decoder_channels"), list),
    "compression": (float, int),
    "decoder_lookahead": int,
    "normalize": bool,
    **dict.fromkeys(("epsilon", "gamma"), (float, int)),
}
# What decides, with its weights, which latents an encoder makes.
_OF_LATENTS = (
    *("sampling_rate", "hop_length", "fold", "strides", "encoder_channels"),
    *("compression", "latent_dim", "normalize", "epsilon"),
)
_LATENT_RMS = "latent_rms"  # in its representation: of the latents, not of the encoder


def is_folder(place: str | os.PathLike) -> bool:
    """Whether a local folder holds a model in Hugging Face's format, and no run."""
    path = pathlib.Path(place, _FILE_NAME)
    if "://" in str(place) or not path.is_file():
        return False
    try:
        found = json_object.read(path)
    except (OSError, ValueError):
        return False  # Whoever reads it as a run's says what is wrong.
    return "stage" not in found and "model_type" in found


def read(folder: str | os.PathLike) -> dict[str, Any]:
    """What config.json of an exported folder says.

    Raises:
        ValueError: where it is of another model or format, or lacks what it must say.
    """
    path = pathlib.Path(folder, _FILE_NAME)
    found = json_object.read(path)
    if (kind := found.get("model_type")) != MODEL_TYPE:
        raise ValueError(
            f"{folder} must be a run, or a folder that f3tok_jax.export wrote, got a model of the "
            f"type {kind!r:.80}: give another folder"
        )
    if (version := found.get("format")) != FORMAT:
        raise ValueError(
            f"{path} must be of the format {FORMAT!r}, got {version!r:.80}: export the run again, "
            "or use the version of f3tok_jax that wrote it"
        )
    for name, kind in _KINDS.items():
        if not isinstance(value := found.get(name), kind):
            raise ValueError(
                f"{path} must say the {name} of the model as it was exported, got {value!r:.80}: "
                "export the run again"
            )
    parts = found["parts"]
    if not set(PARTS["autoencoder"]) <= set(parts) or not set(parts) <= set(_KNOWN):
        raise ValueError(
            f"{path} must be of a model with {' and '.join(PARTS['autoencoder'])}, and perhaps "
            f"others of {', '.join(_KNOWN)}, got the parts {parts!r:.200}: save it with all its parts"
        )
    return found


def stages(written: Mapping[str, Any]) -> Sequence[str]:
    """The stages whose runs a folder holds, from the first on."""
    found = written.get("parts") or ()
    return [stage for stage, parts in PARTS.items() if all(part in found for part in parts)]


def config_of(written: Mapping[str, Any], stage: str) -> ml_collections.ConfigDict:
    """The config of a run that a folder holds, as far as others read it."""
    make = dict(autoencoder=_autoencoder, representation=_representation, generation=_generation)
    return ml_collections.ConfigDict({"stage": stage, **make[stage](written)})


def _autoencoder(written: Mapping[str, Any]) -> dict[str, Any]:
    names = ("hop_length", "fold", "compression", "latent_dim", "decoder_lookahead")
    model = {name: written[name] for name in (*names, "compute_dtype")} | {
        "sample_rate": written["sampling_rate"],
        "frame_length": 2 * written["hop_length"],
        "strides": tuple(map(tuple, written["strides"])),
        "encoder_channels": tuple(written["encoder_channels"]),
        "decoder_channels": tuple(written["decoder_channels"]),
        "upsampling": "auto",  # of the formulations of one function
    }
    bottleneck = {name: written[name] for name in ("normalize", "gamma", "epsilon")}
    return {"model": model, "bottleneck": bottleneck | {"perturb": written["gamma"] > 0}}


def _representation(written: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(written["representation"])
    del fields[_LATENT_RMS]
    return {"model": fields | {"input_noise": 0.0, "remat": "none"}}  # those are of training


def _generation(written: Mapping[str, Any]) -> dict[str, Any]:
    fields = written["generation"]
    return {
        "model": {**fields["flow_head"], "remat": "none"},
        "sampling": fields["sampling"],
        "text": {"tasks": fields["task_weights"], "max_tokens": fields["max_tokens"]},
        "data": {"crop_frames": fields["crop_frames"]},
    }


def latent_rms(written: Mapping[str, Any]) -> float:
    """By which latents are divided before representations are made of them."""
    return float(written["representation"][_LATENT_RMS])


def geometry(written: Mapping[str, Any]) -> str:
    """What decides beside its weights which latents an encoder makes, as JSON."""
    return json.dumps({name: written[name] for name in _OF_LATENTS})
