# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""launch/sweep.sh: what its dry run prints, and that it is the program of sweeps with an environment.

REWRITE_GOLDEN=1 rewrites tests/golden/launch_sweep.txt.
"""

import os
import pathlib
import re
import sys

from tests.support import launching

_SCRIPT = launching.ROOT / "launch" / "sweep.sh"
_GOLDEN = launching.ROOT / "tests" / "golden" / "launch_sweep.txt"
_SWEEP = ["--sweep", "configs/sweeps/losses.py:base", "--workdir", "gs://bucket/a sweep"]
_PLACE = ["--backend", "tpu", "--tpu", "pod", "--zone", "zone-a", "--accelerator", "v5litepod-8"]


def _launch(*arguments, **environment):
    return launching.launch(*arguments, environment=environment, script=_SCRIPT)


def test_help_names_every_flag_of_its_own():
    result = _launch("--help")
    assert result.returncode == 0
    program = (launching.ROOT / "f3tok_jax" / "sweep.py").read_text(encoding="utf-8")
    own = set(re.findall(r'add\("(--\w+)"', program))
    assert len(own) > 8 and all(flag in result.stdout for flag in own)
    assert _launch().returncode == 1


def test_dry_run_prints_the_stored_commands(tmp_path):
    # One environment that is not there yet, and one in which every run's own command is known.
    bare = _launch(*_SWEEP, *_PLACE, "--dry-run", VENV=str(tmp_path / "none"))
    assert bare.returncode == 0 and not (tmp_path / "none").exists()
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "installed").write_text("")
    environment = {"VENV": str(venv), "JAX_PLATFORMS": "cpu"}
    # A Python that is reached by a link of another folder does not find its packages.
    environment["PYTHONPATH"] = os.pathsep.join([str(launching.ROOT), *filter(None, sys.path)])
    whole = _launch(*_SWEEP, *_PLACE, DRY_RUN="1", **environment)
    assert whole.returncode == 0, whole.stdout
    printed = bare.stdout.replace(str(tmp_path / "none"), "VENV") + "\n"
    printed += whole.stdout.replace(str(venv), "VENV")
    printed = printed.replace(str(launching.ROOT), "ROOT")
    if os.environ.get("REWRITE_GOLDEN"):
        _GOLDEN.write_text(printed, encoding="utf-8")
    assert printed == _GOLDEN.read_text(encoding="utf-8")
    assert sorted(path.name for path in pathlib.Path(venv).iterdir()) == ["bin", "installed"]
