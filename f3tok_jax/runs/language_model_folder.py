# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The Hugging Face folder of a language model: which files it has, and whose they are."""

from collections.abc import Callable
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib

import numpy as np

from data_pipelines.reading import end_of_text
from data_pipelines.reading import remote
from data_pipelines.reading import tasks
from data_pipelines.records import git_lfs
from data_pipelines.records import json_object
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import places as places_lib

CONFIG_NAME = "config.json"
SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

_TO_SAFETENSORS = (
    "write its safetensors with transformers' "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
)
_TO_TOKENIZERS = (
    "write its tokenizer.json with transformers' "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
)
_OTHER_TOKENIZERS = ("tokenizer.model", "vocab.json")
# What stands in folders without safetensors or their index -> what to do about it.
_OTHER_KINDS = {
    "model-*-of-*.safetensors": f"copy their {INDEX_NAME} too",
    "pytorch_model*.bin": _TO_SAFETENSORS,
    "*.gguf": "make it a folder with python -m f3tok_jax.export language_model --gguf=FILE",
}
# Part of a fingerprint -> what it is of.
_PARTS = {"config": CONFIG_NAME, "tokenizer": tasks.TOKENIZER_NAME, "weights": "weights"}


def fingerprint(folder: str | os.PathLike, like: str = "") -> str:
    """Tells one model from another: "config:... tokenizer:... weights:...", 16 digits of each.

    Each is of all bytes: of config.json; of tokenizer.json and of which token ends a text, as the
    files beside it say; of the names and the content of the weight files, about a second per GB and
    core. A file that stays as it is is read once by a process.

    Args:
        folder: of the model.
        like: a fingerprint that this one is to be compared with. Earlier versions' had one part
            alone, of config.json and of places in the weights; then so has this one.

    Raises:
        ValueError: where a file is missing or a Git LFS pointer.
    """
    if like and not parts(like):
        return _sampled(folder)
    paths_of_weights = sorted(paths(folder))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(file_digest, paths_of_weights))
    weights = {path.name: digest for path, digest in zip(paths_of_weights, digests)}
    found = dict(
        config=file_digest(find(folder, CONFIG_NAME)),
        tokenizer=tokenizer_fingerprint(find(folder, tasks.TOKENIZER_NAME)),
        weights=hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest(),
    )
    return " ".join(f"{name}:{digest[:16]}" for name, digest in found.items())


