# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The dtype that weights are stored in; whoever loads them computes in that of config.json."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np

# The first is what weights are trained in: it leaves all as it is, a language model that is read in
# another one, too.
DTYPES = ("float32", "bfloat16", "float16")


def stored(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Tensors by name in one of DTYPES, each value rounded to the nearest.

    Args:
        tensors: finite.
        dtype: of all of them; but float32, see there.

    Raises:
        ValueError: where a value is beyond what the dtype holds.
    """
    if dtype == DTYPES[0]:
        return dict(tensors)
    found = {}
    for name, array in tensors.items():
        with np.errstate(over="ignore"):  # said below, by the tensor's name
            found[name] = array.astype(dtype)
        # Of bfloat16 NumPy knows no largest number.
        if array.size and not np.isfinite(found[name].astype(np.float32)).all():
            most = float(np.abs(array.astype(np.float32)).max())
            raise ValueError(
                f"--dtype={dtype} must hold every weight, up to {float(ml_dtypes.finfo(dtype).max):g}, "
                f"got {most:g} in {name}: give --dtype={DTYPES[0]}, or another that holds it"
            )
    return found
