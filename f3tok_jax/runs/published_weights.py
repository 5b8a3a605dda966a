# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that others have published, as files: which they are."""

import hashlib
import os
import pathlib

from f3tok_jax.runs import language_model_folder as folders

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


def fingerprint(place: str | os.PathLike, like: str = "") -> str:
    """Tells some weights from others: "config:... weights:...", 16 digits of each, as far as there are
    files of them.

    Args:
        place: a file of weights, or a folder with some, and perhaps a config.json.
        like: another fingerprint, which is not needed here.
    """
    del like
    place = pathlib.Path(place)
    files = [place] if place.is_file() else sorted(place.iterdir())
    found = {
        "config": [path for path in files if path.name == folders.CONFIG_NAME],
        "weights": [path for path in files if path.suffix in SUFFIXES],
    }
    digits = {
        name: hashlib.sha256("".join(map(folders.file_digest, paths)).encode()).hexdigest()[:16]
        for name, paths in found.items()
        if paths
    }
    return " ".join(f"{name}:{value}" for name, value in digits.items())
