# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration: read from a recipe and overrides, checked, described, kept in the run folder."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import difflib
import hashlib
import json
import os
import pathlib
import sys
import types
from typing import Any

from absl import flags
from etils import epath
import ml_collections
from ml_collections import config_flags

from data_pipelines.records import atomic
from data_pipelines.records import sealed
from data_pipelines.records import small_file

_FILE_NAME = "config.json"
_PACKAGE = "configs"  # of recipes

# What a resumed run may change: these decide when it ends, what it reports, where it lives and how fast
# it is, not which numbers it computes, but for their rounding. A name covers all keys below it. What is
# measured before the first step is kept by the run: how much was heard for it decides nothing later. So
# do the places of frozen models, which are held to the run by their fingerprints wherever they lie, and
# what stands for a model that has no place, which a run never has.
RESUMABLE = (
    *("num_steps", "loop", "checkpoint", "mesh", "compiler", "preset"),
    *("data.max_lost", "rq.statistics_frames", "mel_norm.statistics_seconds"),
)
_PLACES = ("workdir", "step", "folder", "recipe")
# So are these (folder.check_began_with), where the run has them at all.
_DATA = ("data.train", "data.heldout", "tokenizer", "init_from.workdir", "init_from.step")
_MAX_DEPTH = 20  # of sections; what lies deeper is a value


