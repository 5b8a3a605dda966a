# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the programs of a journey share: data for the toy stage, and what they have compiled."""

import pathlib

import pytest

from tests.support import toy_run


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> pathlib.Path:
    """A shard set for the toy stage."""
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    """Folder in which programs keep what they have compiled."""
    return str(tmp_path_factory.mktemp("cache"))
