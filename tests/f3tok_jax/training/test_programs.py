# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The mesh of a config: slices, and rows of packed examples."""

import pathlib

import jax
import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.training import programs
from tests.support import sliced_devices

_CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def test_a_run_on_several_slices_needs_no_word_of_them():
    config = config_lib.read(f"{_CONFIGS}/autoencoder.py:tiny")
    mesh = programs.make_mesh(config, sliced_devices.make(8, num_slices=2))
    assert dict(mesh.shape) == {"replica": 2, "fsdp": 4, "tensor": 1}


def test_rows_of_packed_examples_must_divide():
    config = config_lib.read(f"{_CONFIGS}/representation.py:tiny")
    rows = config.data.batch_size // config.packing.examples
    assert programs.make_mesh(config, jax.devices()[:rows]).size == rows
    assert config.data.batch_size % 8 == 0 and rows % 8
    with pytest.raises(ValueError, match=f"batch_size={rows} .*representation.py:tiny.* of 8"):
        programs.make_mesh(config, jax.devices())


def test_a_data_shard_lies_on_one_host():
    """A host reads rows of its own; two with chips of one shard would read it in two ways."""
    devices = sliced_devices.make(8, num_hosts=4)
    recipe = f"{_CONFIGS}/autoencoder.py:tiny"
    programs.make_mesh(config_lib.read(recipe, ["--config.mesh.tensor=2"]), devices)
    with pytest.raises(ValueError, match="config.mesh.tensor=4 must leave .* on one host"):
        programs.make_mesh(config_lib.read(recipe, ["--config.mesh.tensor=4"]), devices)
