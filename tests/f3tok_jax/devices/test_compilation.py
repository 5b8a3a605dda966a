# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Options of XLA out of a config, and where compiled programs are kept."""

import os
import stat
import warnings

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.monitoring
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from tests.support import bucket
from tests.support import disks


@pytest.fixture(autouse=True)
def _unchanged_config():
    names = (
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    shown = warnings.showwarning
    yield
    warnings.showwarning = shown
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_the_cache_folder_is_tried_before_it_is_used(tmp_path):
    compilation.use_cache(str(tmp_path / "cache"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_bucket_keeps_programs_for_the_next_start():
    """As --compilation_cache=gs://BUCKET/RUN/compiled, which the launcher gives to every slice."""
    kept = bucket.serve() / "a run" / "compiled"
    jax.config.update("jax_enable_compilation_cache", True)
    events = []

    def listen(event: str, **_) -> None:
        events.append(event)

    def start() -> int:
        """Compiles as a new process does; returns how many programs were loaded instead."""
        events.clear()
        jax.clear_caches()
        compilation_cache.reset_cache()
        compilation.use_cache(f"{bucket.URL}/a run/compiled")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.jit(lambda x: x @ x + 3)(np.ones((8, 8))).block_until_ready()
        return events.count("/jax/compilation_cache/cache_hits")

    jax.monitoring.register_event_listener(listen)
    try:
        assert start() == 0 and list(kept.glob("*-cache"))
        assert start() == 1
    finally:
        jax.monitoring.unregister_event_listener(listen)


def test_a_cache_folder_that_was_asked_for_must_be_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match="the compilation cache must be a folder that can be written"
    ):
        compilation.use_cache(str(tmp_path / "file" / "cache"))


def test_without_a_writable_home_there_is_no_cache_and_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation.pathlib.Path, "home", lambda: tmp_path / "file")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    said = []
    compilation.use_cache(None, say=said.append)
    assert not jax.config.jax_enable_compilation_cache
    assert len(said) == 1 and "--compilation_cache=DIR" in said[0]


def test_no_cache_on_request():
    compilation.use_cache("")
    assert not jax.config.jax_enable_compilation_cache


def test_the_users_cache_is_where_the_desktop_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "given"))
    compilation.use_cache(None)
    wanted = tmp_path / "given" / "f3tok_jax" / "compilation"
    assert jax.config.jax_compilation_cache_dir == str(wanted)
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # then it does not count
    monkeypatch.setattr(compilation.pathlib.Path, "home", lambda: tmp_path)
    compilation.use_cache(None)
    wanted = tmp_path / ".cache" / "f3tok_jax" / "compilation"
    assert jax.config.jax_compilation_cache_dir == str(wanted)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Keeps all programs in the user's cache, which is fresh; gives what is said and the folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    said = []

    def keep() -> list[str]:
        compilation.keep_programs(say=said.append)
        return said

    return keep, tmp_path / "cache" / "f3tok_jax" / "compilation"


def _compute() -> float:
    """A program of its own, compiled or found."""
    jax.clear_caches()

    def kept_program(number):
        return number * 3.0 + 1.0

    return float(jax.jit(kept_program)(2.0))


def _entries(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("jit_kept_program-*-cache")}


def test_every_program_is_kept_for_the_user_alone(kept):
    keep, folder = kept
    assert keep() == [] and _compute() == 7.0
    assert len(_entries(folder)) == 1 and keep() == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_jax_was_given_is_used_as_it_is(kept, tmp_path):
    keep, folder = kept
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "other"))
    assert keep() == [] and _compute() == 7.0
    assert len(_entries(tmp_path / "other")) == 1 and not folder.exists()
    jax.config.update("jax_compilation_cache_dir", "")  # none was asked for
    compilation_cache.reset_cache()
    assert keep() == [] and _compute() == 7.0 and not folder.exists()


def test_a_damaged_program_is_said_once_and_made_anew(kept):
    keep, folder = kept
    keep(), _compute()
    ((name, content),) = _entries(folder).items()
    (folder / name).write_bytes(content[:100])
    assert _compute() == 7.0
    (sentence,) = keep()
    assert f"cannot be kept or read in {folder}" in sentence and "\n" not in sentence
    assert len(_entries(folder)[name]) > 100
    (folder / name).write_bytes(b"")
    assert _compute() == 7.0 and keep() == [sentence]


def test_a_program_that_could_not_be_written_takes_no_others_with_it(kept):
    keep, folder = kept
    keep(), _compute()
    other = folder / "jit_kept_program-of_another_project-cache"
    other.write_bytes(b"whole")
    os.utime(other, (1e9, 1e9))
    before = _entries(folder)
    for name in before:  # as of a process before
        os.utime(folder / name, (1e9, 1e9))
    said = "Error writing persistent compilation cache entry for 'jit_kept_program': No space left"
    warnings.showwarning(said, UserWarning, "", 0)
    assert _entries(folder) == before


