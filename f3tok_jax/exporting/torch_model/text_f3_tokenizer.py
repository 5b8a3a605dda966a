# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Texts as F3-Tokenizer's generator reads them: what is asked, the text, and the end of the text."""

from collections.abc import Mapping, Sequence

import torch


def text_rows(
    tokenizer, texts: Sequence[str], task: str | None, fields: Mapping, end_of_text: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask [b, s], int64; rows are padded behind.

    Args:
        tokenizer: of transformers.
        texts: at least one; of "" a row is empty.
        task: one of fields["tasks"]; None for fields["task"].
        fields: config.generation.
        end_of_text: token id.

    Raises:
        ValueError: for another task, or a text that is too long or has characters that the tokenizer
            drops.
    """
    if not texts:
        raise ValueError("text must be one or several, got none")
    tasks, task = fields["tasks"], task or fields["task"]
    if task not in tasks:
        raise ValueError(f"task must be one of {', '.join(tasks)}, got {task!r}")
    rows = [
        _row(tokenizer, text.strip(), tasks[task], fields["gap"], end_of_text) for text in texts
    ]
    if (longest := max(map(len, rows))) > (most := fields["max_tokens"]):
        raise ValueError(f"text must be of at most {most} tokens, got {longest}: cut it")
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = torch.tensor(row, dtype=torch.long), 1
    return ids, mask


def _row(tokenizer, text: str, asked: Sequence[int], gap: str, end_of_text: int) -> list[int]:
    if not text:
        return []
    # What is spelt like a special token is text.
    ids = tokenizer(gap + text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    kept = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if kept.strip() != text:
        raise ValueError(
            f"text must be of characters that the tokenizer knows, got {text!r}, of which it keeps "
            f"{kept.strip()!r}"
        )
    return [*asked, *ids, end_of_text]
