# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every test shares: eight CPU devices, strict ranks, and the optional real recordings."""

import atexit
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests, and most programs that they start, compile far more than they compute: with less effort
# on making small programs fast they take three quarters of the time. Not with none at all: at level
# 0 of jaxlib 0.10 a trained classifier answers with NaNs, at 1 and above it does not.
_FLAGS = "--xla_backend_optimization_level=1"
# The fusion emitters of this jaxlib are slower to compile with than what they replaced: of a train
# step of the generation stage, 9.0 s of CPU with them, 5.6 without. An unknown flag ends a program.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
    # In one piece each: as many test processes as cores leave none for compiling pieces side by side.
    _FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
    # Loops that are not unrolled compile in three fifths of the time: 7.0 s of that step become 3.7.
    _FLAGS += " --xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}"

# What one process of a test run has compiled, or one test before, the others load. The processes
# that pytest-xdist starts inherit the folder; the one that made it removes it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _PROGRAMS = tempfile.mkdtemp(prefix="f3tok_jax_programs_")
    atexit.register(shutil.rmtree, _PROGRAMS, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _PROGRAMS
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import pytest
import tokenizers

from tests.support import anchors
from tests.support import heeding

# Traces are trees of many small objects: looked through as often as is usual, they cost a tenth more.
gc.set_threshold(100_000, 20, 20)
heeding.heed_signals()
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Minutes each; begun last, they would leave the other processes without work.
_LONG_FILES = (
    "test_readme.py",
    "test_multiprocess.py",
    "test_surroundings.py",
    "test_generation_run.py",
    "test_stablehlo_folder.py",
    "test_representation.py",
)

_SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser, pluginmanager):
    pluginmanager.register(anchors, "anchors")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in _LONG_FILES)


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of optional real recordings; the test is skipped where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip(f"real recordings not found at {_SHARED_DATA}")
    return _SHARED_DATA


@pytest.fixture
def tokenizer_of():
    """num_tokens -> a tokenizer with so many words: "t0", "t1", ..."""

    def make(num_tokens: int):
        words = {f"t{index}": index for index in range(num_tokens)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        return tokenizer

    return make
