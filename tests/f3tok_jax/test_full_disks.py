# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Programs whose disk is full when their work is done: one sentence, exit code 4, no half file."""

import json
import time

import numpy as np
import pytest

from data_pipelines import benchmark
from data_pipelines.records import atomic
from f3tok_jax import ablation
from f3tok_jax import compile_check
from f3tok_jax import encode_shards
from f3tok_jax import evaluate
from f3tok_jax import probe
from f3tok_jax import report
from f3tok_jax.cost import step as cost_step
from f3tok_jax.evaluation import language_model
from f3tok_jax.evaluation import sounds_folder
from f3tok_jax.inference import codec
from f3tok_jax.probing import ablation as ablation_lib
from f3tok_jax.probing import probes
from f3tok_jax.runs import results
from tests.support import disks
from tests.support import sounds
from tests.support import tiny_models

_RECIPE = "--config=configs/autoencoder.py:tiny"
_FOUND = results.LanguageModel(step=3, num_records=2, loss=1.0, perplexity=2.7)


def _evaluate(patch, folder):
    """Of a run of language models, whose evaluation is only written."""
    (folder / "config.json").write_text(json.dumps({"stage": "language_model"}))
    write = lambda workdir, shards, output, **more: results.write(output, _FOUND)
    patch.setattr(language_model, "evaluate", write)
    return evaluate.main, [f"--workdir={folder}", "--shards=x"]


def _probe(patch, folder):
    write = lambda workdir, shards, output, **more: results.write(output, _FOUND)
    patch.setattr(probes, "probe", write)
    return probe.main, [f"--workdir={folder}", "--shards=x", "--label=digit"]


def _ablate(patch, folder):
    write = lambda runs, shards, sets, output, **more: results.write(output, _FOUND)
    patch.setattr(ablation_lib, "ablate", write)
    arguments = ["--shards=x", "--test_shards=a=x", "--label=digit", f"--workdir={folder / 'runs'}"]
    return ablation.main, ["--config=configs/representation.py:tiny", *arguments]


def _check(patch, folder):
    def too_large(*arguments):
        raise cost_step.MemoryDoesNotFitError("too large")

    patch.setattr(cost_step, "compile_part", too_large)
    return compile_check.main, [_RECIPE, "--topology=v5e:2x2"]


def _report(patch, folder):
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/mel": 3.0}\n')
    return report.main, [f"--runs={folder}"]


def _benchmark(patch, folder):
    return benchmark.main, [
        f"--shards={sounds.labelled_set(folder)}",
        "--num_steps=2",
        "--batch_size=4",
    ]


@pytest.mark.reliability("R08")
@pytest.mark.parametrize(
    "begin", [_evaluate, _probe, _ablate, _check, _report, _benchmark], ids=lambda one: one.__name__
)
def test_results_without_room_end_a_program_with_4(begin, tmp_path, monkeypatch, capsys):
    folder, output = tmp_path / "run", tmp_path / "out" / "results.json"
    folder.mkdir()
    main, arguments = begin(monkeypatch, folder)
    capsys.readouterr()
    started = time.monotonic()
    with disks.room(30):
        assert main([*arguments, f"--output={output}"]) == 4, capsys.readouterr().err
    assert time.monotonic() - started < 60
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith(f"{output} cannot be used: File too large\n")
    assert not list(output.parent.iterdir())


@pytest.mark.reliability("R08")
def test_latents_without_room_end_with_4_and_go_on_with_room(tmp_path, monkeypatch, capsys):
    zeros = lambda self, waveforms, **options: [
        np.zeros((-(-len(waveform) // 640), 8), np.float32) for waveform in waveforms
    ]
    monkeypatch.setattr(codec.Codec, "encode", zeros)
    tiny_models.write_run(tmp_path / "run")
    shards = sounds.labelled_set(tmp_path / "sound", num_files=8)
    arguments = [f"--workdir={tmp_path / 'run'}", f"--shards={shards}", f"--output={tmp_path}/out"]
    with disks.room(1000):
        assert encode_shards.main(arguments) == 4
    error = capsys.readouterr().err
    assert "File too large" in error and error.count("\n") == 1
    assert encode_shards.main(arguments) == 0


@pytest.mark.reliability("R08")
def test_a_language_model_without_room_is_a_full_disk_and_no_half_file(tmp_path):
    with disks.room(10_000), pytest.raises(OSError, match="File too large") as raised:
        tiny_models.write_language_model(tmp_path)
    assert raised.value.errno in atomic.FULL and not list((tmp_path / "model").iterdir())


@pytest.mark.reliability("R08")
def test_sounds_to_listen_to_without_room_are_a_full_disk(tmp_path):
    folder = sounds_folder.SoundsFolder(
        tmp_path / "results.json", [], num_listen=0, sample_rate=8000
    )
    folder._entries[0] = {"key": "a", "files": {}}
    with disks.room(100), pytest.raises(OSError, match="File too large"):
        folder.write(0, "model", np.zeros(800))
    assert not list(tmp_path.rglob("*.*"))
