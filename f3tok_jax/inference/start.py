# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How a program begins that uses a run: soon. Of others, their own programs decide."""

from collections.abc import Callable, Iterator
import contextlib
import gc
import importlib.util
import sys

# What sequence-layers imports and no layer of ours asks for: half of its time.
_NEVER_ASKED_FOR = "scipy.signal"
_MODULE = "f3tok_jax.inference.tokenizer"  # which brings all that takes time


@contextlib.contextmanager
def soon(*, say: Callable[[str], None]) -> Iterator[None]:
    """To be held while the tokenizer is imported: keeps compiled programs, and costs no time twice.

    Args:
        say: where messages to the user go: that compiled programs cannot be kept.
    """
    put_off(_NEVER_ASKED_FOR)
    with _kept_for_good() if _MODULE not in sys.modules else contextlib.nullcontext():
        from f3tok_jax.devices import compilation

        compilation.keep_programs(say=say)
        yield


@contextlib.contextmanager
def _kept_for_good() -> Iterator[None]:
    """What modules make stays: to look it through for garbage, then and at the end, takes a third
    of the time of a short program."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def put_off(name: str) -> None:
    """Lets `from package import module` give a module that is loaded when it is first used.

    Args:
        name: of a module in a package; one that is not there stays so, one that is loaded, too.
    """
    package, _, module = name.rpartition(".")
    if name in sys.modules or not (spec := _spec(name)) or not spec.loader:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    late = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(late)
    setattr(sys.modules[package], module, late)  # as an import does it


def _spec(name: str):
    """How a module would be loaded; None where it is not there. Its package is loaded."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name)
