# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder as a folder that transformers loads, without JAX.

FOLDER/config.json  preprocessor_config.json    of AutoModel and AutoFeatureExtractor
       model.safetensors                        the averaged weights, under PyTorch's names
       modeling_f3_tokenizer.py                 the module in PyTorch
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from data_pipelines.records import atomic
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import lineage

_MODULE = "modeling_f3_tokenizer"
_OUTPUTS_FIRST = (3, 2, 0, 1)  # [time, frequency, in, out] -> [out, in, time, frequency]
_INPUTS_FIRST = (2, 3, 0, 1)  # of transposed convolutions

# Of the module in JAX and of the config alike.
_FIELDS = (
    *("hop_length", "fold", "strides", "encoder_channels", "decoder_channels"),
    *("compression", "latent_dim", "decoder_lookahead"),
)


def write(
    run: lineage.Lineage, folder: str | os.PathLike, *, say: Callable[[str], None] = print
) -> int:
    """Writes the autoencoder of a run with its averaged weights.

    Args:
        run: of the autoencoder stage.
        folder: to write, a local one that is not there yet; it appears when it is whole.
        say: where messages to the user go: which steps are damaged.

    Returns:
        The step that was written.

    Raises:
        ValueError: where the folder is there, or the run is of another version.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    target = atomic.absent(folder)
    autoencoder, params, run = pretrained_autoencoder.load(run, say=say)
    config = describe(autoencoder) | {"latents_fingerprint": run.latents_fingerprint}
    with atomic.making(target) as root:
        for name, content in (
            ("config.json", config),
            ("preprocessor_config.json", _describe_sound(autoencoder)),
        ):
            atomic.write_text(root / name, json.dumps(content, indent=2) + "\n")
        module = pathlib.Path(__file__).with_name(f"{_MODULE}.py")
        atomic.write_bytes(root / module.name, module.read_bytes())
        _write_weights(root / "model.safetensors", params)
    return run.step


def _write_weights(path: pathlib.Path, params: Any) -> None:
    """Writes parameters and reads the file back: what is there is what was trained."""
    weight_files.write(path, tensors(params))
    back = jax.tree.leaves(from_tensors(safetensors_numpy.load_file(path), params))
    pairs = zip(back, jax.tree.leaves(params), strict=True)
    if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
        raise ValueError(
            f"{path.name} must read back as the weights that were written, got others: give an "
            "--output on another disk"
        )


def describe(autoencoder: autoencoder_lib.Autoencoder) -> dict[str, Any]:
    """config.json of an autoencoder."""
    return {
        "model_type": "f3_tokenizer",
        "architectures": ["F3TokenizerModel"],
        "auto_map": {
            "AutoConfig": f"{_MODULE}.F3TokenizerConfig",
            "AutoModel": f"{_MODULE}.F3TokenizerModel",
        },
        "dtype": "float32",
        "sampling_rate": autoencoder.sample_rate,
        **{name: getattr(autoencoder, name) for name in _FIELDS},
        "normalize": autoencoder.bottleneck.normalize,
        "epsilon": autoencoder.bottleneck.epsilon,
    }


def _describe_sound(autoencoder: autoencoder_lib.Autoencoder) -> dict[str, Any]:
    """preprocessor_config.json: transformers' own extractor pads, and says where sound is."""
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": autoencoder.sample_rate,
    }


def tensors(params: Any) -> dict[str, np.ndarray]:
    """An autoencoder's parameters under PyTorch's names and in its layout, float32."""
    leaves = zip(fingerprints.paths(params), jax.tree.leaves(params))
    return {
        _name(path): np.ascontiguousarray(np.asarray(leaf, np.float32).transpose(_axes(path, leaf)))
        for path, leaf in leaves
    }


def from_tensors(tensors: Mapping[str, np.ndarray], like: Any) -> Any:
    """The reverse of `tensors`: parameters of the structure `like`, bit for bit.

    Raises:
        ValueError: where a tensor is missing, too many, or of another shape.
    """
    paths, leaves = fingerprints.paths(like), jax.tree.leaves(like)
    names = [_name(path) for path in paths]
    if set(names) != set(tensors):
        missing, other = sorted(set(names) - set(tensors)), sorted(set(tensors) - set(names))
        raise ValueError(f"the weights must be of this autoencoder, got none of {missing}, {other}")
    found = []
    for path, name, leaf in zip(paths, names, leaves, strict=True):
        array = np.asarray(tensors[name]).transpose(np.argsort(_axes(path, leaf)))
        if array.shape != leaf.shape:
            raise ValueError(f"{name} must be of shape {leaf.shape} in JAX, got {array.shape}")
        found.append(array)
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _name(path: str) -> str:
    """decoder/stage_0/shortcut_layer/shortcut/kernel -> decoder.stages.0.shortcut.weight."""
    names = {"shortcut_layer": None, "kernel": "weight"}
    parts = (names.get(part, part.replace("stage_", "stages.")) for part in path.split("/"))
    return ".".join(filter(None, parts))


def _axes(path: str, leaf: Any) -> tuple[int, ...]:
    if leaf.ndim < 4:  # biases, and matrices [in, out]
        return tuple(reversed(range(leaf.ndim)))
    return _INPUTS_FIRST if path.split("/")[-2] == "up" else _OUTPUTS_FIRST
