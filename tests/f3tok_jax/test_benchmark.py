# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: what each times, writes and refuses."""

import json

import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax import benchmark
from f3tok_jax.benchmarking import convolution
from f3tok_jax.benchmarking import start
from f3tok_jax.benchmarking import step
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import results
from tests.support import tiny_models

_FORMS = ["f3tok jax", "f3tok torch", "f3tok onnx", "f3tok stablehlo"]
_TINY = "--config=configs/autoencoder.py:tiny"


def _small() -> list[str]:
    """Changes that make the tiny recipe compile in seconds."""
    whole, small = recipe.get_config("tiny"), tiny_models.config()
    small.discriminators.update(dict(periods=(2,), stft_windows=(256,)))
    whole, small = config_lib.flatten(whole), config_lib.flatten(small)
    return [f"--config.{key}={value}" for key, value in small.items() if whole[key] != value]


def _needs_onnx() -> None:
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the benchmark needs the packages of the onnx extra")


def test_every_form_is_timed_whole_and_in_steps(tmp_path, capsys):
    _needs_onnx()
    output = tmp_path / "benchmark.json"
    few = ["--seconds=1", "--rounds=1", "--step_rounds=1", "--threads=1", "--others="]
    assert benchmark.main(["codec", _TINY, *_small(), *few, f"--output={output}"]) == 0
    tables, said = results.read(output).tables, capsys.readouterr().out
    titles = [f"{task}, 1 x 1 s" for task in ("encode", "decode", "encode and decode")]
    assert list(tables) == [*titles, "encode_step", "decode_step"]
    for title, rows in tables.items():
        assert title in said
        assert [row.name for row in rows] == _FORMS
        assert {row.amount for row in rows} == {0.04 if "step" in title else 1.0}
        assert all(0 < row.best <= row.seconds[1] for row in rows)
    machine = json.loads(output.read_text())["machine"]
    assert machine["cores"] >= 1 and machine["versions"]["jax"]


def test_a_codec_that_is_none_is_refused_in_one_sentence(capsys):
    _needs_onnx()
    assert benchmark.main(["codec", _TINY, "--others=opus,mimi"]) == 1
    said = capsys.readouterr().err
    assert "--others must be of dac, encodec, mimi, got opus" in said and said.count("\n") == 1


@pytest.mark.slow
def test_train_steps_are_timed(tmp_path):
    output = tmp_path / "benchmark.json"
    arguments = [_TINY, *_small(), "--rounds=2", f"--output={output}"]
    assert benchmark.main(["step", *arguments]) == 0
    ((title, (row,)),) = results.read(output).tables.items()
    assert title.startswith("train step on 8 x cpu") and row.unit == "audio_seconds"
    assert row.amount == pytest.approx(8 * 2 * 0.04) and row.best > 0


def test_a_changed_recipe_is_timed_beside_the_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "_step", lambda config: (lambda: None, config.seed, "positions"))
    output = tmp_path / "benchmark.json"
    arguments = [_TINY, "--config.seed=7", _TINY.replace("config", "others", 1)]
    assert benchmark.main(["step", *arguments, "--rounds=1", f"--output={output}"]) == 0
    (rows,) = results.read(output).tables.values()
    unchanged = recipe.get_config("tiny").seed
    name = "configs/autoencoder.py:tiny"
    found = [(row.name, row.amount) for row in rows]
    assert found == [(f"{name} --config.seed=7", 7), (name, unchanged)]


def test_forms_of_a_convolution_are_timed_and_are_one_function(tmp_path):
    output = tmp_path / "benchmark.json"
    small = ["--frames=6", "--bins=10", "--channels=8", "--rounds=1", f"--output={output}"]
    assert benchmark.main(["convolution", *small]) == 0
    ((_, rows),) = results.read(output).tables.items()
    forms = convolution.forms()
    assert [row.name for row in rows] == list(forms)
    assert all(row.amount == pytest.approx(1e-9 * 6 * 10 * 8 * 8 * 9) for row in rows)
    rng = np.random.default_rng(0)
    # Small whole numbers, which int8 and bfloat16 hold as they are.
    x, kernel = (rng.integers(-3, 4, shape) for shape in ((1, 6, 10, 8), (3, 3, 8, 8)))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    for name in forms.keys() - {"direct", "separable"}:
        expected = forms["direct"](x, kernel)
        np.testing.assert_allclose(forms[name](x, kernel), expected, atol=2e-3, err_msg=name)
    assert forms["separable"](x, kernel).shape == expected.shape


def test_bins_that_fill_no_tiles_are_refused_in_one_sentence(capsys):
    small = ["--frames=2", "--bins=12", "--channels=1", "--rounds=1"]
    assert benchmark.main(["convolution", *small]) == 1
    said = capsys.readouterr().err
    assert "bins must be a multiple of 5" in said and said.count("\n") == 1


def test_flags_of_a_config_are_for_those_that_have_one(capsys):
    assert benchmark.main(["start", "--model=RUN", "--config.seed=1"]) == 1
    assert "unrecognized arguments: --config.seed=1" in capsys.readouterr().err


@pytest.mark.slow
def test_programs_are_timed_from_start_to_end(tmp_path, monkeypatch):
    program = "import sys, soundfile; soundfile.read(sys.argv[1])"
    monkeypatch.setattr(start, "_others", lambda: {"another": program})
    run = tmp_path / "run"
    tiny_models.write_run(run)
    output = tmp_path / "benchmark.json"
    assert benchmark.main(["start", f"--model={run}", "--rounds=1", f"--output={output}"]) == 0
    (rows,) = results.read(output).tables.values()
    names = ["f3tok info", "f3tok encode", "f3tok decode", "another"]
    assert [row.name for row in rows] == names
    info, encode, *_ = rows
    assert info.amount == 0 and encode.amount == 1


def test_a_program_that_fails_is_said(tmp_path, capsys):
    assert benchmark.main(["start", f"--model={tmp_path}/none"]) == 1
    assert "must end with 0, got 1" in capsys.readouterr().err
