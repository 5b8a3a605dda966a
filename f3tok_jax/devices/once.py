# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A function compiled for a single use."""

from collections.abc import Callable
from typing import Any

import jax


def run_once(function: Callable[..., Any], *args: Any, out_shardings: Any = None) -> Any:
    """Compiles a function for a single use and calls it.

    On a CPU without optimisation: a fresh state is some tens of random draws, which LLVM optimises
    for 20 s (the tiny autoencoder, one core) and compiles plainly in 2.
    """
    jitted = jax.jit(function, out_shardings=out_shardings)
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jitted.lower(*args).compile(compiler_options=options)(*args)