def test_in_a_folder_that_is_shared_nothing_is_removed_that_was_there(kept, tmp_path):
    keep, _ = kept
    shared = tmp_path / "other"
    jax.config.update("jax_compilation_cache_dir", str(shared))
    keep(), _compute()
    ((name, content),) = _entries(shared).items()
    (shared / name).write_bytes(content[:100])
    assert _compute() == 7.0 and len(keep()) == 1
    assert _entries(shared) == {name: content[:100]}


@pytest.mark.parametrize("use", [lambda: compilation.use_cache(None), compilation.keep_programs])
def test_the_users_folder_is_the_users_alone_whoever_made_it(kept, use, monkeypatch):
    _, folder = kept
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    use()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    jax.config.update("jax_compilation_cache_dir", None)
    mine = os.geteuid()
    monkeypatch.setattr(compilation.os, "geteuid", lambda: mine + 1)
    use()
    assert jax.config.jax_compilation_cache_dir is None


def test_on_a_full_disk_all_is_compiled_and_it_is_said(kept):
    keep, folder = kept
    keep()
    with disks.room(50):
        assert _compute() == 7.0
    (sentence,) = keep()
    assert "File too large" in sentence and _entries(folder) == {}


@pytest.mark.parametrize("is_given", [False, True])
def test_where_no_folder_can_be_it_is_said_and_all_goes_on(kept, tmp_path, monkeypatch, is_given):
    keep, _ = kept
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if is_given:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file" / "cache"))
    keep()
    assert _compute() == 7.0
    (sentence,) = keep()[:1]
    assert "compiled programs" in sentence and str(tmp_path / "file") in sentence


def test_without_a_home_there_is_no_cache(kept, monkeypatch):
    keep, _ = kept
    monkeypatch.delenv("XDG_CACHE_HOME")

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compilation.pathlib.Path, "home", nowhere)
    (sentence,) = keep()
    assert "home directory" in sentence and _compute() == 7.0


def test_other_warnings_are_shown_as_before(kept):
    keep, _ = kept
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        keep()
        warnings.warn("of another kind", stacklevel=1)
    assert [str(one.message) for one in shown] == ["of another kind"] and keep() == []


def test_what_was_not_used_for_longest_makes_room(kept, monkeypatch):
    keep, folder = kept
    folder.mkdir(parents=True)
    for age, name in enumerate(["new", "old", "oldest"]):
        (folder / name).write_bytes(bytes(400))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(compilation, "_MOST_BYTES", 1200)
    keep()
    assert len(list(folder.iterdir())) == 3
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation, "_MOST_BYTES", 1199)
    assert keep() == [] and [path.name for path in folder.iterdir()] == ["new"]


def test_options_of_the_platform_are_parsed():
    options = {"tpu": "a=1, b = 0.98,d=,", "gpu": "c=true"}
    assert compilation.parse_options(options, "tpu") == {"a": "1", "b": "0.98", "d": ""}
    assert compilation.parse_options(options, "gpu") == {"c": "true"}


@pytest.mark.parametrize("options", [{}, {"cpu": ""}, {"tpu": "a=1"}])
def test_a_platform_without_options_has_none(options):
    assert compilation.parse_options(options, "cpu") is None


@pytest.mark.parametrize("entry", ["a", "=1", "="])
def test_an_entry_that_is_no_pair_is_refused(entry):
    with pytest.raises(ValueError, match=r"config\.compiler\.tpu must be name=value"):
        compilation.parse_options({"tpu": f"b=2,{entry}"}, "tpu")


@pytest.mark.parametrize("option", ["xla_nonsense=1", "xla_cpu_experimental_ynn_fusion_type=NONE"])
def test_an_option_that_the_compiler_does_not_take_is_refused_by_name(option):
    lowered, (name, _, value) = jax.jit(lambda x: x + 1).lower(1.0), option.partition("=")
    with pytest.raises(ValueError, match=rf"config\.compiler must have .* got {option}: .*{name}"):
        compilation.compiled(lowered, {name: value})


def test_options_are_those_that_are_compiled_with():
    """Convolutions of a CPU by another library than the default's."""
    convolve = jax.jit(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    lowered = convolve.lower(np.ones((4, 32, 32, 32), "f4"), np.ones((3, 3, 32, 32), "f4"))
    option = {"xla_cpu_experimental_ynn_fusion_type": ""}
    assert "ynn" in compilation.compiled(lowered, None).as_text()
    assert "ynn" not in compilation.compiled(lowered, option).as_text()
