# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer's answers in PyTorch: representations to the text that a language model says of them.

    [audio start] r_1 ... r_N [audio end] instruction answer

It reads all that is before the answer, and then says the likeliest token, again and again.
"""

from collections.abc import Sequence
import dataclasses

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache

from .generation_f3_tokenizer import F3TokProjector
from .generation_f3_tokenizer import hidden_states
from .generation_f3_tokenizer import padded_before


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads representations, and answers greedily.

    Attributes:
        projector: representations to audio tokens.
        language_model: of transformers, without its head.
        head: [vocabulary, d], of the logits.
        embedding_rms: of the language model's table, the scale of all that it reads.
    """

    projector: F3TokProjector
    language_model: nn.Module
    head: torch.Tensor
    embedding_rms: float

    def answer(
        self,
        representations: torch.Tensor,
        mask: torch.Tensor,
        asked: Sequence[int],
        *,
        end_of_text: int,
        max_tokens: int,
    ) -> list[list[int]]:
        """Token ids of an answer about each row, without the one that ends it.

        Args:
            representations: [b, t, width].
            mask: [b, t] bool, True from the front.
            asked: token ids of the instruction.
            end_of_text: token id.
            max_tokens: of an answer, at most.
        """
        x, mask = padded_before(*self._prefix(representations, mask, asked))
        cache = DynamicCache(config=self.language_model.config)
        answers: list[list[int]] = [[] for _ in x]
        goes_on = mask.new_ones(len(x))
        for _ in range(max_tokens):
            state = hidden_states(self.language_model, x, mask, cache)[:, -1]
            token = F.linear(state.to(self.head.dtype), self.head).argmax(dim=-1)
            goes_on = goes_on & (token != end_of_text)
            if not goes_on.any():
                break
            for row in goes_on.nonzero()[:, 0].tolist():
                answers[row].append(token[row].item())
            x = self.language_model.get_input_embeddings()(token[:, None])
            mask = F.pad(mask, (0, 1), value=True)
        return answers

    def _prefix(
        self, representations: torch.Tensor, mask: torch.Tensor, asked: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [b, s, d] of the sound between its boundaries and what is asked, and their mask."""
        patch, rows = self.projector.patch, representations.shape[0]
        missing = -representations.shape[1] % patch  # what fills no token is followed by zeros
        heard = torch.where(mask[..., None], representations, 0.0)
        audio = self.projector(F.pad(heard, (0, 0, 0, missing)))
        start, end = self.projector.boundaries.float().expand(rows, -1, -1).split(1, dim=1)
        sound = torch.cat([start, audio, end], dim=1) * self.embedding_rms
        ids = torch.tensor(asked, device=sound.device).expand(rows, -1)
        text = self.language_model.get_input_embeddings()(ids).float()
        tokens = F.pad(mask, (0, missing))[:, ::patch]
        whole = F.pad(F.pad(tokens, (1, 0), value=True), (0, 1 + len(asked)), value=True)
        return torch.cat([sound, text], dim=1), whole
