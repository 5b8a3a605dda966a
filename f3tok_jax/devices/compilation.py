# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How programs are compiled: with the options of a config, once only, and kept on disk."""

from collections.abc import Callable, Mapping
import contextlib
import glob
import os
import pathlib
import re
import time
from typing import Any
import warnings

from etils import epath
import jax
import jaxlib

from data_pipelines.records import user_cache

_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"  # that a program to be kept took
_PROGRAMS = "compilation"  # the folder of compiled programs in the user's cache
_MOST_BYTES = 2**30  # of what `keep_programs` lets lie in the user's cache
# XLA's words about an option that it does not know, or a value that it does not take.
_REFUSED = re.compile(r"No such compile option.*|While setting option.*")
# JAX's only words about an entry that it cannot read or write.
_BROKEN = re.compile(r"Error (\w+) persistent compilation cache entry for '([^']*)': (.*)")


def parse_options(options: Mapping[str, str], platform: str) -> dict[str, str] | None:
    """Returns what jax's `compile(compiler_options=)` takes.

    Args:
        options: config.compiler, for each platform "name=value,name=value" or ""; a value may be "".
        platform: "cpu", "gpu" or "tpu"; one that `options` lacks has none.

    Raises:
        ValueError: an entry is no pair of a name and a value.
    """
    parsed = {}
    for entry in filter(None, options.get(platform, "").split(",")):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not name or not equals:
            wanted = f"config.compiler.{platform} must be name=value,name=value"
            raise ValueError(f"{wanted}, got {entry!r}")
        parsed[name] = value
    return parsed or None


def compiled(lowered: jax.stages.Lowered, options: dict[str, str] | None) -> jax.stages.Compiled:
    """Compiles with options, of `parse_options`.

    Raises:
        ValueError: where the compiler has no such option, or the option no such value.
    """
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if options and (refused := _REFUSED.search(str(error))):
            raise ValueError(
                f"config.compiler must have options of this compiler, jaxlib {jaxlib.__version__}, got "
                f"{','.join('='.join(pair) for pair in options.items())}: {refused[0]}"
            ) from error
        raise


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
        folder: local or a bucket; "" for none; None for the user's cache, if it can be written.
        say: where messages to the user go.

    Raises:
        ValueError: where a folder was asked for and cannot be written.
    """
    if folder == "":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    path = None
    try:
        path = epath.Path(folder or _own_folder())
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"write_test_{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows the home
        if folder:
            raise ValueError(
                f"the compilation cache must be a folder that can be written, got {folder}: "
                f"{error}; give another --compilation_cache or JAX_COMPILATION_CACHE_DIR, or '' "
                "for none"
            ) from error
        why = f"{path or 'the home'} cannot be written ({error})"
        say(f"compiled programs are not kept: {why}; give --compilation_cache=DIR")
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    jax.config.update(_LEAST_SECONDS, 1.0)


def keep_programs(*, say: Callable[[str], None] = print) -> None:
    """Keeps every compiled program on disk where that can be, for what is begun often and ends soon.

    In the folder that JAX was given ($JAX_COMPILATION_CACHE_DIR, "" for none), or in the user's
    cache, which is kept below 1 GiB. What cannot be kept or read is compiled anew, and said once.

    Args:
        say: where messages to the user go.
    """
    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = _own_folder()
        except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows the home
            say(f"compiled programs are not kept: {error}")
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if _LEAST_SECONDS.upper() not in os.environ:
        jax.config.update(_LEAST_SECONDS, 0.0)
    if not isinstance(warnings.showwarning, _Teller):
        warnings.showwarning = _Teller(warnings.showwarning, say)


def _own_folder() -> pathlib.Path:
    """Makes that of the user, for the user alone: whoever can write there decides what is run.

    Raises:
        OSError: where it cannot be, or is somebody else's.
        RuntimeError: where nobody knows the home.
    """
    folder = user_cache.folder(_PROGRAMS)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise OSError(f"{folder} belongs to another user")
    folder.chmod(0o700)
    _trim(folder, _MOST_BYTES)
    return folder


def _trim(folder: pathlib.Path, most: int) -> None:
    """Removes what was not used for longest where a cache has more bytes than `most`, to its half."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                found += [(entry.stat(), entry.path)] if entry.is_file() else []
    total = sum(stat.st_size for stat, _ in found)
    if total <= most:
        return
    for stat, path in sorted(found, key=lambda one: max(one[0].st_atime, one[0].st_mtime)):
        if total <= most // 2:
            break
        pathlib.Path(path).unlink(missing_ok=True)
        total -= stat.st_size


class _Teller:
    """What shows warnings: JAX's about its cache once, in a sentence; all others as before."""

    def __init__(self, otherwise: Callable[..., None], say: Callable[[str], None]):
        self._otherwise, self._say, self._has_told = otherwise, say, False
        self._begun = time.time()

    def __call__(self, message, category, filename, lineno, file=None, line=None) -> None:
        broken = _BROKEN.match(str(message))
        if not broken:
            self._otherwise(message, category, filename, lineno, file, line)
            return
        doing, name, reason = broken.groups()
        folder = jax.config.jax_compilation_cache_dir
        self._remove(pathlib.Path(folder), name, since=self._begun if doing == "writing" else 0.0)
        if not self._has_told:
            self._has_told = True
            self._say(f"compiled programs cannot be kept or read in {folder} ({reason})")

    def _remove(self, folder: pathlib.Path, name: str, *, since: float) -> None:
        """Removes entries of a program, made since a time: JAX replaces none, damaged or cut short.

        It does not say which: of what could not be read all go, in the user's own folder alone.
        """
        with contextlib.suppress(OSError, RuntimeError):
            if not since and folder != user_cache.folder(_PROGRAMS):
                return
        for path in folder.glob(f"{glob.escape(name)}-*-cache"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime >= since:
                    path.unlink()
