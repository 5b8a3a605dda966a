# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""config.json of an exported folder: what it says, as configs of the runs that it was of.

Other programs write that file again: transformers, of a model that was trained on in PyTorch. Known
without JAX.
"""

from collections.abc import Mapping, Sequence
import itertools
import json
import os
import pathlib
from typing import Any

import ml_collections

from data_pipelines.records import json_object
from f3tok_jax.runs import sound as sound_lib

MODEL_TYPE = "f3_tokenizer"
FORMAT = "f3tok export 3"  # another for other names, layouts or meanings
# The first knew nothing that answers, both no level: they heard sound as it came.
_READ = ("f3tok export 1", "f3tok export 2", FORMAT)

# Stage -> the parts of a model that its run has trained; a part's tensors begin with its name.
PARTS = {
    "autoencoder": ("encoder", "decoder"),
    "representation": ("representation_encoder",),
    "generation": ("projector", "flow_head", "language_model"),
}
# What reads representations and answers. The language model is generation's where that is the same one,
# and the head is the table where the language model has none of its own.
ANSWERS = ("answer_projector", "answer_language_model", "answer_head")
# Of the encoder that hears through a semantic encoder, whose tensors are those of up to three runs.
_PIECES = ("acoustic", "acoustic_output", "output", "semantic_bottleneck", "semantic_encoder")
# One more of a generation run that has trained an encoder of its own.
_KNOWN = (*sum(PARTS.values(), ()), "generation_encoder", *ANSWERS)

# Kind of bottleneck, where it is another than F3's -> its fields that noise depends on, above 0 or 0.
NOISE = {"kl_vae": ("logvar_clip",), "sigma_vae": ("noise_std",), "soft_norm": ("noise_ratio",)}

_FILE_NAME = "config.json"

# What a value must be: a range of whole numbers, other numbers, names, a type, or a section. Sizes beyond
# these are mistakes, and their memory would be asked for before a weight is looked at.
_ABOVE_0, _AT_LEAST_0, _AT_MOST_0, _NAMES = "above 0", "at least 0", "at most 0", "names"
_SIZE, _LAYERS, _FRAME = range(1, 2**24), range(1, 2**12), range(1, 2**13)
_TRANSFORMER = {
    "num_layers": _LAYERS,
    **dict.fromkeys(("width", "hidden_width", "num_heads", "num_kv_heads"), _SIZE),
    "head_dim": range(1, 2**11 + 1),
    **dict.fromkeys(("rope_theta", "norm_epsilon"), _ABOVE_0),
    "qk_norm": bool,
    "compute_dtype": str,
}
_MODEL = {
    "parts": _NAMES,
    "step": range(2**62),
    **dict.fromkeys(("latents_fingerprint", "encoder_fingerprint", "compute_dtype"), str),
    **dict.fromkeys(("sampling_rate", "latent_dim"), _SIZE),
    "normalize": bool,
    "epsilon": _ABOVE_0,
    "gamma": _AT_LEAST_0,
    "level_db": _AT_MOST_0,
}
# Of an autoencoder that streams.
_CAUSAL = {
    **dict.fromkeys(("hop_length", "fold"), _SIZE),
    **dict.fromkeys(("strides", "encoder_channels", "decoder_channels"), list),
    "compression": _ABOVE_0,
    "decoder_lookahead": range(2**12),
}
# Of one that hears through a semantic encoder, too: what the modules have as fields.
SEMANTIC_AUTOENCODER = {
    **dict.fromkeys(("frame_length", "num_mels", "patch_frames"), _FRAME),
    **dict.fromkeys(("hop_length", "feature_dim", "bottleneck_dim"), _SIZE),
    **dict.fromkeys(("mel_floor", "feature_rate"), _ABOVE_0),
    "fusion": str,
    **dict.fromkeys(("decoder_width", "decoder_hidden_width"), _SIZE),
    "decoder_blocks": range(1, 2**8),
    **dict.fromkeys(("decoder_frame_length", "decoder_hop_length"), _FRAME),
}
SEMANTIC_ENCODER = {
    "num_layers": _LAYERS,
    **dict.fromkeys(("width", "num_heads", "sample_rate", "hop_length", "max_patches"), _SIZE),
    **dict.fromkeys(("frame_length", "num_mels", "patch_frames"), _FRAME),
    "compute_dtype": str,
}
ORIGIN = "origin"  # whose weights that has, in words
_SECTIONS = {
    "autoencoder": {},
    "representation": {
        "representation": _TRANSFORMER | {"window": range(2**20), "latent_rms": _ABOVE_0}
    },
    "generation": {
        "generation": {
            "patch": range(1, 2**12),
            "projector": str,
            "embedding_rms": _ABOVE_0,
            "has_own_encoder": bool,
            "compute_dtype": str,
            "flow_head": _TRANSFORMER
            | {"history": range(2**10), "row": range(2**16), "use_token": bool},
            "language_model": dict,
            "sampling": {
                "num_steps": range(1, 2**14),
                "solver": str,
                "renormalize": bool,
                **dict.fromkeys(("guidance", "temperature"), _AT_LEAST_0),
            },
            "task_weights": dict,
            "max_tokens": range(2, 2**20),
            "crop_frames": _SIZE,
        }
    },
}
_ANSWERS = {
    "answers": {
        "patch": range(1, 2**12),
        **dict.fromkeys(("projector", "compute_dtype"), str),
        "embedding_rms": _ABOVE_0,
        "has_own_language_model": bool,
        "language_model": dict,
        "task_weights": dict,
        "max_tokens": range(2, 2**20),
    }
}
# What decides, with its weights, which latents an encoder makes: of one that streams, and of the other.
_OF_LATENTS = (
    *("sampling_rate", "hop_length", "fold", "strides", "encoder_channels"),
    *("compression", "latent_dim", "normalize", "epsilon"),
)
_OF_SEMANTIC_LATENTS = ("sampling_rate", "latent_dim", "normalize", "epsilon")
# What config.json says of a bottleneck that is another than F3's, and the kind where it says nothing.
_BOTTLENECK, _F3 = "bottleneck", "f3"
# What losses alone read of a bottleneck, which no folder says: nothing is asked of latents in use.
_OF_LOSSES = {
    "kl_vae": {"weight": 0.0, "half": True, "free_nats": 0.0},
    "sigma_vae": {"weight": 0.0},
    "soft_norm": {"weight": 0.0, "channels_weight": 0.0, "min_variance": 1e-4},
}
_SEMANTIC = sound_lib.SEMANTIC  # what it says of an autoencoder of that family
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
    if (version := found.get("format")) not in _READ:
        raise ValueError(
            f"{path} must be of the format {FORMAT!r}, or of one before, got {version!r:.80}: export the "
            "run again, or use the version of f3tok_jax that wrote it"
        )
    if version != FORMAT:
        found.setdefault("level_db", 0.0)
    _check(found, _MODEL, path)
    fields = SEMANTIC_AUTOENCODER | {"semantic_encoder": SEMANTIC_ENCODER | {ORIGIN: str}}
    _check(found, {_SEMANTIC: fields} if is_semantic(found) else _CAUSAL, path)
    _check_bottleneck(found, path)
    parts = found["parts"]
    held = stages(found)
    partial = [
        stage for stage, own in PARTS.items() if stage not in held and not {*own}.isdisjoint(parts)
    ]
    if not held or partial or not set(parts) <= set(_KNOWN):
        first = " and ".join(PARTS["autoencoder"])
        raise ValueError(
            f"{path} must be of a model with {first}, and all parts of a later stage with those before, "
            f"of {', '.join(_KNOWN)}, got the parts {parts!r:.200}: save it with all its parts"
        )
    for stage in held:
        _check(found, _SECTIONS[stage], path)
    if not {*ANSWERS}.isdisjoint(parts):
        _check_answers(found, held, path)
    return found


def _check_bottleneck(found: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises ValueError for a bottleneck that there is none of, or that is not described."""
    if (section := found.get(_BOTTLENECK)) is None:
        return
    kind = section.get("kind") if isinstance(section, dict) else None
    if not isinstance(kind, str) or kind not in NOISE:
        raise _wrong(path, _BOTTLENECK, section)
    _check(section, dict.fromkeys(NOISE[kind], _AT_LEAST_0), path, f"{_BOTTLENECK}.")
    if found["normalize"]:
        raise _wrong(path, "normalize", True)


