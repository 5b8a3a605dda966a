# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""launch/sweep.sh: what its dry run prints, which every run's own dry run and the real xpk accept.

REWRITE_GOLDEN=1 rewrites tests/golden/launch_sweep.txt; for the real xpk see test_xpk.py.
"""

import os
import pathlib
import re
import shlex
import sys

import pytest
import yaml

from f3tok_jax import sweep
from tests.support import launching

_SCRIPT = launching.ROOT / "launch" / "sweep.sh"
_GOLDEN = launching.ROOT / "tests" / "golden" / "launch_sweep.txt"
_SWEEP = ["--sweep", "configs/sweeps/losses.py:base", "--workdir", "gs://bucket/a sweep"]
_SWEEP += ["--config.data.train=gs://bucket/shards"]
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


def _commands(capsys, name: str, *more: str) -> list[list[str]]:
    """The arguments of tpu_train.sh for each run of a sweep on a cluster, its image's setup first."""
    flags = [*launching.CLUSTER, *launching.IMAGE, "--accelerator=v5e-16", "--dry_run"]
    place = ["--workdir=gs://bucket/a sweep", "--backend=xpk", *flags, *more]
    place += ["--config.data.train=gs://bucket/shards"]
    assert sweep.main([f"--sweep=configs/sweeps/{name}.py:base", *place]) == 0
    *lines, said = capsys.readouterr().out.splitlines()
    assert said == f"{len(lines) - 1} runs; nothing was begun"
    words = [shlex.split(line) for line in lines]
    assert all(line[:3] == ["+", "bash", "launch/tpu_train.sh"] for line in words)
    return [line[3:] for line in words]


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(launching.ROOT)


@pytest.mark.slow  # Each dry run checks its launch: 20 s.
def test_every_run_of_a_cluster_is_a_workload_of_its_own(at_root, capsys):
    setup, *runs = _commands(capsys, "bottleneck", "--only=gamma-0_normalize-true_latent_dim-32")
    runs += _commands(capsys, "learning_rates", "--only=width-128_learning_rate-3e-05")[1:]
    assert setup[0] == "setup" and launching.launch(*setup, "--dry-run").returncode == 0
    names = []
    for run in runs:
        result = launching.launch(*run, "--dry-run")
        assert result.returncode == 0, result.stdout
        names += re.findall(r"workload create --workload (\S+)", result.stdout)
    assert len(set(names)) == len(runs) == 2


@pytest.mark.slow
@pytest.mark.reliability("R28")
def test_the_real_xpk_accepts_every_run_of_a_sweep(at_root, cloud, real_xpk, capsys):
    _, *runs = _commands(capsys, "learning_rates")
    assert len(runs) == 15
    names = set()
    for run in runs:
        result = cloud.launch("run", *run, XPK=str(real_xpk))
        assert result.returncode == 0, result.stdout
        manifest = yaml.safe_load((real_xpk.parent / "manifest.yaml").read_text())
        names.add(manifest["metadata"]["name"])
        labels = manifest["metadata"]["labels"]
        assert labels["kueue.x-k8s.io/queue-name"]  # Kueue decides when.
        text = (real_xpk.parent / "manifest.yaml").read_text()
        assert run[-1].rpartition("/")[2] in text.replace("\n", "").replace(" ", "")
    assert len(names) == 15
