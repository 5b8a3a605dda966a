# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps as files of Python: get_sweep(preset) -> space.Sweep, in the manner of the recipes."""

from collections.abc import Sequence
import dataclasses
import importlib.util
import inspect
import os
import pathlib

from f3tok_jax.sweeping import space

_SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "configs" / "sweeps"


def read(text: str) -> space.Sweep:
    """The sweep of "FILE.py" or "FILE.py:PRESET", its recipe as seen from the current folder.

    Raises:
        ValueError: where there is no such file, or it gives no sweep.
    """
    name, _, preset = text.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        raise ValueError(
            f"a sweep must be FILE.py or FILE.py:PRESET, got {text!r}: there is no file {name!r} "
            f"(from {os.getcwd()})"
        )
    try:
        found = _get_sweep(path, [preset] if preset else [])
    except Exception as error:  # It is a program, which may raise anything.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ValueError(f"the sweep of {text} cannot be made: {reason}") from error
    recipe = os.path.relpath(path.parent / found.recipe)
    # From the root on where it does not lie below: such a place is the same on every machine.
    recipe = os.path.abspath(recipe) if recipe.startswith("..") else recipe
    return dataclasses.replace(found, recipe=recipe)


def shipped() -> dict[str, str]:
    """Name -> file of each sweep that comes with the recipes."""
    return {path.stem: str(path) for path in sorted(_SHIPPED.glob("[a-z]*.py"))}


def _get_sweep(path: pathlib.Path, preset: Sequence[str]) -> space.Sweep:
    spec = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not inspect.isfunction(getattr(module, "get_sweep", None)):
        raise ValueError("it has no function get_sweep(preset)")
    found = module.get_sweep(*preset)
    if not isinstance(found, space.Sweep):
        raise ValueError(f"get_sweep must return a space.Sweep, got {type(found).__name__}")
    return found