def _check_answers(found: Mapping[str, Any], held: Sequence[str], path: pathlib.Path) -> None:
    """Raises ValueError where parts that answer are not all there, or not described."""
    _check(found, _ANSWERS, path)
    wanted = answering_parts(found)
    if "representation" not in held or not {*wanted} <= {*found["parts"]}:
        raise ValueError(
            f"{path} must be of a model with all that answers, representation_encoder, "
            f"{', '.join(wanted)}, or with none of {', '.join(ANSWERS)}, got the parts "
            f"{found['parts']!r:.200}: save it with all its parts"
        )


def is_semantic(written: Mapping[str, Any]) -> bool:
    """Whether the autoencoder of a folder hears through a semantic encoder, too."""
    return written.get(_SEMANTIC) is not None


def origin_of_semantic_encoder(written: Mapping[str, Any]) -> str:
    """Whose weights the semantic encoder of such a folder has, in words."""
    return written[_SEMANTIC]["semantic_encoder"][ORIGIN]


def pieces(written: Mapping[str, Any]) -> list[str]:
    """How the names of tensors begin, up to a dot, that belong together: the parts, or what they are of."""
    encoder, found = PARTS["autoencoder"][0], []
    for part in written["parts"]:
        is_several = part == encoder and is_semantic(written)
        found += [f"{part}.{piece}" for piece in _PIECES] if is_several else [part]
    return found


