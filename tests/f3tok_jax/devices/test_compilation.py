# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Options of XLA out of a config, and where compiled programs are kept."""

import jax
import pytest

from f3tok_jax.devices import compilation


@pytest.fixture(autouse=True)
def _unchanged_config():
    names = (
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_folder_is_tried_before_it_is_used(tmp_path):
    compilation.use_cache(str(tmp_path / "cache"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_was_asked_for_must_be_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match="the compilation cache must be a folder that can be written"
    ):
        compilation.use_cache(str(tmp_path / "file" / "cache"))


def test_without_a_writable_home_there_is_no_cache_and_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation.pathlib.Path, "home", lambda: tmp_path / "file")
    said = []
    compilation.use_cache(None, say=said.append)
    assert not jax.config.jax_enable_compilation_cache
    assert len(said) == 1 and "--compilation_cache=DIR" in said[0]


def test_no_cache_on_request():
    compilation.use_cache("")
    assert not jax.config.jax_enable_compilation_cache


def test_options_of_the_platform_are_parsed():
    options = {"tpu": "a=1, b = 0.98,", "gpu": "c=true"}
    assert compilation.parse_options(options, "tpu") == {"a": "1", "b": "0.98"}
    assert compilation.parse_options(options, "gpu") == {"c": "true"}


@pytest.mark.parametrize("options", [{}, {"cpu": ""}, {"tpu": "a=1"}])
def test_a_platform_without_options_has_none(options):
    assert compilation.parse_options(options, "cpu") is None


@pytest.mark.parametrize("entry", ["a", "=1", "a="])
def test_an_entry_that_is_no_pair_is_refused(entry):
    with pytest.raises(ValueError, match=r"config\.compiler\.tpu must be name=value"):
        compilation.parse_options({"tpu": f"b=2,{entry}"}, "tpu")
