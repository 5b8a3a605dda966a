# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Generation that is timed: how much sound each call makes."""

import types

import pytest

from f3tok_jax import benchmark
from f3tok_jax.inference import tokenizer
from f3tok_jax.runs import results


class _Generator:
    patches_per_second = 12.5
    text = types.SimpleNamespace(weights={"tts": None})

    def patches_of(self, seconds):
        return -int(-seconds * self.patches_per_second // 1)

    def pieces(self, requests, *, max_patches, min_patches):
        assert max_patches == min_patches
        yield from range(max_patches)


@pytest.fixture(autouse=True)
def _generator(monkeypatch):
    made = types.SimpleNamespace(text_to_sound=_Generator())
    monkeypatch.setattr(tokenizer.F3Tokenizer, "from_pretrained", lambda *_, **__: made)


def test_speed_is_of_whole_sounds_as_long_as_they_are_made(tmp_path):
    output = tmp_path / "benchmark.json"
    arguments = ["--workdir=RUN", "--seconds=0.5,1", "--batch_size=2", f"--output={output}"]
    assert benchmark.main(["generation", *arguments]) == 0
    first, whole = results.read(output).tables.values()
    assert [row.name for row in first] == [row.name for row in whole] == ["0.5 s", "1 s"]
    assert [row.amount for row in whole] == pytest.approx([2 * 7 / 12.5, 2 * 13 / 12.5])
    # The first piece is as long whatever is asked for: to divide that by its time says nothing.
    assert [row.amount for row in first] == [0, 0]


def test_no_length_is_refused(capsys):
    assert benchmark.main(["generation", "--workdir=RUN", "--seconds=,"]) == 1
    assert "--seconds must be at least one length" in capsys.readouterr().err