def answers(written: Mapping[str, Any]) -> bool:
    """Whether a folder holds what reads representations and answers in text."""
    return ANSWERS[0] in written["parts"]


def answering_parts(written: Mapping[str, Any]) -> tuple[str, ...]:
    """What reads representations and answers, in a folder that holds it: the projector, the language
    model, and its head where it has one."""
    projector, own, head = ANSWERS
    fields = written["answers"]
    language_model = own if fields["has_own_language_model"] else PARTS["generation"][-1]
    is_tied = fields["language_model"].get("tie_word_embeddings")
    return (projector, language_model) if is_tied else (projector, language_model, head)


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any], path: pathlib.Path, of: str = ""):
    """Raises ValueError for the first value that is none of what it must be."""
    for name, kind in wanted.items():
        value, key = found.get(name), of + name
        if isinstance(kind, Mapping):
            if not isinstance(value, dict):
                raise _wrong(path, key, value)
            _check(value, kind, path, f"{key}.")
        elif not _is(value, kind):
            raise _wrong(path, key, value)


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, range):
        return type(value) is int and value in kind
    if kind in (_ABOVE_0, _AT_LEAST_0, _AT_MOST_0):
        is_number = type(value) in (int, float) and abs(value) < 1e30
        if not is_number or not value:
            return is_number and kind != _ABOVE_0
        return (value < 0) == (kind == _AT_MOST_0)
    if kind == _NAMES:
        return type(value) is list and all(type(one) is str for one in value)
    return type(value) is kind


def _wrong(path: pathlib.Path, name: str, value: Any) -> ValueError:
    return ValueError(
        f"{path} must say the {name} of the model as it was exported, got {value!r:.80}: export the "
        "run again"
    )


def stages(written: Mapping[str, Any]) -> Sequence[str]:
    """The stages whose runs a folder holds, from the first on."""
    parts = written.get("parts")
    found = [one for one in parts if isinstance(one, str)] if isinstance(parts, list) else ()
    return [*itertools.takewhile(lambda stage: set(PARTS[stage]) <= set(found), PARTS)]


def config_of(written: Mapping[str, Any], stage: str) -> ml_collections.ConfigDict:
    """The config of a run that a folder holds, as far as others read it."""
    make = dict(autoencoder=_autoencoder, representation=_representation, generation=_generation)
    return ml_collections.ConfigDict({"stage": stage, **make[stage](written)})


