# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What export refuses; that a folder is right is stages/test_language_model.py's and exporting/'s."""

import pytest

from f3tok_jax import export
from f3tok_jax.exporting import forms
from f3tok_jax.runs import config as config_lib


@pytest.mark.parametrize("stage", ["representation", "generation"])
def test_a_run_without_weights_is_refused_in_one_sentence(stage, tmp_path, capsys):
    config_lib.save(config_lib.read(f"configs/{stage}.py:tiny"), str(tmp_path / "run"))
    assert export.main([f"--workdir={tmp_path}/run", f"--output={tmp_path}/out"]) == 1
    said = capsys.readouterr().err
    assert "must hold a checkpoint" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path, capsys):
    assert export.main([f"--workdir={tmp_path}", f"--output={tmp_path}/out"]) == 1
    said = capsys.readouterr().err
    assert "must be the work folder of a run" in said and said.count("\n") == 1


def test_a_form_that_lacks_its_packages_is_refused_before_anything_is_read(
    tmp_path, capsys, monkeypatch
):
    absent = ("onnx", "onnxruntime", "onnxscript", "torch", "transformers")
    monkeypatch.setattr(
        forms.importlib.util, "find_spec", lambda name: None if name in absent else 1
    )
    assert export.main([f"--workdir={tmp_path}/none", f"--output={tmp_path}/out", "--onnx"]) == 1
    said = capsys.readouterr().err
    assert (
        "--onnx needs packages that are not installed, torch, transformers, onnx, onnxscript"
        in said
    )
    assert "pip install -e '.[onnx]'" in said and said.count("\n") == 1


@pytest.mark.parametrize("more, what", [(["--bundle"], "a --bundle"), ([], "a language model")])
@pytest.mark.parametrize("flag", ["--stablehlo", "--without=answers", "--dtype=float16"])
def test_a_flag_of_what_it_is_not_for_is_refused_in_one_sentence(
    flag, more, what, tmp_path, capsys
):
    config_lib.save(config_lib.read("configs/language_model.py:tiny"), str(tmp_path / "run"))
    arguments = [f"--workdir={tmp_path}/run", f"--output={tmp_path}/out", flag, *more]
    assert export.main(arguments) == 1
    said = capsys.readouterr().err
    assert (
        f"{flag.partition('=')[0]} must be of a run that becomes a folder for PyTorch, got {what}"
        in said
    )
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()
