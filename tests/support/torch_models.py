# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Exported modules in PyTorch with weights of JAX."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest


def made(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]):
    """PyTorch, and the model of a config.json with its weights; where there is none, a skip."""
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    pytest.importorskip("transformers", reason="parity needs transformers, of the parity extra")
    from f3tok_jax.exporting.torch_model import configuration_f3_tokenizer as configuration
    from f3tok_jax.exporting.torch_model import modeling_f3_tokenizer as modeling

    fields = {
        name: value for name, value in config.items() if name not in ("auto_map", "model_type")
    }
    model = modeling.F3TokenizerModel(configuration.F3TokenizerConfig(**fields)).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    return torch, model.requires_grad_(False)
