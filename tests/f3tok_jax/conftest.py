# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The TPU's compiler for each file that asks for it."""

import importlib.util

import jax
import pytest

from f3tok_jax.devices import slices


@pytest.fixture(scope="module")
def tpu_compiler():
    """The TPU compiler in this process, or a skipped test."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra tpu): nothing can be compiled for TPUs")
    effort = jax.config.jax_exec_time_optimization_effort
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slices.COMPILER_ENVIRONMENT.items():
            patch.setenv(name, value)
        yield
    jax.config.update("jax_exec_time_optimization_effort", effort)
