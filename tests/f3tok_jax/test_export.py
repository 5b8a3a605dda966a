# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What export refuses; that a folder is right is stages/test_language_model.py's and exporting/'s."""

import pytest

from f3tok_jax import export
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
