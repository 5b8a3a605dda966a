# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of runs share: a chain of runs, and a copy of it to be spoiled."""

import pathlib
import shutil

import pytest

from tests.support import seals
from tests.support import tiny_runs


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> dict[str, str]:
    """Stage -> folder of a run that builds on the ones before it."""
    return tiny_runs.write_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def moved(chain, tmp_path) -> dict[str, str]:
    """A copy of the chain, to be spoiled."""
    root = pathlib.Path(chain["autoencoder"]).parent
    shutil.copytree(root, tmp_path / "chain")
    for stage in chain:
        path = tmp_path / "chain" / stage / "config.json"
        seals.replace(path, str(root), str(tmp_path / "chain"))
    return {stage: str(tmp_path / "chain" / stage) for stage in chain}
