# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of codecs: what it times, in turn, what it writes and refuses."""

import json

import pytest

from f3tok_jax.exporting import speed
from f3tok_jax.runs import results
from tests.support import tiny_models

_FORMS = ["f3tok jax", "f3tok torch", "f3tok onnx", "f3tok stablehlo"]


def test_calls_are_timed_in_turn_without_the_first_and_compared_by_round(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])

    def call(name, *times):
        left = list(times)

        def one():
            order.append(name)
            clock[0] += left.pop(0)

        return one

    calls = {"one": call("one", 100, 1, 2, 4), "other": call("other", 200, 3, 4, 4)}
    one, other = speed.measure(calls, rounds=3, seconds=10.0)
    assert order == ["one", "other"] * 4
    assert (one.seconds, one.best, one.times_the_first) == ((1.5, 2.0, 3.0), 1.0, (1.0, 1.0, 1.0))
    assert (other.seconds[1], other.best, other.times_the_first) == (4.0, 3.0, (1.5, 2.0, 2.5))


def test_every_form_is_timed_whole_and_in_steps(tmp_path, capsys):
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the benchmark needs the packages of the onnx extra")
    model = tiny_models.config().model
    narrow = tiny_models.overrides(model={name: model[name] for name in ("strides", "latent_dim")})
    channels = tiny_models.overrides(
        model={f"{part}_channels": model[f"{part}_channels"] for part in ("encoder", "decoder")}
    )
    output = tmp_path / "speed.json"
    arguments = ["--config=configs/autoencoder.py:tiny", *narrow, *channels, f"--output={output}"]
    few = ["--seconds=1", "--rounds=1", "--step_rounds=1", "--threads=1", "--others="]
    assert speed.main([*arguments, *few]) == 0
    tables, said = results.read(output).tables, capsys.readouterr().out
    assert list(tables) == ["encode, 1 x 1 s", "decode, 1 x 1 s", "encode_step", "decode_step"]
    for title, rows in tables.items():
        assert title in said
        assert [row.name for row in rows] == _FORMS
        assert {row.sound for row in rows} == {0.04 if "step" in title else 1.0}
        assert all(0 < row.best <= row.seconds[1] for row in rows)
    assert json.loads(output.read_text())["threads"] == 1


def test_a_codec_that_is_none_is_refused_in_one_sentence(capsys):
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the benchmark needs the packages of the onnx extra")
    assert speed.main(["--config=configs/autoencoder.py:tiny", "--others=opus,mimi"]) == 1
    said = capsys.readouterr().err
    assert "--others must be of dac, encodec, mimi, got opus" in said and said.count("\n") == 1