def read(recipe: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Returns the config of a recipe file with overrides applied.

    Args:
        recipe: "configs/autoencoder.py:tiny"; without ":preset" the recipe's default.
        overrides: "--config.key=value" arguments, in the order given.

    Raises:
        ValueError: for a file, preset or key that does not exist, or a value of another type.
    """
    path, _, preset = recipe.partition(":")
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"--config must be FILE.py or FILE.py:PRESET, got {recipe!r}: there is no file "
            f"{path!r} (from {os.getcwd()})"
        )
    plain = _parse([f"--config={recipe}"], source=path)
    keys = list(flatten(plain))
    for argument in overrides:
        name = argument.split("=", 1)[0].split(".", 1)[-1]
        if name not in keys:
            raise ValueError(_unknown_key(name, keys, path, preset))
    return _parse([f"--config={recipe}", *overrides], source=path)


def _unknown_key(name: str, keys: Sequence[str], path: str, preset: str) -> str:
    """Says which key was meant."""
    below = [key for key in keys if key.startswith(name + ".")]
    if below:
        ways = [f"--config.{key}" for key in below[:4]] + ["..."] * (len(below) > 4)
        return (
            f"--config.{name} is a section of {path}, not a value; set its keys one by one: "
            f"{', '.join(ways)}"
        )
    last = name.rsplit(".", 1)[-1]
    nearest = difflib.get_close_matches(name, keys, n=1, cutoff=0.0)
    same_leaf = [key for key in keys if key.rsplit(".", 1)[-1] == last]
    where = path + (f":{preset}" if preset else "")
    return (
        f"--config.{name} must name a key of {where}, which has none of that name; did you mean "
        f"--config.{(same_leaf or nearest)[0]}?"
    )


def _parse(arguments: Sequence[str], *, source: str) -> ml_collections.ConfigDict:
    """Runs ml_collections' own flag parser, with its errors put into one sentence."""
    values = flags.FlagValues()
    argv = ["config", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv, lock_config=True)
    try:
        with _neighbours_of(source):
            values(argv)
        return values["config"].value
    except (flags.Error, ImportError, SyntaxError, TypeError, ValueError, IOError) as error:
        # The parser puts the recipe's whole traceback into its message; the last line is the cause.
        cause = str(error).strip().splitlines()[-1]
        given = " ".join(arguments)
        raise ValueError(f"the config of {source} cannot be made from {given}: {cause}") from error


@contextlib.contextmanager
def _neighbours_of(recipe: str) -> Iterator[None]:
    """Makes `configs` the folder of a recipe that lies in a package of that name.

    Recipes import their neighbours by it, and in the user's folder there may be another.
    """
    folder = pathlib.Path(recipe).resolve().parent
    if folder.name != _PACKAGE or not (folder / "__init__.py").is_file():
        yield
        return
    before = _take_package()
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[_PACKAGE] = package
    try:
        yield
    finally:
        _take_package()
        sys.modules.update(before)


def _take_package() -> dict[str, types.ModuleType]:
    """Removes what is imported as `configs`, and returns it."""
    names = [name for name in sys.modules if name.split(".")[0] == _PACKAGE]
    return {name: sys.modules.pop(name) for name in names}


def flatten(config: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Returns dotted key -> value for every value of a config."""
    flat = {}
    for key in config:
        value = config[key]
        if isinstance(value, (ml_collections.ConfigDict, Mapping)) and depth < _MAX_DEPTH:
            flat |= flatten(value, f"{prefix}{key}.", depth + 1)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def to_json(config: ml_collections.ConfigDict) -> str:
    """Returns the config as JSON, keys sorted, tuples as lists."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _of(values: Any) -> ml_collections.ConfigDict:
    """The config of JSON that `to_json` wrote; lists become tuples, as recipes have no lists."""
    values = _tuples(values)
    if not isinstance(values, dict) or not isinstance(values.get("stage"), str):
        raise ValueError("it names no stage")
    config = ml_collections.ConfigDict(values)
    config.lock()
    return config


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def hash_of(config: ml_collections.ConfigDict) -> str:
    """Returns a short hash of every key and value."""
    return hashlib.sha256(to_json(config).encode("utf-8")).hexdigest()[:16]


def save(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes config.json into a run folder, sealed, whole or not at all."""
    content = sealed.seal(json.loads(to_json(config)))
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    atomic.write_text(epath.Path(workdir) / _FILE_NAME, text)


def exists(workdir: str) -> bool:
    """Returns whether a folder is a run folder."""
    return _file(workdir).exists()


def _file(workdir: str) -> epath.Path:
    """The config.json of a folder, local or of a bucket that can be read."""
    try:
        return epath.Path(workdir) / _FILE_NAME
    except KeyError:
        raise ValueError(
            f"{workdir} must be a folder of a disk or of a bucket (gs://, s3://), got a place of "
            "another kind: copy it to a disk"
        ) from None


def load(workdir: str) -> ml_collections.ConfigDict:
    """Returns the config of a run.

    Raises:
        ValueError: where the folder is not a run folder, or its file is damaged.
    """
    path = _file(workdir)
    if not path.exists():
        raise ValueError(
            f"{workdir} must be the work folder of a run, got a folder without {_FILE_NAME}; "
            "give the --workdir that train was given"
        )
    try:
        values = json.loads(small_file.read_text(path))
        if isinstance(values, dict) and "model_type" in values and "stage" not in values:
            raise ValueError("it is of a model in Hugging Face's format: give the run itself")
        return _of(sealed.opened(values, "it") if isinstance(values, dict) else values)
    except sealed.Broken as error:
        raise ValueError(
            f"{path} must be as train wrote it, got a file that was changed or damaged since: copy "
            "it from where it is whole; what a run may change, train changes by its flags"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} must be the JSON that train wrote, got another or a damaged file: {error}"
        ) from error


@contextlib.contextmanager
def values_of(workdir: str) -> Iterator[None]:
    """To be held while models are made of the config of a run that anybody may have written.

    Args:
        workdir: of the run; "" for one that is about to begin.

    Raises:
        ValueError: in the context, for values of other kinds or sizes than a model can be made of.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what, remedy = f"{workdir}/{_FILE_NAME}", "copy it from where the run was trained"
        if not workdir:
            what, remedy = "the config", "change what --config and its flags give"
        raise ValueError(
            f"{what} must have values of which a model can be made, got others: {reason:.300}; "
            f"{remedy}"
        ) from error


def check_same_run(config: ml_collections.ConfigDict, workdir: str) -> list[str]:
    """Refuses a run folder whose config differs in more than what a resumed run may change.

    Returns:
        The keys of data that lies in another place than the folder's config says.

    Raises:
        ValueError: naming each key with the folder's value and the new one.
    """
    there = load(workdir)
    check_goes_on(there, f"{workdir} holds a run")
    listed, moved = _differences(there, config)
    if listed:
        raise ValueError(
            f"{workdir} holds a run of another config: {listed}; use another --workdir, or give "
            "the config it was started with"
        )
    return moved


def check_goes_on(config: ml_collections.ConfigDict, what: str) -> None:
    """Refuses to train on by the config of an earlier version, whose optimizers have other states.

    Args:
        config: of a run.
        what: the beginning of the sentence.

    Raises:
        ValueError: saying what can be done with the run.
    """
    if "decays" not in config:
        raise ValueError(
            f"{what} of an earlier version of f3tok_jax, whose config says neither what decays nor "
            "what learns when: its weights can be used, and begun with (config.init_from.workdir); "
            "to go on with it, use the version that its logs/environment.json names"
        )


def check_kept(config: ml_collections.ConfigDict, kept: Mapping[str, Any], workdir: str) -> None:
    """Refuses a config that is not that of the states in the run's folder.

    Args:
        config: of the run.
        kept: the config that is kept beside a state, of JSON.
        workdir: of the run.

    Raises:
        ValueError: naming each key with the value of the state and the config's.
    """
    with values_of(workdir):
        listed = differing(kept, config.to_dict())
    if listed:
        raise ValueError(
            f"{workdir} must have in {_FILE_NAME} what its checkpoints were trained with, got "
            f"another config: {listed}; copy that file from where the run was trained"
        )


def differing(kept: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Lists what a run has otherwise than a state that it may go on from; "" for nothing.

    Args:
        kept: config that is kept beside the state, of JSON.
        now: config of the run, likewise.
    """
    return _differences(_tuples(kept), ml_collections.ConfigDict(_tuples(now)))[0]


def _differences(
    there: Mapping[str, Any], config: ml_collections.ConfigDict
) -> tuple[str, list[str]]:
    """What `config` has otherwise than a resumed run may; and the keys of data that has moved."""
    there, here = flatten(there), flatten(config)
    free = (f"{name}.{place}" for name in frozen_models(config) for place in _PLACES)
    free = (*RESUMABLE, *free)
    differing = [
        key
        for key in sorted({*there, *here})
        if there.get(key, _ABSENT) != here.get(key, _ABSENT)
        and not any(key == name or key.startswith(name + ".") for name in free)
    ]
    moved = [key for key in differing if _is_moved(key, there, here)]
    listed = "; ".join(
        f"{key} is {there.get(key, _ABSENT)!r} there and {here.get(key, _ABSENT)!r} here"
        for key in differing
        if key not in moved
    )
    return listed, moved


def _is_moved(key: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a key names the place of data, there and here."""
    place = key.replace("init_from.step", "init_from.workdir")
    return key in _DATA and bool(there.get(place)) and bool(here.get(place))


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def frozen_models(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """Name -> section of each model that a run reads and does not train, which says where it lies.

    Its place is a run, "workdir" and "step", or a "folder" of another format.
    """
    return {
        name: section
        for name, section in config.items()
        if isinstance(section, ml_collections.ConfigDict)
        and name != "init_from"
        and ("workdir" in section or "folder" in section)
    }


def describe(config: ml_collections.ConfigDict, derived: Mapping[str, float]) -> str:
    """Returns every key with its value, then the derived values, one per line."""
    lines = [f"{key} = {value!r}" for key, value in flatten(config).items()]
    lines += [f"derived: {key} = {value:g}" for key, value in derived.items()]
    return "\n".join(lines)


def summary(
    config: ml_collections.ConfigDict,
    preset: ml_collections.ConfigDict,
    derived: Mapping[str, float],
) -> str:
    """Returns what differs from the recipe, key by key, and the derived values on one line.

    Args:
        config: of a run.
        preset: its recipe, without overrides.
        derived: what follows from `config`, by name with unit.
    """
    flat, plain = flatten(config), flatten(preset)
    differing = [f"{key} = {flat[key]!r}" for key in flat if flat[key] != plain[key]]
    lines = [
        f"{config.stage}:{config.preset}, {len(differing)} of {len(flat)} values are not the "
        "recipe's (all of them: --print_config, and config.json of the run)",
        *differing,
    ]
    if derived:
        lines.append("derived: " + ", ".join(f"{key} {value:g}" for key, value in derived.items()))
    return "\n".join(lines)
