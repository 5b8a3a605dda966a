# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run as a folder that transformers loads, without JAX.

FOLDER/config.json  preprocessor_config.json    of AutoModel and AutoFeatureExtractor
       model.safetensors                        the averaged weights, under PyTorch's names
       modeling_f3_tokenizer.py, ...            the modules in PyTorch
       README.md                                what it is, and how it was trained
       fingerprints.json                        of the autoencoder's weights, while the files are these
       heard_sets.json                          the sets of sound that its autoencoder has heard, where known
       tokenizer.json  tokenizer_config.json    of PreTrainedTokenizerFast, where text is read or said
"""

from collections.abc import Callable, Iterable, Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np
from safetensors import numpy as safetensors_numpy

from data_pipelines.reading import tasks
from data_pipelines.records import atomic
from f3tok_jax.exporting import forms
from f3tok_jax.exporting import heard_sets
from f3tok_jax.exporting import model_card
from f3tok_jax.exporting import parts as parts_lib
from f3tok_jax.exporting import storage
from f3tok_jax.pretrained import exported as exported_models
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import exported_fingerprints
from f3tok_jax.runs import lineage

_MODEL = pathlib.Path(__file__).with_name("torch_model")
# Whatever the language model's own class: what it does lies in tokenizer.json.
_TOKENIZER = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def write(
    run: lineage.Lineage,
    folder: str | os.PathLike,
    *,
    answers: bool = True,
    modules: bool = True,
    dtype: str = storage.DTYPES[0],
    also: Iterable[forms.Form] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Writes a run with its averaged weights, and what it builds on.

    Args:
        run: of the autoencoder, the representation or the generation stage.
        folder: to write, a local one that is not there yet; it appears when it is whole.
        answers: whether with what reads representations and answers, if the run has that.
        modules: whether with those in PyTorch; without, f3tok alone uses the folder.
        dtype: of the weights in the file, one of storage.DTYPES. An encoder that it rounds makes latents
            of its own, and so they say.
        also: what writes further forms of its autoencoder.
        say: where messages to the user go: which steps are damaged, and how large it becomes.

    Returns:
        The step that was written.

    Raises:
        ValueError: where the folder is there, the run is of another version or stage, a weight is beyond
            what the dtype holds, or there is no further form of the autoencoder.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    target = atomic.absent(folder)
    parts = parts_lib.load(run, answers=answers, say=say)
    if also and exported_config.is_semantic(parts.config):
        raise ValueError(
            f"--onnx and --stablehlo must be of an autoencoder that streams, got {run.workdir}, which hears "
            "through a semantic encoder: leave them out"
        )
    parts.tensors = storage.stored(parts.tensors, dtype)
    parts.config["step"] = parts.step
    if not modules:
        del parts.config["auto_map"], parts.config["architectures"]
    with atomic.making(target) as root:
        _write_json(root / "config.json", parts.config)
        if modules:
            _write_json(root / "preprocessor_config.json", _describe_sound(parts.config))
            for module in sorted(_MODEL.glob("[!_]*.py")):
                atomic.write_bytes(root / module.name, module.read_bytes())
        if parts.tokenizer:
            tokenizer = pathlib.Path(parts.tokenizer) / tasks.TOKENIZER_NAME
            atomic.write_bytes(root / tokenizer.name, tokenizer.read_bytes())
            if modules:
                _write_json(root / "tokenizer_config.json", _TOKENIZER)
        _write_weights(root / "model.safetensors", parts.tensors)
        chain, stored = model_card.gather(run.at(parts.step)), exported_models.read(str(root))
        if dtype != storage.DTYPES[0]:
            # Whose latents they are is what those who read the folder will find.
            parts.config |= exported.describe(stored, parts.config)
            _write_json(root / "config.json", parts.config)
        exported_fingerprints.write(root, stored.prints)
        for write_form in also:
            write_form(root, parts.autoencoder, parts.config["latents_fingerprint"])
        card = model_card.render(chain, parts.config, parts.tensors)
        atomic.write_text(root / "README.md", card)
        if heard := chain[0].heard:
            heard_sets.write(root, heard, weights=stored.fingerprint)
    say(_sizes(folder, parts.tensors))
    return parts.step


def _sizes(folder: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> str:
    """How large the weights are, and how much of that is for answers alone."""
    own = tuple(f"{part}." for part in exported_config.ANSWERS)
    sizes = {name: array.nbytes / 1e6 for name, array in tensors.items()}
    answers = sum(size for name, size in sizes.items() if name.startswith(own))
    more = f", {answers:.3g} MB of them for answers alone (--without=answers)" if answers else ""
    return f"{folder}: {sum(sizes.values()):.3g} MB of weights{more}"


def _describe_sound(config: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json: transformers' own extractor pads, and says where sound is."""
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": config["sampling_rate"],
    }


def _write_weights(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors and reads the file back: what is there is what was trained."""
    weight_files.write(path, tensors)
    back = safetensors_numpy.load_file(path)
    same = back.keys() == tensors.keys() and all(
        np.array_equal(back[name].view(np.uint8), array.view(np.uint8))
        for name, array in tensors.items()
    )
    if not same:
        raise ValueError(
            f"{path.name} must read back as the weights that were written, got others: give an "
            "--output on another disk"
        )


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    atomic.write_text(path, json.dumps(content, indent=2) + "\n")
