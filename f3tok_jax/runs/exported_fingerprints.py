# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""fingerprints.json of an exported folder: of its weights, as long as its files are as they were written.

With it a folder says what it is without JAX. Other programs write the files again, of a model that was
trained on in PyTorch: then the weights themselves are read.
"""

from collections.abc import Mapping
import json
import os
import pathlib

from data_pipelines.records import atomic
from data_pipelines.records import sealed
from data_pipelines.records import small_file
from f3tok_jax.runs import language_model_folder as folders

FILE_NAME = "fingerprints.json"

_WRITTEN = (folders.CONFIG_NAME, folders.SINGLE_NAME)


def write(folder: pathlib.Path, prints: Mapping[str, str]) -> None:
    """Writes the fingerprints of what a folder holds now.

    Args:
        folder: of the export, with its config and its weights.
        prints: path -> fingerprint of each array of the autoencoder.
    """
    content = sealed.seal({"sha256": _sums(folder), "fingerprints": dict(prints)})
    atomic.write_text(folder / FILE_NAME, json.dumps(content, indent=1) + "\n")


def read(folder: str | os.PathLike) -> dict[str, str] | None:
    """Path -> fingerprint of each array of the autoencoder.

    Returns:
        None where the folder does not say it, or its config or weights are others than were written.
    """
    path = pathlib.Path(folder, FILE_NAME)
    kinds = {"sha256": dict, "fingerprints": dict}
    try:
        content = sealed.read(small_file.read_bytes(path), str(path), kinds)
        is_same = folders.weight_map(folder) is None and _sums(path.parent) == content["sha256"]
    except (OSError, ValueError):
        return None  # Whoever reads the weights says what is wrong with them.
    return content["fingerprints"] if is_same else None


def _sums(folder: pathlib.Path) -> dict[str, str]:
    return {name: folders.file_digest(folder / name) for name in _WRITTEN}
