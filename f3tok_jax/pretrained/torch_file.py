# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tensors of a file that torch.save wrote, without PyTorch, and without running what is in it.

Such a file is a program for a stack machine, which Python's own reader would obey. Here its
instructions are listed (`pickletools`) and only those are followed that put together dictionaries,
lists, numbers, texts and tensors; whatever else a program calls stands for nothing.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import io
import math
import os
import pathlib
import pickletools
from typing import Any, NamedTuple
import zipfile

import numpy as np

_MAX_BYTES = 2**31
_MAGIC = 0x1950A86A20F9469CFC6C  # of the layout before torch 1.6: programs, then the numbers
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Instructions that leave everything as it is, or only say how what follows is written.
_SILENT = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
# Instructions that take as many of the last values as if a mark were before them.
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "SETITEM": 2, "APPEND": 1}
_VALUES = ("INT", "LONG", "FLOAT", "UNICODE", "STRING", "BYTES")  # as parts of names


class _Called(NamedTuple):
    """The name of what a program would call."""

    module: str
    name: str


class _Storage(NamedTuple):
    """A row of numbers by its key in the file."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage, all in numbers of it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(
    path: str | os.PathLike, *, below: str = "", max_bytes: int = _MAX_BYTES
) -> dict[str, np.ndarray]:
    """The tensors of a file.

    Args:
        path: written by torch.save, in the layout of today (an archive) or that before torch 1.6.
        below: key of the dictionary to read, "" for all of the file.
        max_bytes: of a file of whose size nothing else is known.

    Returns:
        Keys, with "/" between those of dictionaries in dictionaries, to arrays in memory of their
        own.

    Raises:
        ValueError: where the file is not whole, none of torch.save, or has no tensors there.
    """
    with _opened(path, below, max_bytes) as (content, storage):
        content = content[below] if below else content
        found = {name: _array(tensor, storage) for name, tensor in _tensors(content, "")}
        if not found:
            raise ValueError("it has no tensors")
    return found


def read_plain(
    path: str | os.PathLike, *, below: str, max_bytes: int = _MAX_BYTES
) -> dict[str, Any]:
    """The numbers, texts and lists of a dictionary in a file, by key; none where it is not there.

    Arguments and errors are those of `read`.
    """
    with _opened(path, below, max_bytes) as (content, _):
        found = content.get(below) if isinstance(content, dict) else None
        plain = (bool, int, float, str, list, tuple)
        return {k: v for k, v in (found or {}).items() if isinstance(v, plain)}


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike, below: str, max_bytes: int
) -> Iterator[tuple[Any, Callable[[str], bytes]]]:
    """What the program of a file puts together, and the bytes of a storage by its key."""
    path = pathlib.Path(path)
    try:
        if path.stat().st_size > max_bytes:
            raise ValueError(f"it has more than {max_bytes} bytes")
        with contextlib.ExitStack() as stack:
            if zipfile.is_zipfile(path):
                yield _archive(stack.enter_context(zipfile.ZipFile(path)), max_bytes)
            else:
                yield _plain(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"there is no {path}") from None
    # What a program that is damaged does to the stack, and an archive to its reader, is of many kinds.
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(
            f"{path} must be a whole file of torch.save{f' with {below!r}' * bool(below)}, got one "
            f"that is not ({said}): copy or install it again"
        ) from None


def _archive(archive: zipfile.ZipFile, max_bytes: int) -> tuple[Any, Callable[[str], bytes]]:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if sum(archive.getinfo(name).file_size for name in names.values()) > max_bytes:
        raise ValueError(f"its files have more than {max_bytes} bytes")

    # Tensors that share their numbers follow one another: all of them at once are not held.
    @functools.lru_cache(maxsize=2)
    def storage(key: str) -> bytes:
        return archive.read(names[f"data/{key}"])

    return _obey(io.BytesIO(archive.read(names["data.pkl"]))), storage


def _plain(content: bytes) -> tuple[Any, Callable[[str], bytes]]:
    """Programs that leave magic, version, machine, content and keys; size and numbers of each key."""
    file = io.BytesIO(content)
    if _obey(file) != _MAGIC:
        raise ValueError("its first number is another")
    _obey(file), _obey(file)
    called: dict[str, _Storage] = {}
    made, keys, storages = _obey(file, called), _obey(file), {}
    for key in keys:
        size = int.from_bytes(file.read(8), "little", signed=True)
        if size != called[key].size:
            raise ValueError(f"the storage {key} has {size} numbers, not {called[key].size}")
        storages[key] = file.read(size * called[key].dtype.itemsize)
    return made, storages.__getitem__


def _obey(file: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """What the program at the place of a file puts together; `storages` gets those it names."""
    stack, marks, memory = [], [], {}

    def since_mark() -> list:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    for code, argument, _ in pickletools.genops(file):
        name = code.name
        if name in _TAKES:
            marks.append(len(stack) - _TAKES[name])
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name.startswith("TUPLE"):
            stack.append(tuple(since_mark()))
        elif name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif name.endswith("PUT"):
            memory[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memory[argument])
        elif name == "GLOBAL":
            stack.append(_Called(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Called(*stack[-2:])]
        elif name in ("REDUCE", "NEWOBJ"):
            stack[-2:] = [_made(*stack[-2:])]
        elif name == "BUILD":  # what an object is given beside its content
            stack.pop()
        elif name == "BINPERSID":
            stack[-1] = _storage(stack[-1])
            if storages is not None:
                storages[stack[-1].key] = stack[-1]
        elif name in ("SETITEM", "SETITEMS"):
            values = since_mark()
            stack[-1].update(zip(values[::2], values[1::2]))
        elif name in ("APPEND", "APPENDS"):
            values = since_mark()
            stack[-1].extend(values)
        elif any(kind in name for kind in _VALUES):
            stack.append(argument)
        elif name not in _SILENT:
            raise ValueError(f"its program has the instruction {name}, which none of tensors has")
    raise ValueError("its program has no end")


def _made(called: Any, arguments: Any) -> Any:
    """What stands for the result of a call."""
    if called == _Called("torch._utils", "_rebuild_tensor_v2"):
        storage, offset, shape, strides = arguments[:4]
        return _Tensor(storage, offset, shape, strides)
    if called == _Called("torch._utils", "_rebuild_parameter"):
        return arguments[0]
    if called == _Called("collections", "OrderedDict"):
        return dict(*arguments)
    return {}  # an object of which nothing is kept


def _storage(named: Any) -> _Storage:
    kind, storage, key, _, size = named[:5]
    if kind != "storage" or not isinstance(storage, _Called) or storage.name not in _DTYPES:
        raise ValueError(f"its numbers must be one of {', '.join(_DTYPES)}, got {storage}")
    return _Storage(str(key), np.dtype(_DTYPES[storage.name]), int(size))


def _tensors(content: Any, name: str) -> Iterator[tuple[str, _Tensor]]:
    """The tensors of dictionaries in dictionaries, by name."""
    if isinstance(content, _Tensor):
        yield name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _tensors(value, f"{name}/{key}" if name else str(key))


def _array(tensor: _Tensor, storage_of: Callable[[str], bytes]) -> np.ndarray:
    """The numbers of a tensor; none that lie beyond its storage."""
    storage, offset, shape, strides = tensor
    numbers = np.frombuffer(storage_of(storage.key), storage.dtype)
    if len(shape) != len(strides) or min((offset, *shape, *strides), default=0) < 0:
        raise ValueError(f"a tensor has the shape {shape} with strides {strides} at {offset}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if math.prod(shape) and (last >= len(numbers) or math.prod(shape) > len(numbers)):
        raise ValueError(f"a tensor of the shape {shape} lies beyond its {len(numbers)} numbers")
    steps = [stride * storage.dtype.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
    return view.copy()
