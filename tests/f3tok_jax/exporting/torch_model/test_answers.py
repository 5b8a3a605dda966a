# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Answers in PyTorch are those of JAX, token by token, of sounds of any length in one batch."""

import json
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import lineage
from tests.support import tiny_runs
from tests.support import torch_models

_LENGTHS = (11, 4, 1)  # latents; of an odd number the last token is filled with zeros


def _opened(folder: pathlib.Path):
    """JAX's, PyTorch, and its own, of an exported folder."""
    written = json.loads((folder / "config.json").read_text())
    tensors = safetensors_numpy.load_file(folder / "model.safetensors")
    return tokenizer_lib.F3Tokenizer.from_pretrained(str(folder)), *torch_models.made(
        written, tensors
    )


# A language model of its own with a head, and the generator's with a table alone, whose layers must be
# heavy for it to say anything but its last token again.
@pytest.mark.parametrize(
    ("stage", "is_tied", "scale"), [("representation", False, 0.5), ("generation", True, 2.0)]
)
def test_the_same_tokens_are_said(stage, is_tied, scale, tmp_path):
    runs = tiny_runs.write_chain(tmp_path, scale=scale, is_tied=is_tied)
    torch_folder.write(lineage.Lineage.read(runs[stage]), tmp_path / "model")
    ours, torch, model = _opened(tmp_path / "model")
    width = ours.run.sound.latent_dim
    latents = np.random.default_rng(0).normal(size=(3, _LENGTHS[0], width)).astype(np.float32)
    mask = np.arange(_LENGTHS[0])[None] < np.array(_LENGTHS)[:, None]
    rows = ours.representer.represent([row[known] for row, known in zip(latents, mask)])
    for task in ("transcription", "event"):
        wanted = [ours.transcriber.tokens(row, task=task, max_tokens=9) for row in rows]
        given = torch.from_numpy(latents), torch.from_numpy(mask)
        assert model.answer(*given, task=task, max_tokens=9) == wanted
        assert len(set(map(tuple, wanted))) > 1 and all(wanted)
    # It ends where the language model says so.
    end = wanted[0][2]
    model.config.eos_token_id = end
    found = model.answer(*given, task="event", max_tokens=9)
    assert found == [ids[: ids.index(end)] if end in ids else ids for ids in wanted]
    with pytest.raises(ValueError, match="task must be one of .*transcription.*, got 'colour'"):
        model.answer(*given, task="colour")


def test_a_model_without_what_answers_says_so_in_one_sentence():
    torch, model = torch_models.generator_in_torch(*torch_models.generator())
    with pytest.raises(ValueError, match="got a model that was exported without: export its run"):
        model.answer(torch.zeros(1, 2, model.config.latent_dim))
