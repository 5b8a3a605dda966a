# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Layers of sequence-layers without the whole package: what is loaded, and that they are its own."""

import json
import subprocess
import sys

import pytest

from f3tok_jax.models import streaming_layers

_PROGRAM = """
import json, sys
if sys.argv[1] == "before":
    import sequence_layers.jax as whole
from f3tok_jax.models import streaming_layers
heavy = sorted({"orbax", "recurrentgemma", "scipy"} & set(sys.modules))
is_there = "sequence_layers.jax" in sys.modules
import sequence_layers.jax as whole
ours = {name: layer for name, layer in vars(streaming_layers).items() if name[0].isupper()}
same = all(layer is getattr(whole, name) for name, layer in ours.items())
print(json.dumps([heavy, is_there, len(ours), same]))
"""


def _loaded(when: str) -> list:
    """What is loaded with the layers where the package itself is imported before or after them."""
    command = [sys.executable, "-c", _PROGRAM, when]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_the_layers_are_the_packages_own_and_bring_nothing_heavy():
    heavy, is_there, number, same = _loaded("after")
    assert not heavy and not is_there
    assert number > 10 and same


def test_a_package_that_is_there_already_is_used():
    _, is_there, number, same = _loaded("before")
    assert is_there and number > 10 and same


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sequence_layers", None)
    monkeypatch.delitem(sys.modules, "sequence_layers.jax", raising=False)
    with pytest.raises(ModuleNotFoundError, match="sequence_layers"):
        streaming_layers._load("types")
