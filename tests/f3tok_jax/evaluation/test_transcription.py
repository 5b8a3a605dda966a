# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Transcripts of shards: which records, which rates, and what is refused."""

import json
import types

import numpy as np
import pytest

from data_pipelines.reading import sources
from data_pipelines.records import sound as sound_records
from f3tok_jax import evaluate
from f3tok_jax.evaluation import transcription
from f3tok_jax.inference import tokenizer
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import results as results_lib

_TEXTS = ("one two", "", "three", "music with drums", "four five six")


class _Source:
    """Records with the text and the sound of their number; the last but one is music."""

    def __len__(self):
        return len(_TEXTS)

    def __getitem__(self, index):
        return sound_records.Record(
            key=f"key {index}",
            waveform=np.full(8, 1000 * (index + 1), np.int16),
            sample_rate=16_000,
            texts=(sound_records.Text(_TEXTS[index], "caption" if index == 3 else "transcript"),),
        )

    def is_whole(self, record):
        return True


class _Tokenizer:
    """Hears every sentence as it is, but "six" as "sex", from latents that are the samples."""

    sample_rate, fingerprint = 16_000, "abc"
    codec = types.SimpleNamespace(encode=lambda sounds: [sound[:, None] for sound in sounds])
    representer = types.SimpleNamespace(represent=list, step=7)

    @property
    def transcriber(self):
        def answer(representations, *, task):
            assert task == "transcription" and representations.shape == (8, 1)
            return _TEXTS[round(representations[0, 0] * 32768 / 1000) - 1].replace("six", "sex")

        return types.SimpleNamespace(answer=answer)


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    made = lambda folder, step, *, moved, say: _Tokenizer()
    monkeypatch.setattr(tokenizer.F3Tokenizer, "from_pretrained", made)
    run = types.SimpleNamespace(stage="representation")
    monkeypatch.setattr(config_lib, "load", lambda folder: run)
    monkeypatch.setattr(sources, "open_source", lambda folder, *, sample_rate: _Source())


def test_rates_are_of_all_sentences_together(tmp_path, capsys):
    output = tmp_path / "transcripts.json"
    assert evaluate.main(["--workdir=RUN", "--shards=DIR", f"--output={output}"]) == 0
    results = json.loads(output.read_text())
    assert [example["reference"] for example in results["examples"]] == [
        *("one two", "three", "four five six")
    ]
    assert results["num_examples"] == 3
    assert results["characters"] == pytest.approx(1 / (7 + 5 + 13))
    assert results["words"] == pytest.approx(1 / 6)
    said = capsys.readouterr().out
    assert "character error rate 0.040, word error rate 0.167" in said
    assert said.endswith(f"RUN, step 7: {output}\n") and results["step"] == 7
    shown = results_lib.read(output).examples[2]
    assert (shown.reference, shown.hypothesis) == ("four five six", "four five sex")


def test_fewer_are_evenly_spaced():
    found = transcription.evaluate("RUN", "DIR", num_examples=2)
    assert [example.key for example in found.examples] == ["key 0", "key 2"]


@pytest.mark.parametrize("texts, num_examples", [(_TEXTS, 0), (("", "", "", "music", ""), 100)])
def test_nothing_to_transcribe_is_one_sentence(texts, num_examples, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(f"{__name__}._TEXTS", texts)
    arguments = ["--workdir=RUN", "--shards=DIR", f"--num_examples={num_examples}"]
    assert evaluate.main([*arguments, f"--output={tmp_path / 'x.json'}"]) == 1
    error = capsys.readouterr().err
    assert "--shards must hold whole sentences of speech" in error and error.count("\n") == 1
