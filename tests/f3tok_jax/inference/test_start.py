# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Modules that are put off are loaded when they are used; garbage is collected as before.

The rest of it: test_cli.py.
"""

import gc
import importlib
import sys

import pytest

from f3tok_jax.devices import compilation
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


@pytest.fixture
def no_cache(monkeypatch):
    """Leaves the cache of this process as it is."""
    monkeypatch.setattr(compilation, "keep_programs", lambda say: None)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_waits_while_modules_are_imported_and_no_longer(monkeypatch, is_enabled):
    monkeypatch.delitem(sys.modules, "f3tok_jax.inference.tokenizer", raising=False)
    (gc.enable if is_enabled else gc.disable)()
    try:
        with start.soon(say=print):
            assert not gc.isenabled()
        assert gc.isenabled() == is_enabled and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze(), gc.enable()


@pytest.mark.usefixtures("no_cache")
def test_where_they_are_imported_already_nothing_is_kept(monkeypatch):
    monkeypatch.setitem(sys.modules, "f3tok_jax.inference.tokenizer", sys)
    before = gc.get_freeze_count()
    with start.soon(say=print):
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
