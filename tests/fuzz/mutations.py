# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How files become what nobody wrote: bytes and JSON values, changed by a generator of their own.

A case is a function of its generator alone, so that the one that ended its process can be made
again without those before it.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import copy
import io
import json
import random
import struct
from typing import Any
import zipfile

from data_pipelines.records import sealed

_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
_WIDE = (2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_FORMATS = ("<H", ">H", "<I", ">I", "<Q", ">Q", "<d", "<f")
_FLOATS = (0.0, -0.0, 1e-320, 1e30, 1e308, float("inf"), float("-inf"), float("nan"))


class _Raw(str):
    """A text that is JSON already, or is none."""


_TEXTS = (
    "",
    " ",
    "\x00",
    "\x1b[2J",
    "a\nb",
    "\ud800",
    "\u202e",
    "e\u0301" * 50,
    "\U0001f600",
    "../../x",
    "/etc/passwd",
    "C:\\x",
    "a" * 100_000,
    "%s%n{0}",
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "NaN",
    "1",
    "-1",
    "null",
    "gs://nowhere/x",
)
_VALUES = (
    *(None, True, False, [], {}, [[]], [{}], [None], {"": None}, {"a": {"b": []}}),
    *(0, 1, -1, 2, 7, 1.5, -0.0, 1e-300, 1e100, 2**31, 2**63, 2**64, 10**30, -(10**30)),
    *map(_Raw, ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "-" + "9" * 4299, "0x1", "")),
    _Raw("[" * 100_000),
    _Raw("[" * 900 + "]" * 900),
    _Raw('{"a":' * 900 + "1" + "}" * 900),
    list(range(3000)),
    {str(index): index for index in range(300)},
)


