# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The door that checks a launch, and its rehearsal."""

import os
import pathlib
import re

import pytest

from f3tok_jax import launch_check
from f3tok_jax.devices import slices
from f3tok_jax.launching import rehearsal

_RECIPE = str(pathlib.Path(__file__).parents[2] / "configs" / "autoencoder.py")
_RUN = [
    "--",
    f"--config={_RECIPE}:tiny",
    "--workdir=/shared/run",
    "--config.data.train=/shared/set",
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """What the door sets is as before afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("LIBTPU_INIT_ARGS", *slices.COMPILER_ENVIRONMENT):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_a_good_launch_is_checked(capsys):
    assert launch_check.main(["--accelerator=v5e-4", "--rehearse=no", *_RUN]) == 0
    printed = capsys.readouterr().out
    assert "checked: autoencoder:tiny on v5e:2x2" in printed and "not rehearsed" in printed


@pytest.mark.reliability("R28", "R30")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--accelerator=v6e-7", *_RUN], "--accelerator must be a slice that exists"),
        (["--accelerator=v5e-4", *_RUN, "--spott"], "unrecognized arguments: --spott"),
        (["--accelerator=v5e-4", *_RUN, "--config.optimiser.x=3"], "config.optimiser.x must name"),
        (["--accelerator=v5e-4", *_RUN, "--config.num_steps=0"], "num_steps must be at least 1"),
        (["--accelerator=v5e-32", *_RUN], "batch_size=16 .* must be a multiple of 32"),
        (["--accelerator=v5e-4", "--flags=fast", *_RUN], "--flags must be one of"),
        (["--accelerator=v5e-4", "--", f"--config={_RECIPE}:bse"], "preset must be one of"),
        (["--accelerator=v5e-4", "--", "--workdir=/x"], "arguments are required: --config"),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(arguments, message, capsys):
    assert launch_check.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("f3tok_jax.launch_check: ")
    assert re.search(message, line), line


@pytest.fixture
def compiled(monkeypatch) -> list:
    """Every compilation, which gives nothing of its own: what it costs is said."""
    calls = []
    memory = {"peak": 2**30, "limit": 2**31}
    cost = {"memory_bytes": memory, "roofline": {"seconds": 0.1}, "estimated": {"seconds": 0.5}}

    def compile_part(*given):
        calls.append(given)
        return None, None

    monkeypatch.setattr(rehearsal.cost_step, "compile_part", compile_part)
    monkeypatch.setattr(rehearsal.cost_step, "measure", lambda *given, **more: cost)
    return calls


@pytest.mark.reliability("R31")
def test_a_rehearsal_is_remembered_and_refuses_what_does_not_fit(
    compiled, monkeypatch, capsys, tmp_path
):
    arguments = ["--accelerator=v5e-4", "--rehearse=yes", *_RUN]
    for _ in range(2):
        assert launch_check.main(arguments) == 0
        printed = capsys.readouterr().out
        assert "rehearsed on v5e:2x2: 1.00 of 2.00 GiB per device, 500 ms a step" in printed
    assert len(compiled) == 1
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1

    def refuse(*given):
        raise rehearsal.cost_step.MemoryDoesNotFitError("43 GiB of 15.75")

    monkeypatch.setattr(rehearsal.cost_step, "compile_part", refuse)
    assert launch_check.main([*arguments, "--config.seed=1"]) == 2
    assert "43 GiB of 15.75" in capsys.readouterr().err


@pytest.mark.slow  # a minute of the TPU's compiler
@pytest.mark.reliability("R31")
def test_a_rehearsal_compiles_for_that_slice(tpu_compiler, capsys):
    assert launch_check.main(["--accelerator=v5e-4", *_RUN]) == 0
    assert "of 15.75 GiB per device" in capsys.readouterr().out


def test_kept_rehearsals_are_of_one_config_slice_and_flags():
    from f3tok_jax.runs import config as config_lib

    config = config_lib.read(f"{_RECIPE}:tiny")
    other = config_lib.read(f"{_RECIPE}:tiny", ["--config.seed=1"])
    target = slices.parse("v5e-4")
    names = {
        rehearsal._kept(config, target, ()),
        rehearsal._kept(other, target, ()),
        rehearsal._kept(config, slices.parse("v5e-4", 2), ()),
        rehearsal._kept(config, target, ("--flag",)),
    }
    assert len(names) == 4
