# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Published weights of semantic encoders: Dasheng's files of torch.save, and safetensors.

Both have the names of Dasheng's package, MiDashengLM's below "audio_encoder.", beside its language
model. Nothing is unpickled.
"""

from collections.abc import Callable, Collection, Mapping
import contextlib
import dataclasses
import os
import pathlib
import re
from typing import Any

import numpy as np

from data_pipelines.records import git_lfs
from data_pipelines.records import json_object
from f3tok_jax.models import semantic_encoder
from f3tok_jax.pretrained import torch_file
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import language_model_folder as folders
from f3tok_jax.runs import published_weights
from f3tok_jax.signal import spectra

_MAX_BYTES = 2**33  # the largest published has 4.5 GB
_PATCH = "patch_embed.proj.weight"  # of which all have one
_FILTERS, _WINDOW = "front_end.0.mel_scale.fb", "front_end.0.spectrogram.window"
_BLOCK = re.compile(r"blocks\.(\d+)\.")
# Beside the weights, and nothing to compute with.
_IGNORED = ("init_bn.1.num_batches_tracked", "init_bn.num_batches_tracked")
# What a config may say of the front end -> what ours has.
_FRONT_END = {
    "sample_rate": 16_000,
    "n_fft": 512,
    "n_mels": 64,
    "f_min": 0,
    "f_max": 8000,
    "center": True,
    "hop_size": 160,
    "hop_length": 160,
    "win_size": 512,
    "win_length": 512,
    "top_db": 120,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stored:
    """Tensors of one encoder, by the names of Dasheng's package."""

    place: str
    names: Collection[str]
    shape: Callable[[str], tuple[int, ...]]
    array: Callable[[str], np.ndarray]
    config: Mapping[str, Any]


def read(
    place: str | os.PathLike, *, compute_dtype: str = "float32", remat: str = "none"
) -> tuple[semantic_encoder.SemanticEncoder, dict[str, Any]]:
    """The module whose weights lie in a place, and its variables.

    Args:
        place: a folder with safetensors, as Hugging Face has them, or with one file of torch.save; or
            either file.
        compute_dtype: of the products.
        remat: one of transformer.REMATS.

    Returns:
        The module, and {"params", "statistics"}: arrays in the host's memory, float32.

    Raises:
        ValueError: where there are no such weights, or some are missing, unknown, of another shape,
            no floats or not finite; where the number of heads is not known; or where they belong to
            another front end.
    """
    with _open(pathlib.Path(place)) as stored:
        model = _module(stored, compute_dtype=compute_dtype, remat=remat)
        _check(stored, model)
        return model, _variables(stored, model)


def make(
    place: str | os.PathLike, *, compute_dtype: str = "float32", remat: str = "none"
) -> semantic_encoder.SemanticEncoder:
    """The module alone; see `read`, which checks the weights, too."""
    with _open(pathlib.Path(place)) as stored:
        return _module(stored, compute_dtype=compute_dtype, remat=remat)


@contextlib.contextmanager
def _open(place: pathlib.Path):
    path = _torch_file_of(place)
    if path is not None:
        git_lfs.refuse(path)
        options = dict(max_bytes=_MAX_BYTES)
        found = torch_file.read(path, **options)
        config = torch_file.read_plain(path, below="config", **options)
        is_nested = any(name.startswith("model/") for name in found)
        tensors = {
            name.removeprefix("model/"): array
            for name, array in found.items()
            if name.startswith("model/" * is_nested)
        }

        def array(name):
            tensor = tensors[name].astype(np.float32)
            weight_files.check_finite(tensor, name, place)
            return tensor

        yield _below_prefix(place, tensors, lambda name: tensors[name].shape, array, config)
        return
    with weight_files.WeightFiles(place) as files:
        described = place / folders.CONFIG_NAME
        config = json_object.read(described) if described.is_file() else {}
        config = config.get("audio_encoder_config", config)
        yield _below_prefix(place, files.names, files.shape, files.whole, config)


