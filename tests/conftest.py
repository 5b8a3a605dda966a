# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every test shares: eight CPU devices, strict ranks, and the optional real recordings."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Grain reads absl flags even where no absl program runs.
flags.FLAGS.mark_as_parsed()

_SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of optional real recordings; the test is skipped where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip(f"real recordings not found at {_SHARED_DATA}")
    return _SHARED_DATA
