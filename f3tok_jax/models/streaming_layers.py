# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The layers of sequence-layers that the autoencoder is made of, without the rest of that package.

Its `__init__` loads all of its layers, and with them SciPy's signals, Orbax and recurrentgemma: two
seconds of every program's start, against a sixth of one for what is used here.
"""

import importlib
import sys
import types

_PACKAGE = "sequence_layers.jax"


def _load(*names: str) -> list[types.ModuleType]:
    """Modules of the package, loaded below a stand-in for it that knows where they lie.

    Whoever imports the package itself afterwards runs its `__init__` and finds these same modules.
    """
    is_there = _PACKAGE in sys.modules
    if not is_there:
        stand_in = types.ModuleType(_PACKAGE)
        parent = importlib.import_module("sequence_layers")  # its own __init__ holds a version
        stand_in.__path__ = [f"{place}/jax" for place in parent.__path__]
        sys.modules[_PACKAGE] = stand_in
    try:
        return [importlib.import_module(f"{_PACKAGE}.{name}") for name in names]
    finally:
        if not is_there:
            del sys.modules[_PACKAGE]


_combinators, _convolution, _dense, _pooling, _simple, _types = _load(
    "combinators", "convolution", "dense", "pooling", "simple", "types"
)

Affine = _simple.Affine
AveragePooling2D = _pooling.AveragePooling2D
Cast = _simple.Cast
Conv2D = _convolution.Conv2D
Dense = _dense.Dense
Elu = _simple.Elu
Flatten = _simple.Flatten
Reshape = _simple.Reshape
Residual = _combinators.Residual
Sequence = _types.Sequence
SequenceLayer = _types.SequenceLayer
SequenceLayerConfig = _types.SequenceLayerConfig
Serial = _combinators.Serial
Upsample2D = _simple.Upsample2D