def tokenizer_fingerprint(path: str | os.PathLike) -> str:
    """16 digits of a tokenizer.json and of which token ends a text, as the files beside it say."""
    path = pathlib.Path(path)
    path = path / tasks.TOKENIZER_NAME if path.is_dir() else path
    # What config.json says is of the model, and counts there.
    names = [(name, key) for name, key in end_of_text.KEYS.items() if name != CONFIG_NAME]
    beside = [(path.parent / name, key) for name, key in names]
    ends = [json_object.read(file).get(key) for file, key in beside if file.is_file()]
    said = json.dumps([file_digest(path), ends], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def parts(fingerprint: str) -> dict[str, str]:
    """What a fingerprint is of -> its digits; none for one of an earlier version."""
    found = dict(part.partition(":")[::2] for part in fingerprint.split())
    return found if found.keys() == _PARTS.keys() else {}


def differing(before: str, now: str) -> list[str]:
    """The files by which two fingerprints differ, as far as they tell."""
    one, other = parts(before), parts(now)
    return [_PARTS[name] for name in one if other and one[name] != other[name]]


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, read once as long as it stays the same."""
    stat = path.stat()
    return _digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=4096)
def _digest_of(path: str, *state: int) -> str:
    """SHA-256 of a file, which is another once its `state` is."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sampled(folder: str | os.PathLike) -> str:
    """The fingerprint of earlier versions, as the runs that were begun with one have it."""
    digest = hashlib.sha256(find(folder, CONFIG_NAME).read_bytes())
    for path in sorted(paths(folder)):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with open(path, "rb") as file:
            if size <= 2**26:
                digest.update(file.read())
                continue
            for place in np.linspace(0, size - 2**12, 1025, dtype=np.int64).tolist():
                file.seek(place)
                digest.update(file.read(2**12))
    return digest.hexdigest()[:16]


def local(place: str) -> str:
    """The folder in which a model can be read: of one behind a URL that of its copy on this host.

    Raises:
        ValueError: where the URL leads to no folder, or the index of its weights is none.
        OSError: where it cannot be read, or does not fit on the disk.
        ImportError: naming the package that reads such URLs.
    """
    if not place or not remote.is_remote(place):
        return place
    names = weight_map(remote.folder(place, ["*.json"])) or {SINGLE_NAME: SINGLE_NAME}
    return str(remote.folder(place, {*names.values()}))


def local_tokenizer(place: str) -> str:
    """A tokenizer.json, or the folder with one, in which it can be read; see `local`."""
    if not remote.is_remote(place):
        return place
    folder, _, name = place.rstrip("/").rpartition("/")
    if name.endswith(".json"):
        return str(remote.folder(folder, ["*.json"]) / name)
    return str(remote.folder(place, ["*.json"]))


def find_kept(
    place: str,
    bound: str | None,
    *,
    read: Callable[[str], str],
    print_of: Callable[[str, str], str],
) -> str:
    """The place, if what a run was trained on lies there, to the last bit.

    Args:
        place: of a folder or a file, also behind a URL.
        bound: the fingerprint of what the run was trained on; None for a run that is about to begin.
        read: place -> where what lies there can be read; raises ValueError where it is no such thing.
        print_of: where it can be read, and a fingerprint like which it is to be -> its fingerprint.

    Raises:
        places.Unfit: where something else lies there.
    """
    if bound and not remote.is_remote(place) and not os.path.exists(place):
        raise places_lib.Unfit("nothing")
    path = read(place)
    if bound and (found := print_of(path, bound)) != bound:
        files = differing(bound, found)
        others = f", {' and '.join(files)} differing" if files else ""
        raise places_lib.Unfit(f"{found}{others}")
    return place


def read_model(place: str) -> str:
    """`local`, of what is a model's folder."""
    path = local(place)
    find(path, CONFIG_NAME)
    return path


def read_tokenizer(place: str) -> str:
    """`local_tokenizer`, of what has a tokenizer."""
    path = local_tokenizer(place)
    tasks.read_tokenizer(path)
    return path


def paths(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The files that hold weights: the single one, or those of the index.

    Raises:
        ValueError: where one is not there or a Git LFS pointer, or the index none.
    """
    found = weight_map(folder)
    names = [SINGLE_NAME] if found is None else sorted({*found.values()})
    if found is None and not (pathlib.Path(folder) / SINGLE_NAME).is_file():
        for pattern, remedy in _OTHER_KINDS.items():
            if others := sorted(path.name for path in pathlib.Path(folder).glob(pattern)):
                raise ValueError(
                    f"{folder} must hold {SINGLE_NAME}, or parts with {INDEX_NAME}, got "
                    f"{checkpoint_meta.listed(others)}: {remedy}"
                )
    return [find(folder, name) for name in names]


def find(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a file of a model's folder.

    Raises:
        ValueError: where it is not there or a Git LFS pointer.
    """
    path = pathlib.Path(folder) / name
    if not path.is_file():
        others = (other for other in _OTHER_TOKENIZERS if (path.parent / other).is_file())
        other = next(others, None) if name == "tokenizer.json" else None
        raise ValueError(
            f"{folder} must be a Hugging Face folder of a model, with config.json, {SINGLE_NAME} "
            f"(or its index and parts) and tokenizer.json, got no {name} there"
            + (f" but {other}: {_TO_TOKENIZERS}" if other else "")
        )
    git_lfs.refuse(path)
    return path


def weight_map(folder: str | os.PathLike) -> dict[str, str] | None:
    """Tensor -> file of the index, None where there is none.

    Raises:
        ValueError: where it is no index, or leads out of the folder.
    """
    path = pathlib.Path(folder) / INDEX_NAME
    if not path.is_file():
        return None
    found = json_object.read(path).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path} must have a weight_map of tensors to files")
    for name in found.values():
        # A path could lead to weights that do not move with the folder.
        if not isinstance(name, str) or name in ("", "..") or pathlib.PurePath(name).name != name:
            raise ValueError(f"{path} must name files in its folder, got {name!r:.80}")
    return found
