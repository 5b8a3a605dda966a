# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules in PyTorch cannot mean is refused in one sentence, and nothing else is."""

import numpy as np
import pytest

from tests.support import tiny_models
from tests.support import torch_models


def _autoencoder():
    return torch_models.autoencoder_in_torch(*tiny_models.built())


def _generator():
    return torch_models.generator_in_torch(*torch_models.generator())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 20_000 * x, "must be finite and in .*1 / 32768"),
        (lambda x: x / 0, "must be finite"),
        (lambda x: x * float("nan"), "must be finite"),
        (lambda x: x.reshape(1, 2, -1), "mono, got .1, 2, 1000.: mix its channels first"),
        (lambda x: (1000 * x).short(), "float in .* got torch.int16: scale them"),
    ],
)
def test_sound_that_cannot_be_meant_is_refused(change, said):
    torch, model = _autoencoder()
    sound = torch.from_numpy(0.1 * np.random.default_rng(0).normal(size=(1, 2000)))
    with pytest.raises(ValueError, match=said):
        model.encode(change(sound))


def test_what_is_behind_a_mask_may_be_anything():
    torch, model = _autoencoder()
    sound = torch.full((1, 2000), 0.1)
    sound[:, 1000:] = float("nan")
    mask = torch.arange(2000)[None] < 1000
    assert model.encode(sound, mask).latents.isfinite().all()
    with pytest.raises(ValueError, match="padding_mask must be True first"):
        model.encode(sound, ~mask)
    latents = torch.full((1, 4, 8), float("inf"))
    with pytest.raises(ValueError, match="latents must be finite"):
        model.decode(latents)


def test_a_loss_of_nothing_is_refused():
    torch, model = _autoencoder()
    with pytest.raises(ValueError, match="at least one sample where a loss is wanted"):
        model(torch.zeros(2, 0), return_loss=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(max_seconds=-1), "seconds of sound must be above 0 and finite, got -1"),
        (dict(max_seconds=0), "seconds of sound must be above 0"),
        (dict(max_seconds=float("nan")), "seconds of sound must be above 0"),
        (dict(max_seconds=float("inf")), "seconds of sound must be above 0"),
        (dict(max_seconds=60), "at most 64 positions of the language model, got 7.. positions|got"),
        (dict(sway=9.0), "sway must be in"),
        (dict(num_steps=0), "num_steps must be at least 1"),
        (dict(do_sample=True), "sampling must be of num_steps, .* got 'do_sample'"),
        (dict(attention_mask=np.ones((1, 3))), "attention_mask must be .1, 2."),
        (dict(attention_mask=np.zeros((1, 2))), "must have a text or a prompt"),
        (dict(latents=np.zeros((2, 4, 4))), "latents must be of 1 rows, as the text, got 2"),
        (dict(noise=np.zeros((1, 1, 2, 4))), "noise must be of 4 patches, as max_seconds, got 1"),
    ],
)
def test_what_cannot_be_generated_is_refused(changes, said):
    torch, model = _generator()
    given = dict(max_seconds=0.25) | {
        name: torch.from_numpy(np.float32(value)) if isinstance(value, np.ndarray) else value
        for name, value in changes.items()
    }
    with pytest.raises(ValueError, match=said):
        model.generate(torch.tensor([[1, 2]]), **given)


def test_a_part_that_is_not_there_is_named():
    torch, model = _generator()
    with pytest.raises(ValueError, match="this needs the part 'encoder', got a model of repres"):
        model.encode(torch.zeros(1, 1000))
    with pytest.raises(ValueError, match="parts must be of encoder, decoder, got .'flow_head'."):
        torch_models.made({"parts": ["flow_head"]}, {})


class _Words:
    """A tokenizer of letters, which drops capitals."""

    def __call__(self, text, **_):
        return {"input_ids": [ord(one) % 11 for one in text if not one.isupper()]}

    def decode(self, ids, **_):
        self.kept = ids
        return self.text


def test_texts_are_read_as_they_were_in_training():
    torch, model = _generator()
    words = _Words()
    words.text = "ab"
    plain, spaced = (model.prepare_text(words, text)["input_ids"] for text in ("ab", " ab\n"))
    assert torch.equal(plain, spaced) and plain[0, :2].tolist() == [1, 2]
    assert model.prepare_text(words, "ab", "caption")["input_ids"][0, 0] == 4
    assert model.prepare_text(words, ["ab", ""])["attention_mask"].sum(1).tolist()[1] == 0
    for text, task, said in (
        ([], None, "text must be one or several, got none"),
        ("abX", None, "characters that the tokenizer knows, got 'abX', of which it keeps 'ab'"),
        ("ab", "other", "task must be one of transcription, caption, got 'other'"),
    ):
        with pytest.raises(ValueError, match=said):
            model.prepare_text(words, text, task)
    words.text = "a" * 20
    with pytest.raises(ValueError, match="text must be of at most 8 tokens, got 24"):
        model.prepare_text(words, words.text)
