# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher's record of a run as JSON, for record.sh. Any Python from 3.8, nothing else.

`record.py write NAME=VALUE ... -- TRAIN_ARGUMENT ...` prints the JSON. `record.py read` takes it from
standard input and prints each name and its value, a NUL after each.
"""

import json
import sys
from typing import Dict, List, Union

_ARGUMENTS = "train_arguments"


def write(words: List[str]) -> str:
    """Returns the JSON of NAME=VALUE words, and of what comes after `--`."""
    end = words.index("--")
    record: Dict[str, Union[str, List[str]]] = {}
    for word in words[:end]:
        name, _, value = word.partition("=")
        record[name.lower()] = value
    return json.dumps({**record, _ARGUMENTS: words[end + 1 :]}, indent=2)


def read(text: str) -> str:
    """Returns the names and values of a record, each argument of the training under its name.

    Raises:
        ValueError: the text is no record.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or not isinstance(record.get(_ARGUMENTS), list):
        raise ValueError(f"it must be an object with the list {_ARGUMENTS}")
    pairs = [(name, value) for name, value in record.items() if name != _ARGUMENTS]
    pairs += [(_ARGUMENTS, value) for value in record[_ARGUMENTS]]
    if not all(isinstance(value, str) and "\0" not in name + value for name, value in pairs):
        raise ValueError("every value must be a text")
    return "".join(f"{name.upper()}\0{value}\0" for name, value in pairs)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        print(write(sys.argv[2:]))
    else:
        try:
            sys.stdout.write(read(sys.stdin.read()))
        except ValueError as error:
            sys.exit(f"the record cannot be read: {error}")
