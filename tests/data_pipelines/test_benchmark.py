# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the loader: what it writes and refuses."""

import json

from data_pipelines import benchmark
from tests.support import sounds


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