def _autoencoder(written: Mapping[str, Any]) -> dict[str, Any]:
    found = _semantic(written) if is_semantic(written) else _causal(written)
    names = ("latent_dim", "level_db", "compute_dtype")
    found["model"] |= {name: written[name] for name in names}
    found["model"]["sample_rate"] = written["sampling_rate"]
    return found | {"bottleneck": _bottleneck(written)}


def _causal(written: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an autoencoder that streams, as far as it is of that kind alone."""
    names = ("hop_length", "fold", "compression", "decoder_lookahead")
    model = {name: written[name] for name in names} | {
        "frame_length": 2 * written["hop_length"],
        "strides": tuple(map(tuple, written["strides"])),
        "encoder_channels": tuple(written["encoder_channels"]),
        "decoder_channels": tuple(written["decoder_channels"]),
        "upsampling": "auto",  # of the formulations of one function
    }
    return {"model": model}


def _semantic(written: Mapping[str, Any]) -> dict[str, Any]:
    """The same of one that hears through a semantic encoder: its frozen models lie in the folder, and
    are named as recipes."""
    fields = written[_SEMANTIC]
    encoder = {name: fields["semantic_encoder"][name] for name in SEMANTIC_ENCODER}
    nowhere = {"workdir": "", "step": 0}
    found = {
        "family": _SEMANTIC,
        "model": {name: fields[name] for name in SEMANTIC_AUTOENCODER},
        "semantic_encoder": {
            **nowhere,
            "folder": "",
            "recipe": {"model": encoder},
            "compute_dtype": encoder["compute_dtype"],
        },
    }
    if fields["fusion"] == "latents":
        sizes = {"hidden_dim": fields["bottleneck_dim"], "latent_dim": written["latent_dim"]}
        found["semantic_bottleneck"] = {**nowhere, "recipe": {"model": sizes}}
    return found


def _bottleneck(written: Mapping[str, Any]) -> dict[str, Any]:
    bottleneck = {name: written[name] for name in ("normalize", "gamma", "epsilon")}
    bottleneck |= {"kind": _kind(written), "perturb": written["gamma"] > 0}
    if (kind := bottleneck["kind"]) != _F3:
        bottleneck[kind] = _OF_LOSSES[kind] | {
            name: written[_BOTTLENECK][name] for name in NOISE[kind]
        }
    return bottleneck


def _kind(written: Mapping[str, Any]) -> str:
    """Of bottleneck: F3's says nothing, or that there is no other."""
    return written[_BOTTLENECK]["kind"] if written.get(_BOTTLENECK) else _F3


def _representation(written: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(written["representation"])
    del fields[_LATENT_RMS]
    model = fields | {"input_noise": 0.0, "remat": "none"}  # those are of training
    return {"model": model, "supervision": _supervision(written)}


def _supervision(written: Mapping[str, Any]) -> dict[str, Any]:
    """By what reads representations; of no weight where it is not there."""
    if not answers(written):
        return {"weight": 0.0}
    fields = written["answers"]
    names = ("patch", "projector", "max_tokens")
    return {name: fields[name] for name in names} | {
        "weight": 1.0,
        "tasks": fields["task_weights"],
    }


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
    names, more = _OF_LATENTS, {}
    if is_semantic(written):
        fields, names = written[_SEMANTIC], _OF_SEMANTIC_LATENTS
        more = {
            name: fields[name] for name in SEMANTIC_AUTOENCODER if not name.startswith("decoder")
        }
        encoder = fields["semantic_encoder"]
        more["semantic_encoder"] = [
            encoder[name] for name in SEMANTIC_ENCODER if name != "compute_dtype"
        ]
    # A level only where there is one: what was written without has the fingerprints that it had.
    names = (*names, "level_db") if written["level_db"] else names
    # So, too, another bottleneck than F3's.
    kind = {} if _kind(written) == _F3 else {_BOTTLENECK: _kind(written)}
    return json.dumps({name: written[name] for name in names} | kind | more)
