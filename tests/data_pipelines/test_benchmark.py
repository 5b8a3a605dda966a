# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the loader: its figures, and what it cannot measure."""

import json

import pytest

from data_pipelines import benchmark
from tests.support import sounds


def test_shares_are_of_the_ceiling(tmp_path):
    loader = sounds.open_pipeline(
        sounds.shard_set(tmp_path), sample_rate=16_000, crop_length=4_000, batch_size=4
    )
    figures = benchmark.measure(loader, num_steps=3, num_rounds=1)
    assert figures["batches_share"] == pytest.approx(figures["batches"] / figures["ceiling"])
    assert figures["crop_seconds"] == 0.25 and figures["batch_size"] == 4
    assert all(value > 0 for value in figures.values())


def test_the_program_prints_and_writes_them(tmp_path, capsys):
    shards, output = sounds.shard_set(tmp_path), tmp_path / "figures.json"
    arguments = [f"--shards={shards}", "--num_steps=2", "--batch_size=4", "--crop_seconds=0.2"]
    assert benchmark.main([*arguments, f"--output={output}"]) == 0
    assert json.loads(output.read_text())["crop_seconds"] == 0.2
    assert "of the ceiling" in capsys.readouterr().out


def test_a_folder_that_is_no_set_is_one_sentence(tmp_path, capsys):
    assert benchmark.main([f"--shards={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("data_pipelines.benchmark: ") and said.count("\n") == 1