def _torch_file_of(place: pathlib.Path) -> pathlib.Path | None:
    """The file of torch.save in a place; None where there are safetensors."""
    if place.is_file():
        return place if place.suffix in published_weights.TORCH_SUFFIXES else None
    if not place.is_dir():
        raise ValueError(
            "the weights of a semantic encoder must be a folder, or a file of safetensors or torch.save, "
            f"got nothing at {place}"
        )
    if any((place / name).is_file() for name in (folders.SINGLE_NAME, folders.INDEX_NAME)):
        return None
    found = sorted(
        path for path in place.iterdir() if path.suffix in published_weights.TORCH_SUFFIXES
    )
    if len(found) != 1:
        got = checkpoint_meta.listed([path.name for path in found]) if found else "neither"
        raise ValueError(
            f"{place} must hold {folders.SINGLE_NAME} (or its index and parts) or one file of torch.save "
            f"({', '.join(published_weights.TORCH_SUFFIXES)}), got {got}"
        )
    return found[0]


def _below_prefix(place, names, shape, array, config: Any) -> _Stored:
    """The tensors below the one prefix under which there is an encoder."""
    prefixes = [name.removesuffix(_PATCH) for name in names if name.endswith(_PATCH)]
    if len(prefixes) != 1:
        got = f"them below {prefixes}" if prefixes else "none"
        raise ValueError(
            f"{place} must hold the weights of one semantic encoder with Dasheng's names, such as {_PATCH}, "
            f"got {got}"
        )
    (prefix,) = prefixes
    return _Stored(
        place=str(place),
        names={name.removeprefix(prefix) for name in names if name.startswith(prefix)},
        shape=lambda name: tuple(shape(prefix + name)),
        array=lambda name: array(prefix + name),
        config=config if isinstance(config, Mapping) else {},
    )


def _module(stored: _Stored, **options: str) -> semantic_encoder.SemanticEncoder:
    """The module of such weights and of what is said of them."""
    for name, wanted in _FRONT_END.items():
        if (found := stored.config.get(name, wanted)) != wanted:
            raise ValueError(
                f"the config of {stored.place} must have {name}={wanted}, which is Dasheng's front end, got "
                f"{found!r}"
            )
    patch, times = stored.shape(_PATCH), "time_pos_embed"
    own = semantic_encoder.SemanticEncoder(num_layers=1, width=1, num_heads=1)
    if len(patch) != 4 or patch[1:] != (1, own.num_mels, own.patch_frames):
        raise ValueError(
            f"the tensor {_PATCH} in {stored.place} must be of patches [width, 1, {own.num_mels}, "
            f"{own.patch_frames}], got {patch}"
        )
    layers = {int(found[1]) for found in map(_BLOCK.match, stored.names) if found}
    width, num_layers = patch[0], max(1, len(layers))
    places = stored.shape(times)[-1:] if times in stored.names else ()
    num_heads = stored.config.get("num_heads")
    num_heads = num_heads or semantic_encoder.PUBLISHED_HEADS.get((width, num_layers))
    if not isinstance(num_heads, int) or num_heads < 1 or width % num_heads:
        raise ValueError(
            f"the config of {stored.place} must say num_heads, a divisor of the width {width}, as no tensor "
            f"of {num_layers} layers does, got {num_heads}"
        )
    return own.clone(
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        max_patches=places[0] if places else own.max_patches,
        **options,
    )


def _norm_name(stored: _Stored) -> str:
    return "init_bn.1." if "init_bn.1.weight" in stored.names else "init_bn."