def of_bytes(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """The data with one to four changes; `others` are files of which parts may come in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_OF_BYTES)(changed, rng, others)
    return bytes(changed)


def _place(changed: bytearray, rng: random.Random) -> int:
    """A place in the data, in every other case near its front, where headers are."""
    near = min(len(changed), 256)
    return rng.randrange(1 + (near if rng.random() < 0.5 else len(changed)))


def _flip(changed, rng, others) -> None:
    for _ in range(rng.choice((1, 1, 3, 20))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)


def _set(changed, rng, others) -> None:
    place = _place(changed, rng)
    changed[place : place + 1] = bytes([rng.choice((0, 1, 9, 10, 32, 34, 127, 128, 192, 255))])


def _cut(changed, rng, others) -> None:
    del changed[_place(changed, rng) :]


def _remove(changed, rng, others) -> None:
    place = _place(changed, rng)
    del changed[place : place + rng.choice((1, 2, 4, 16, 300))]


def _repeat(changed, rng, others) -> None:
    place = _place(changed, rng)
    part = bytes(changed[place : place + rng.choice((1, 4, 64, 2000))])
    changed[place:place] = part * rng.choice((1, 1, 2, 50))


def _splice(changed, rng, others) -> None:
    source = rng.choice(others) if others else bytes(changed)
    place, start = _place(changed, rng), rng.randrange(1 + len(source))
    part = source[start : start + rng.choice((4, 16, 300, 5000))]
    end = place + (len(part) if rng.random() < 0.5 else 0)
    changed[place:end] = part


def _fill(changed, rng, others) -> None:
    place, length = _place(changed, rng), rng.choice((4, 16, 300, 5000))
    end = min(place + length, len(changed))
    changed[place:end] = bytes([rng.choice((0, 255, 128, 65))]) * (end - place)


def _insert(changed, rng, others) -> None:
    place = _place(changed, rng)
    changed[place:place] = rng.randbytes(rng.choice((1, 2, 8, 100)))


def _number(changed, rng, others) -> None:
    """An extreme number over a field, of which most begin at a multiple of two bytes."""
    form, place = rng.choice(_FORMATS), _place(changed, rng) & ~1
    if form[1] in "df":
        part = struct.pack(form, rng.choice(_FLOATS if form[1] == "d" else _FLOATS[:3] + (1e30,)))
    else:
        size = struct.calcsize(form)
        part = struct.pack(form, rng.choice(_NUMBERS + _WIDE) % 2 ** (8 * size))
    changed[place : place + len(part)] = part


_OF_BYTES = (_flip, _set, _cut, _remove, _repeat, _splice, _fill, _insert, _number, _number)


def of_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON file with values, names or bytes that were not there."""
    if rng.random() < 0.25:
        return of_bytes(data, rng)
    value = json.loads(data)
    twice = None
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        value, twice = _changed(value, rng, twice)
    return _dumped(value, twice).encode("utf-8", "surrogatepass")


def of_sealed_json(data: bytes, rng: random.Random) -> bytes:
    """A sealed JSON file that was changed, mostly by somebody who seals it again."""
    changed = of_json(data, rng)
    if rng.random() < 0.7:
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            content = json.loads(changed)
            content.pop(sealed.NAME, None)
            changed = json.dumps(sealed.seal(content)).encode()
    return changed


def of_json_lines(data: bytes, rng: random.Random) -> bytes:
    """A file of JSON objects, one a line, of which one or two are changed, or the bytes."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    lines = data.splitlines()
    for _ in range(rng.choice((1, 2))):
        place = rng.randrange(len(lines))
        try:
            lines[place] = of_json(lines[place], rng)
        except (ValueError, RecursionError):  # It was changed before.
            lines[place] = of_bytes(lines[place], rng)
    return b"\n".join(lines) + b"\n"


def _changed(value: Any, rng: random.Random, twice: int | None) -> tuple[Any, int | None]:
    """A value with one of those in it changed, and which object says a name twice."""
    places = list(_places(value))
    if not places:
        return _any(rng), twice
    owner, key = rng.choice(places)
    other_owner, other_key = rng.choice(places)
    how = rng.randrange(10)
    if how < 4:
        owner[key] = _odd(owner[key], rng)
    elif how == 4:
        del owner[key]
    elif how == 5:
        owner[key], other_owner[other_key] = other_owner[other_key], owner[key]
        if not _is_finite_tree(value):  # A value that holds itself is none of JSON.
            owner[key], other_owner[other_key] = other_owner[other_key], owner[key]
    elif how == 6 and isinstance(owner, dict):
        owner[rng.choice((*_TEXTS, key + "x", key.upper()))] = owner.pop(key)
    elif how == 7 and isinstance(owner, dict):
        twice = id(owner)
    elif how == 8:
        return _any(rng), twice
    else:
        owner[key] = rng.choice(([owner[key]], {str(key): owner[key]}))
    return value, twice


def _odd(value: Any, rng: random.Random) -> Any:
    """Another value: of the same kind in every other case."""
    if isinstance(value, bool) or rng.random() < 0.5:
        return _any(rng)
    if isinstance(value, (int, float)):
        return rng.choice((*_NUMBERS, *_WIDE, -value, value + 1, value * 1000, value % 7, *_FLOATS))
    if isinstance(value, str) and value:
        place = rng.randrange(len(value))
        return value[:place] + rng.choice(_TEXTS) + value[place + 1 :]
    return _any(rng)


def _any(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice((*_VALUES, *_TEXTS)))  # it may be changed again


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(owner, key or index) of every value inside a value."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in list(items):
            yield value, key
            yield from _places(one)


def _is_finite_tree(value: Any, above: tuple[int, ...] = ()) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    if id(value) in above or len(above) > 100:
        return False
    parts = value.values() if isinstance(value, dict) else value
    return all(_is_finite_tree(part, (*above, id(value))) for part in parts)


def _dumped(value: Any, twice: int | None) -> str:
    """JSON, as far as it is; the object `twice` says its first name again at its end."""
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(name))}:{_dumped(one, twice)}" for name, one in value.items()]
        return "{" + ",".join(pairs + pairs[:1] * (id(value) == twice)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dumped(one, twice) for one in value) + "]"
    return json.dumps(value, ensure_ascii=not isinstance(value, str) or len(value) % 2 == 0)


def of_zip(data: bytes, rng: random.Random, change: Callable[[bytes, random.Random], bytes]):
    """A ZIP archive with members changed, left out, twice, renamed or compressed; sums are right."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            content, kind = old.read(name), zipfile.ZIP_STORED
            how = rng.randrange(8) if name == chosen else None
            if how == 0:
                continue
            if how == 1:
                kind = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            elif how == 2:
                name = rng.choice((name.upper(), "../" + name, name[:-4], "\x00" + name))
            elif how is not None:
                content = change(content, rng)
            new.writestr(name, content, kind)
    return written.getvalue()


def of_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file: its bytes, its header as JSON, its length or a number among its values."""
    how = rng.randrange(4)
    if how == 0:
        return of_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header, values = data[8 : 8 + length], bytearray(data[8 + length :])
    if how == 1:
        place = rng.randrange(len(values)) & ~3
        values[place : place + 4] = struct.pack("<f", rng.choice((1e30, 1e-40, *_FLOATS[-3:])))
        return data[: 8 + length] + bytes(values)
    header = of_json(header, rng)
    length = rng.choice(_NUMBERS[:6] + _WIDE) % 2**64 if rng.random() < 0.1 else len(header)
    return struct.pack("<Q", length) + header + bytes(values)
