# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder as a folder that transformers loads, without JAX.

FOLDER/config.json  preprocessor_config.json    of AutoModel and AutoFeatureExtractor
       model.safetensors                        the averaged weights, under PyTorch's names
       modeling_f3_tokenizer.py                 the module in PyTorch
"""

from collections.abc import Callable
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
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import lineage

_MODULE = "modeling_f3_tokenizer"

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
    weight_files.write(path, torch_weights.tensors(params))
    back = jax.tree.leaves(torch_weights.from_tensors(safetensors_numpy.load_file(path), params))
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
