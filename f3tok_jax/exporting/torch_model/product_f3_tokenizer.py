# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms and filters of F3-Tokenizer in PyTorch: products with matrices that are not learned."""

import torch
from torch import nn


class Product(nn.Module):
    """A product with a matrix that is no parameter: it follows from the config.

    In float32 always, under autocast too: in bfloat16 a spectrum is off by 0.4 %, which can be heard.
    """

    def __init__(self, matrix: torch.Tensor):
        super().__init__()
        self._matrix = matrix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._matrix.device != x.device:  # as where transformers has placed the weights
            self._matrix = self._matrix.to(x.device)
        with torch.autocast(x.device.type, enabled=False):
            return x @ self._matrix

    def _apply(self, fn, recurse: bool = True):
        device = fn(torch.empty(0)).device  # Where the model moves to; its dtype is not ours.
        if device.type != "meta":
            self._matrix = self._matrix.to(device)
        return super()._apply(fn, recurse)