def _shapes(stored: _Stored, model: semantic_encoder.SemanticEncoder) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a module is made of."""
    width, norm, hidden = model.width, _norm_name(stored), 4 * model.width
    shapes = {
        _PATCH: (width, 1, model.num_mels, model.patch_frames),
        "patch_embed.proj.bias": (width,),
        "time_pos_embed": (1, width, 1, model.max_patches),
        "freq_pos_embed": (1, width, 1, 1),
        **{f"norm.{kind}": (width,) for kind in ("weight", "bias")},
    }
    shapes |= {
        norm + kind: (model.num_mels,) for kind in ("weight", "bias", "running_mean", "running_var")
    }
    dense = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    dense |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    for layer in range(model.num_layers):
        for name, shape in dense.items():
            shapes |= {
                f"blocks.{layer}.{name}.weight": shape,
                f"blocks.{layer}.{name}.bias": shape[:1],
            }
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{layer}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    return shapes


def _check(stored: _Stored, model: semantic_encoder.SemanticEncoder) -> None:
    """Refuses tensors that are not those of the module, and buffers of another front end."""
    shapes = _shapes(stored, model)
    of = f"a semantic encoder of width {model.width} and {model.num_layers} layers"
    beside = {*_IGNORED, _FILTERS, _WINDOW}
    for problem, names in (
        ("lack", shapes.keys() - stored.names),
        ("have beyond them", stored.names - shapes.keys() - beside),
    ):
        if names:
            raise ValueError(
                f"the weights in {stored.place} must be those of {of}, they {problem} "
                f"{checkpoint_meta.listed(sorted(names))}"
            )
    for name, shape in shapes.items():
        if stored.shape(name) != shape:
            raise ValueError(
                f"the tensor {name} in {stored.place} must be of shape {shape}, which {of} has, got "
                f"{stored.shape(name)}"
            )
    filters = spectra.mel_filterbank(
        model.sample_rate, model.frame_length, model.num_mels, unit_area=False, scale="htk"
    )
    for name, wanted in ((_FILTERS, filters), (_WINDOW, spectra.hann_window(model.frame_length))):
        if name not in stored.names:
            continue
        found = stored.array(name)
        if found.shape != wanted.shape or not np.allclose(found, wanted, atol=1e-3):
            raise ValueError(
                f"the tensor {name} in {stored.place} must be that of Dasheng's front end "
                f"({model.sample_rate} Hz, {model.num_mels} HTK mels of {model.frame_length} samples), "
                "got other values"
            )


def _variables(stored: _Stored, model: semantic_encoder.SemanticEncoder) -> dict[str, Any]:
    """The tensors in the layout of the module."""
    array, norm, width = stored.array, _norm_name(stored), model.width

    def stacked(name: str) -> np.ndarray:
        parts = [array(f"blocks.{layer}.{name}") for layer in range(model.num_layers)]
        return np.stack([part.T for part in parts])  # of vectors it changes nothing

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": stacked(f"{name}.weight"), "bias": stacked(f"{name}.bias")}

    def scaled(name: str) -> dict[str, np.ndarray]:
        return {"scale": stacked(f"{name}.weight"), "bias": stacked(f"{name}.bias")}

    joint = dense("attn.qkv")
    heads = {
        name: {kind: part[..., width * i : width * (i + 1)] for kind, part in joint.items()}
        for i, name in enumerate(("query", "key", "value"))
    }
    layers = {
        "attention_norm": scaled("norm1"),
        "attention": heads | {"output": dense("attn.proj")},
        "feed_forward_norm": scaled("norm2"),
        "feed_forward": {"up": dense("mlp.fc1"), "down": dense("mlp.fc2")},
    }
    params = {
        "scale": array(f"{norm}weight"),
        "bias": array(f"{norm}bias"),
        "patch": {
            "kernel": array(_PATCH).reshape(width, -1).T,
            "bias": array("patch_embed.proj.bias"),
        },
        "time_positions": array("time_pos_embed")[0, :, 0].T,
        "frequency_position": array("freq_pos_embed").reshape(width),
        "transformer": {
            "layers": layers,
            "final_norm": {"scale": array("norm.weight"), "bias": array("norm.bias")},
        },
    }
    measured = {"mean": array(f"{norm}running_mean"), "variance": array(f"{norm}running_var")}
    return {"params": params, semantic_encoder.STATISTICS: measured}
