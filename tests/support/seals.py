# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files with seals, changed on purpose; and every kind of damage that one bit can do."""

from collections.abc import Callable, Iterator
import json
import pathlib
from typing import Any

from data_pipelines.records import sealed


def change(path: pathlib.Path, **changes: Any) -> None:
    """Gives a sealed file other values by key, and the seal that belongs to them."""
    remove(path, **changes)
    path.write_text(json.dumps(sealed.seal(json.loads(path.read_text()))))


def remove(path: pathlib.Path, **changes: Any) -> None:
    """Takes the seal out of a file, and gives it other values by key."""
    content = json.loads(path.read_text()) | changes
    content.pop(sealed.NAME, None)
    path.write_text(json.dumps(content))


def replace(path: pathlib.Path, before: str, after: str) -> None:
    """Puts one text for another in a sealed file, and seals it anew."""
    path.write_text(path.read_text().replace(before, after))
    change(path)


def flips(path: pathlib.Path, stride: int) -> Iterator[int]:
    """Flips one bit of a file, again and again, once in `stride` bytes; gives the place of each.

    The file is as it was when the last is taken.
    """
    whole = path.read_bytes()
    for place in range(0, len(whole), stride):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        yield place
    path.write_bytes(whole)


def count_refusals(path: pathlib.Path, read: Callable[[], Any], stride: int = 1) -> float:
    """The share of flips in a file that are refused; asserts that the others change nothing."""
    whole, refused, places = read(), 0, 0
    for place in flips(path, stride):
        places += 1
        try:
            assert read() == whole, f"the flip at byte {place} of {path.name} changed what it says"
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            refused += 1
        except OSError:  # of a checkpoint
            refused += 1
    return refused / places
