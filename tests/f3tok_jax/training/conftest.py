# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of training share: data for the toy stage, a run of it, and what it has compiled."""

import pathlib

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest

from f3tok_jax.training import session
from tests.support import toy_run


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> pathlib.Path:
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def cache(cache_folder):
    """Every run here compiles the same few programs: once is enough."""
    names = {
        "jax_compilation_cache_dir": cache_folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield cache_folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def whole(shards, tmp_path_factory) -> pathlib.Path:
    """An uninterrupted run of 12 steps on two devices."""
    workdir = tmp_path_factory.mktemp("whole")
    assert toy_run.train(shards, workdir) == session.EXIT_DONE
    return workdir
