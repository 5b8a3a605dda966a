# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How programs are compiled: with the options of a config, once only, and kept on disk."""

from collections.abc import Callable, Mapping
import os
import pathlib
from typing import Any

from etils import epath
import jax


def parse_options(options: Mapping[str, str], platform: str) -> dict[str, str] | None:
    """Returns what jax's `compile(compiler_options=)` takes.

    Args:
        options: config.compiler, for each platform "name=value,name=value" or "".
        platform: "cpu", "gpu" or "tpu"; one that `options` lacks has none.

    Raises:
        ValueError: an entry is no pair of a name and a value.
    """
    parsed = {}
    for entry in filter(None, options.get(platform, "").split(",")):
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or not value:
            wanted = f"config.compiler.{platform} must be name=value,name=value"
            raise ValueError(f"{wanted}, got {entry!r}")
        parsed[name] = value
    return parsed or None


def run_once(function: Callable[..., Any], *args: Any, out_shardings: Any = None) -> Any:
    """Compiles a function for a single use and calls it.

    On a CPU without optimisation: a fresh state is some tens of random draws, which LLVM optimises
    for 20 s (the tiny autoencoder, one core) and compiles plainly in 2.
    """
    jitted = jax.jit(function, out_shardings=out_shardings)
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jitted.lower(*args).compile(compiler_options=options)(*args)


def use_cache(folder: str | None, *, say: Callable[[str], None] = print) -> None:
    """Keeps compiled programs on disk, after writing there once: JAX itself only warns, much later.

    Args:
        folder: local or a bucket; "" for none; None for a folder in the home, if it can be written.
        say: where messages to the user go.

    Raises:
        ValueError: where a folder was asked for and cannot be written.
    """
    if folder == "":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    path = epath.Path(folder or pathlib.Path.home() / ".cache" / "f3tok_jax" / "compilation")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"write_test_{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        if folder:
            raise ValueError(
                f"the compilation cache must be a folder that can be written, got {folder}: "
                f"{error}; give another --compilation_cache or JAX_COMPILATION_CACHE_DIR, or '' "
                "for none"
            ) from error
        why = f"{path} cannot be written ({error})"
        say(f"compiled programs are not kept: {why}; give --compilation_cache=DIR")
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
