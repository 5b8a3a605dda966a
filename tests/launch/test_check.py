# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a launch is refused on this machine, by a dry run as well."""

import sys

import pytest

from tests.support import launching

_DATA = "--config.data.train=gs://bucket/train"


def _dry_run(*arguments):
    # PYTHON has all that a config needs; the environment of the checkout is not asked.
    environment = {"DRY_RUN": "1", "PYTHON": sys.executable, "VENV": "/nowhere/venv"}
    return launching.launch(*arguments, environment=environment)


@pytest.mark.reliability("R28", "R30")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config", "configs/autoencoder.py:bse"], "preset must be one of"),
        (["--config", "configs/autoencoder.py:base", "--spott"], "unrecognized arguments: --spott"),
    ],
)
def test_a_dry_run_refuses_what_would_end_on_the_workers(arguments, message):
    result = _dry_run(*launching.SLICE, *arguments, "--workdir=gs://bucket/run", _DATA)
    assert result.returncode == 1
    assert message in result.stdout.splitlines()[-1]
    assert "queued-resources create" not in result.stdout


@pytest.mark.reliability("R28")
def test_a_dry_run_checks_all_and_prints_every_command():
    result = _dry_run(*launching.SLICE, *launching.RUN, _DATA)
    assert result.returncode == 0, result.stdout
    assert "checked: autoencoder:base on " in result.stdout
    assert "+ gcloud compute tpus queued-resources create" in result.stdout


@pytest.mark.reliability("R28")
@pytest.mark.parametrize("accelerator", ["v6e-7", "v5litepod-12", "v5p-9", "v9-8"])
def test_a_slice_that_no_product_is_is_refused(accelerator):
    slice_ = ["--tpu", "demo", "--zone", "zone-a", "--accelerator", accelerator]
    result = _dry_run(*slice_, *launching.RUN)
    assert result.returncode == 1
    (line,) = result.stdout.splitlines()
    assert "--accelerator must be a slice" in line and repr(accelerator) in line


@pytest.mark.parametrize(
    "accelerator, message",
    [("v5p:4x4x16", "no type of TPU VM has the shape"), ("tpu7x-8", "there are no TPU VMs")],
)
def test_what_only_a_cluster_has_is_refused_as_a_tpu_vm(accelerator, message):
    slice_ = ["create", "--tpu", "demo", "--zone", "zone-a", "--accelerator", accelerator]
    result = _dry_run(*slice_)
    assert result.returncode == 1 and message in result.stdout and "--cluster" in result.stdout


def test_a_misspelt_flag_of_a_command_without_a_config_is_refused():
    result = _dry_run("create", *launching.SLICE, "--spott")
    assert result.returncode == 1
    assert "unknown argument '--spott' of 'create'" in result.stdout


def test_a_launch_that_is_refused_asks_the_cloud_for_nothing(cloud):
    (cloud.folder / "check_refuses").touch()
    result = cloud.launch(*launching.SLICE, *launching.RUN)
    assert result.returncode == 1, result.stdout
    assert not (cloud.folder / "calls").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [*launching.SLICE, "--priority=high"],
        [*launching.SLICE, "--storage=disk"],
        [*launching.SLICE, "--reserved", "--reservation=name"],
        [*launching.SLICE, "--docker-image=image"],
        ["--cluster=c", "--zone=z", "--accelerator=v5e-16", "--valid_until=2h"],
    ],
)
def test_what_another_way_to_train_heeds_is_refused(arguments):
    result = _dry_run(*arguments, *launching.RUN)
    assert result.returncode == 1
    assert "leave it out" in result.stdout and "+ " not in result.stdout


def test_an_environment_that_cannot_be_made_ends_the_launch(cloud, tmp_path):
    """What fails while the checks' environment is made is no environment, the next time either."""
    bare = cloud.folder.parent / "bin" / "python3.11"
    bare.write_text(
        '#!/bin/sh\ncase "$*" in *find_spec*) exit 1 ;; *"pip "*) echo broken; exit 1 ;; esac\n'
        f'exec bash "{launching.ROOT}/tests/support/fake_python.sh" "$@"\n'
    )
    venv = tmp_path / "venv"
    for name in ("python3", "python"):
        (bare.parent / name).write_text("#!/bin/sh\nexit 1\n")
        (bare.parent / name).chmod(0o755)
    (tmp_path / "python").write_text("")
    result = cloud.launch(*launching.SLICE, *launching.RUN, VENV=str(venv))
    assert result.returncode != 0, result.stdout
    assert not (venv / "installed").exists()
    assert not cloud.calls("create")
