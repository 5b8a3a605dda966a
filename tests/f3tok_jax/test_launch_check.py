# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The door that checks a launch, and its rehearsal."""

import dataclasses
import os
import pathlib
import re
import shutil

import jax
import pytest

from f3tok_jax import launch_check
from f3tok_jax.cost import step as cost_step
from f3tok_jax.devices import slices
from f3tok_jax.launching import rehearsal
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.stages import registry
from tests.support import tiny_models

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

    def compile_part(*given, run):
        calls.append((*given, run))
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

    def refuse(*given, run):
        raise rehearsal.cost_step.MemoryDoesNotFitError("43 GiB of 15.75")

    monkeypatch.setattr(rehearsal.cost_step, "compile_part", refuse)
    assert launch_check.main([*arguments, "--config.seed=1"]) == 2
    assert "43 GiB of 15.75" in capsys.readouterr().err


@pytest.mark.slow  # a minute of the TPU's compiler
@pytest.mark.reliability("R31")
def test_a_rehearsal_compiles_for_that_slice(tpu_compiler, capsys):
    assert launch_check.main(["--accelerator=v5e-4", *_RUN]) == 0
    assert "of 15.75 GiB per device" in capsys.readouterr().out


def test_kept_rehearsals_are_of_one_config_slice_and_environment(tmp_path, monkeypatch):
    def kept(*overrides, target="v5e-4", num_slices=1, flags=(), moved=None):
        config = config_lib.read(f"{_RECIPE}:tiny", [f"--config.{one}" for one in overrides])
        run = lineage.Lineage.trained_by(config, places=places.Places(moved or {}))
        return rehearsal._kept(run, slices.parse(target, num_slices), flags)

    names = [kept(), kept("seed=1"), kept(num_slices=2), kept(flags=["--flag"])]
    names += [kept(moved={"a": "b"})]
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    names += [kept()]
    monkeypatch.setattr(rehearsal, "can_compile", lambda: True)
    for version in ("1", "2"):
        monkeypatch.setattr(rehearsal.importlib.metadata, "version", lambda _, said=version: said)
        names += [kept()]
    monkeypatch.chdir(tmp_path)
    names += [kept()]
    assert len(set(names)) == len(names) and kept() == names[-1]


@pytest.fixture
def ancestors(tmp_path) -> dict[str, str]:
    """What a representation run names."""
    tiny_models.write_run(tmp_path / "autoencoder")
    model = tiny_models.write_language_model(tmp_path)
    return {"autoencoder.workdir": str(tmp_path / "autoencoder"), "language_model.folder": model}


def test_what_ancestors_say_now_is_of_a_kept_rehearsal(ancestors, tmp_path):
    recipe = _RECIPE.replace("autoencoder", "representation")
    config = config_lib.read(
        f"{recipe}:tiny", [f"--config.{key}={place}" for key, place in ancestors.items()]
    )

    def kept():
        run = lineage.Lineage.trained_by(config)
        return rehearsal._kept(run, slices.parse("v5e-4"), ())

    first = kept()
    assert kept() == first
    path = pathlib.Path(ancestors["language_model.folder"]) / "config.json"
    path.write_text(path.read_text().replace("}", ', "another": 1}', 1))
    second = kept()
    assert second != first
    tiny_models.write_run(tmp_path / "other", train="others")
    shutil.rmtree(ancestors["autoencoder.workdir"])
    (tmp_path / "other").rename(ancestors["autoencoder.workdir"])
    assert kept() not in (first, second)


@pytest.mark.reliability("R31")
def test_what_has_moved_is_rehearsed_where_it_lies_now(ancestors, compiled, capsys):
    recipe = _RECIPE.replace("autoencoder", "representation")
    train = ["--", f"--config={recipe}:tiny", "--workdir=/shared/run"]
    train += ["--config.data.train=/shared/set", "--config.data.batch_size=16"]
    for key, place in ancestors.items():
        train += [f"--config.{key}=/gone/{key}", f"--map=/gone/{key}={place}"]
    assert launch_check.main(["--accelerator=v5e-1", "--rehearse=yes", *train]) == 0
    assert "rehearsed on v5e:1x1" in capsys.readouterr().out
    ((config, _, run),) = compiled
    assert run.parents["autoencoder"].workdir == ancestors["autoencoder.workdir"]
    assert run.language_model_folder == ancestors["language_model.folder"]


def test_the_step_is_compiled_of_the_run_that_says_where_its_models_lie(monkeypatch):
    config = config_lib.read(f"{_RECIPE}:tiny")
    run, made = lineage.Lineage.trained_by(config), []

    def make(*given):
        made.append(given)
        raise ValueError("as far as this")

    definition = dataclasses.replace(registry.of(config.stage), make=make)
    monkeypatch.setattr(cost_step.registry, "of", lambda stage: definition)
    monkeypatch.setattr(cost_step.slices, "devices", lambda target: jax.devices()[:1])
    with pytest.raises(ValueError, match="as far as this"):
        cost_step.compile_part(config, slices.parse("v5e-1"), run=run)
    assert made == [(config, run)]
