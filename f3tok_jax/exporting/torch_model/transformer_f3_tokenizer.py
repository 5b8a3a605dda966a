# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The transformer of F3-Tokenizer's later stages in PyTorch, and the representation encoder.

Blocks of RMSNorm, rotary grouped-query attention and SwiGLU, as of Llama (arXiv 2302.13971) and Qwen3
(arXiv 2505.09388); or of LayerNorm, GELU and biases everywhere, as of the vision transformer (arXiv
2010.11929), for the semantic encoder. Norms and rotations are in float32, whatever dtype the weights
have.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from .autoencoder_f3_tokenizer import Cache

_PIECE = 1024  # positions that a whole sequence is read in at a time, where there is a window


class Transformer(nn.Module):
    """A stack of blocks with a last norm; causal ones can go on from what they have read.

    `fields` are num_layers, width, hidden_width, num_heads, num_kv_heads, head_dim, rope_theta,
    norm_epsilon, qk_norm, and window: positions that attention spans, itself included, 0 for all; block
    is "llama" or "vit", which has neither a rotation nor qk_norm.
    """

    def __init__(self, fields: Mapping, *, causal: bool = True, name: str = "transformer"):
        super().__init__()
        self.causal, self.window, self.name = causal, fields.get("window", 0), name
        self.head_dim = fields["head_dim"]
        self.rope_theta = None if _is_vit(fields) else fields["rope_theta"]
        self.layers = nn.ModuleList(_Block(fields) for _ in range(fields["num_layers"]))
        self.final_norm = _norm(fields)

    def forward(
        self, x: torch.Tensor, cache: Cache | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Whole sequences, or the next positions of those that a cache is of, which is written to.

        Args:
            x: [b, t, width].
            cache: empty, or of the positions before; None for whole sequences.
            mask: [b, t] bool, False for padding, which may stand before all that is valid; what is
                behind it needs none, but where each position sees all others. None for none.

        Returns:
            [b, t, width].
        """
        past = {} if cache is None else cache
        before = past.get(f"{self.name}.valid", x.new_ones(x.shape[0], 0, dtype=torch.bool))
        now = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        valid = torch.cat([before, now], dim=1)
        first = past.get(f"{self.name}.position", torch.zeros((), dtype=torch.long))
        positions = first.to(x.device) + torch.arange(x.shape[1], device=x.device)
        rotation = self._rotation(positions)
        # Of these positions, among all that are remembered.
        own = torch.arange(before.shape[1], valid.shape[1], device=x.device)
        # Of whole sequences without a window nothing is asked that a kernel does not know by itself:
        # no table of all pairs is made.
        is_plain = not (self.window or before.shape[1]) and mask is None
        allowed = None
        if not self.causal:
            # Padding sees padding: a softmax of nothing would be NaN.
            allowed = None if mask is None else (mask[:, :, None] == mask[:, None])[:, None]
        elif not is_plain:
            allowed = self._allowed(own, valid)
        seen = allowed, self.causal and is_plain
        kept = min(valid.shape[1], self.window - 1) if self.window else valid.shape[1]
        for index, layer in enumerate(self.layers):
            names = [f"{self.name}.{index}.{what}" for what in ("key", "value")]
            memory = [past.get(name) for name in names]
            x, *found = layer(x, rotation, seen, memory)
            if cache is not None:
                for name, array in zip(names, found):
                    cache[name] = array[:, :, array.shape[2] - kept :]
        if cache is not None:
            cache[f"{self.name}.valid"] = valid[:, valid.shape[1] - kept :]
            cache[f"{self.name}.position"] = first + x.shape[1]
        return self.final_norm(x)

    def _allowed(self, own: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """[b, 1, t, s] bool: which of s positions each of its own t may see."""
        back = own[:, None] - torch.arange(valid.shape[1], device=own.device)
        seen = (back >= 0) & (back < self.window) if self.window else back >= 0
        # Padding sees itself: a softmax of nothing would be NaN.
        return ((seen & valid[:, None]) | (back == 0))[:, None]

    def _rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Cosines and sines [t, head_dim] of the angles at `positions`, each twice, float32."""
        if self.rope_theta is None:
            return None
        steps = torch.arange(0, self.head_dim, 2, device=positions.device, dtype=torch.float32)
        angles = positions.float()[:, None] * self.rope_theta ** (-steps / self.head_dim)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


class F3TokRepresentationEncoder(nn.Module):
    """Latents of rms 1 to representations at their rate; one sees no latent after its own."""

    def __init__(self, latent_dim: int, fields: Mapping, name: str = "representation"):
        super().__init__()
        self.input = nn.Linear(latent_dim, fields["width"])
        self.transformer = Transformer(fields, name=name)

    def forward(
        self,
        latents: torch.Tensor,
        cache: Cache | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[b, t, latent_dim] -> [b, t, width]; `cache` and `mask` as of Transformer."""
        x = latents.to(self.input.weight.dtype)
        if not self.transformer.window or x.shape[1] <= _PIECE:
            return self.transformer(self.input(x), cache, mask)
        # An hour at once would be attention of 90,000 positions to each other.
        cache, masks = {} if cache is None else cache, [None] * (x.shape[1] // _PIECE + 1)
        if mask is not None:
            masks = mask.split(_PIECE, dim=1)
        pieces = zip(x.split(_PIECE, dim=1), masks)
        return torch.cat([self.transformer(self.input(x), cache, mask) for x, mask in pieces], 1)


def _is_vit(fields: Mapping) -> bool:
    return fields.get("block") == "vit"


def _norm(fields: Mapping) -> nn.Module:
    kind = LayerNorm if _is_vit(fields) else _RMSNorm
    return kind(fields["width"], fields["norm_epsilon"])


class LayerNorm(nn.Module):
    """Standardises the last axis, in float32, scales and shifts."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.epsilon, self.weight = epsilon, nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        learned = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.weight.shape, *learned, self.epsilon).to(x.dtype)


class _RMSNorm(nn.Module):
    """Divides by the root of the mean square over the last axis, in float32, and scales."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.epsilon, self.weight = epsilon, nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        full = x.float()
        inverse = torch.rsqrt(full.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return (full * inverse * self.weight.float()).to(x.dtype)


class _Block(nn.Module):
    """Attention and feed-forward layer, each on the norm of what it is added to."""

    def __init__(self, fields: Mapping):
        super().__init__()
        self.attention_norm = _norm(fields)
        self.attention = _Attention(fields)
        self.feed_forward_norm = _norm(fields)
        self.feed_forward = _GeluFeedForward(fields) if _is_vit(fields) else _FeedForward(fields)

    def forward(self, x, rotation, seen, past):
        attended, key, value = self.attention(self.attention_norm(x), rotation, seen, past)
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x)), key, value


class _Attention(nn.Module):
    def __init__(self, fields: Mapping):
        super().__init__()
        width, size, bias = fields["width"], fields["head_dim"], _is_vit(fields)
        self.head_dim = size
        self.query = nn.Linear(width, fields["num_heads"] * size, bias=bias)
        self.key = nn.Linear(width, fields["num_kv_heads"] * size, bias=bias)
        self.value = nn.Linear(width, fields["num_kv_heads"] * size, bias=bias)
        self.output = nn.Linear(fields["num_heads"] * size, width, bias=bias)
        norms = [_RMSNorm(size, fields["norm_epsilon"]) for _ in range(2)]
        self.query_norm, self.key_norm = norms if fields["qk_norm"] else (None, None)

    def forward(self, x, rotation, seen, past):
        """[b, t, width] and what is remembered -> [b, t, width], keys and values [b, g, s, d]."""
        layers = self.query, self.key, self.value
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for layer in layers
        )
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = _rotate(query, *rotation), _rotate(key, *rotation)
        if past[0] is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        groups = query.shape[1] // key.shape[1]
        heads = (array.repeat_interleave(groups, dim=1) for array in (key, value))
        allowed, is_causal = seen
        attended = F.scaled_dot_product_attention(
            query, *heads, attn_mask=allowed, is_causal=is_causal
        )
        return self.output(attended.transpose(1, 2).flatten(2)), key, value


class _FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, fields: Mapping):
        super().__init__()
        self.gate = nn.Linear(fields["width"], fields["hidden_width"], bias=False)
        self.up = nn.Linear(fields["width"], fields["hidden_width"], bias=False)
        self.down = nn.Linear(fields["hidden_width"], fields["width"], bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class _GeluFeedForward(nn.Module):
    """One hidden layer of exact GELU."""

    def __init__(self, fields: Mapping):
        super().__init__()
        self.up = nn.Linear(fields["width"], fields["hidden_width"])
        self.down = nn.Linear(fields["hidden_width"], fields["width"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))


def _rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotates the pairs (i, i + head_dim / 2) of every head [b, h, t, head_dim], in float32."""
    full = x.float()
    first, second = full.chunk(2, dim=-1)
    return (full * cosines + torch.cat([-second, first], dim=-1) * sines).to(x.dtype)
