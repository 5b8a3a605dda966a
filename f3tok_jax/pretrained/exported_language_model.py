# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A language model that is a part of an exported folder: tensors there, and parameters of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.pretrained import exported_weights
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.runs import exported


def tensors(
    model: language_model_lib.LanguageModel, params: Any, part: str, head: str = ""
) -> dict[str, np.ndarray]:
    """Its tensors by their names there, in the dtype of `params`.

    Args:
        model: of the parameters.
        params: plain.
        part: that its table and its layers are.
        head: that its output layer is, where it has one of its own; "" to leave that out.
    """
    stored = pretrained_language_model.tensors(model, params)
    return {_name(name, part, head): stored[name] for name in stored if head or _is_body(name)}


def load(
    run: exported.Exported,
    model: language_model_lib.LanguageModel,
    part: str,
    head: str = "",
    *,
    dtype: jnp.dtype,
) -> Any:
    """Parameters of `model`, on the first device; see `tensors`.

    Raises:
        ValueError: where they are not those of config.json, or not finite.
    """
    stored = pretrained_language_model.tensor_shapes(model)
    names = {name: _name(name, part, head) for name in stored}
    shapes = {names[name]: shape for name, shape in stored.items()}
    parts = [one for one in (part, head) if one]
    found = exported_weights.tensors(run.workdir, run.written, shapes, parts, dtype)
    arrays: Mapping[str, np.ndarray] = {name: found[names[name]] for name in stored}
    return jax.tree.map(jnp.asarray, pretrained_language_model.from_tensors(model, arrays))


def _is_body(name: str) -> bool:
    return name.startswith("model.")


def _name(name: str, part: str, head: str) -> str:
    """Of a tensor there, of its name in a folder of its own."""
    _, _, rest = name.partition(".")
    return f"{part if _is_body(name) else head}.{rest}"
