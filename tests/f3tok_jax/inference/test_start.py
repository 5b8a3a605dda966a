# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Modules that are put off: loaded when they are used, never spoilt. The rest: test_cli.py."""

import importlib
import sys

import pytest

from f3tok_jax.inference import start


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module that tells when it is loaded."""
    folder = tmp_path / "put_off_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("loaded = []\n")
    (folder / "module.py").write_text(
        "import put_off_package\nput_off_package.loaded.append(1)\nvalue = 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("put_off_package")
    for name in [name for name in sys.modules if name.startswith("put_off_package")]:
        del sys.modules[name]


def test_a_module_is_loaded_when_it_is_used(package):
    start.put_off("put_off_package.module")
    from put_off_package import module

    assert package.loaded == []
    assert module.value == 7 and package.loaded == [1]
    assert importlib.import_module("put_off_package.module") is module and package.loaded == [1]


def test_one_that_is_imported_whole_is_there_at_once(package):
    start.put_off("put_off_package.module")
    assert importlib.import_module("put_off_package.module").value == 7


def test_one_that_is_loaded_or_absent_stays_so(package):
    module = importlib.import_module("put_off_package.module")
    start.put_off("put_off_package.module")
    assert sys.modules["put_off_package.module"] is module
    start.put_off("put_off_package.other"), start.put_off("no_such_package.module")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("put_off_package.other")
