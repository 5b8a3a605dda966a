# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Dataclasses as JSON and back, read without trust: what is not as its field says is refused.

A field that is None by default is left out where it is None.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import types
import typing
from typing import Any

BESIDE = "*"  # name of a field whose entries stand beside the others
_MAX_BYTES = 2**28
_MAX_NUMBER = 1e100  # what is reckoned and drawn with such numbers is finite


def named(name: str, **options: Any) -> Any:
    """A field that has another name in JSON."""
    return dataclasses.field(metadata={"name": name}, **options)


def _key(field: dataclasses.Field) -> str:
    return field.metadata.get("name", field.name)


def write(value: Any) -> Any:
    """What is written of a dataclass, and of all that it holds."""
    if dataclasses.is_dataclass(value):
        found = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        made = {"format": value.FORMAT} if hasattr(value, "FORMAT") else {}
        made |= {
            _key(field): write(one)
            for field, one in found
            if one is not None or field.default is not None
        }
        return made.pop(BESIDE, {}) | made
    if isinstance(value, Mapping):
        return {key: write(one) for key, one in value.items()}
    return [write(one) for one in value] if isinstance(value, (list, tuple)) else value


def read(content: Mapping[str, Any], kind: type) -> Any:
    """The dataclass `kind` of a JSON object; raises ValueError naming what is wrong with it."""
    return _typed(content, kind, "")


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        ValueError: if there is none, or it is larger than any that we write.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        return value
    except FileNotFoundError:
        raise ValueError(f"there is no {path.name}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number, finite, with which one can reckon."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) < _MAX_NUMBER  # NaN is not


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """A value of JSON as the type of a field, which `where` names; refuses any other."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is types.UnionType:
        return None if value is None else _typed(value, arguments[0], where)
    if isinstance(value, dict) and dataclasses.is_dataclass(wanted):
        return _record(value, wanted, where)
    if isinstance(value, dict) and origin is Mapping:
        return {key: _typed(one, arguments[1], f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list) and origin is tuple:
        return tuple(_typed(one, arguments[0], f"{where}[{i}]") for i, one in enumerate(value))
    if wanted in (int, float) and is_number(value) and (wanted is float or value % 1 == 0):
        return wanted(value)
    if wanted is Any or (wanted in (str, bool) and isinstance(value, wanted)):
        return value
    names = {tuple: "a list", int: "a whole number", float: "a finite number", str: "a text"}
    expected = names.get(origin or wanted, "true or false" if wanted is bool else "an object")
    raise ValueError(f"{where.lstrip('.')} must be {expected}, got {value!r:.60}")


def _record(content: Mapping[str, Any], wanted: type, where: str) -> Any:
    """A dataclass of its fields; what else there is, is left out."""
    hints, found = typing.get_type_hints(wanted), {}
    for field in dataclasses.fields(wanted):
        key = _key(field)
        if key == BESIDE:
            found[field.name] = {name: one for name, one in content.items() if name not in hints}
        elif key in content:
            found[field.name] = _typed(content[key], hints[field.name], f"{where}.{key}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{f'{where}.{key}'.lstrip('.')} is missing")
    return wanted(**found)
