# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Names and layouts of PyTorch: there and back to the last bit; what does not fit is named."""

import jax
import numpy as np
import pytest

from f3tok_jax.pretrained import torch_weights
from tests.support import tiny_models


def test_weights_of_every_module_come_back_bit_for_bit():
    _, weights = tiny_models.generator()
    _, variables = tiny_models.built()
    heard = {name: weights[name] for name in ("encoder", "projector", "head")}
    for params in (variables["params"], heard):
        back = torch_weights.from_tensors(torch_weights.tensors(params), params)
        jax.tree.map(np.testing.assert_array_equal, back, params)


def test_layers_have_tensors_of_their_own_and_matrices_are_turned_round():
    _, weights = tiny_models.generator()
    kernel = weights["encoder"]["transformer"]["layers"]["attention"]["query"]["kernel"]
    tensors = torch_weights.tensors({"encoder": weights["encoder"]})
    name = "encoder.transformer.layers.0.attention.query.weight"
    np.testing.assert_array_equal(tensors[name], np.asarray(kernel)[0].T)
    assert tensors["encoder.transformer.final_norm.weight"].shape == (16,)


def test_what_does_not_fit_is_named():
    params = tiny_models.built()[1]["params"]
    tensors = torch_weights.tensors(params)
    name = "encoder.stages.0.down.weight"
    with pytest.raises(ValueError, match=f"{name} must be of shape .* got"):
        torch_weights.from_tensors(tensors | {name: tensors[name][:1]}, params)
    with pytest.raises(ValueError, match="have beyond them another"):
        torch_weights.from_tensors(tensors | {"another": tensors[name]}, params)
    del tensors[name]
    with pytest.raises(ValueError, match=f"lack {name}"):
        torch_weights.from_tensors(tensors, params)
