# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that were written before the folders became floors: one small run of each stage still loads,
and another can begin with its weights.

tests/golden/runs_before_floors.tar.gz holds them after four steps of toy shapes, with the data that
they were trained on; every path in them is relative.
"""

import pathlib
import tarfile

import jax
import numpy as np
import pytest

from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as sound_lib
from f3tok_jax.stages import language_model as language_model_stage
from f3tok_jax.training import session
from tests.support import run_checks

_RECIPES = pathlib.Path(__file__).parents[2] / "configs"
_RUNS = pathlib.Path(__file__).parents[1] / "golden" / "runs_before_floors.tar.gz"

_STAGES = ("autoencoder", "language_model", "representation", "generation")


@pytest.fixture
def runs(tmp_path, monkeypatch) -> pathlib.Path:
    """The folder of the runs, which is the current one."""
    with tarfile.open(_RUNS) as archive:
        # Filters came with Python 3.11.4; 3.12 and 3.13 warn where none is named.
        known = dict(filter="data") if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **known)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _read(stage: str) -> lineage.Lineage:
    run = lineage.Lineage.read(stage, stage=stage)
    run.check(language_model=True)
    assert run.step == 4
    return run


def test_every_run_loads_with_the_runs_that_it_was_trained_on(runs):
    autoencoder, params, run = pretrained_autoencoder.load(_read("autoencoder"))
    assert fingerprint.autoencoder_fingerprint(params) == run.fingerprint
    geometry = sound_lib.Sound(16_000, autoencoder.samples_per_latent, autoencoder.latent_dim)
    representation = _read("representation")
    encoder, params, _ = pretrained_representation.load_encoder(representation)
    assert (
        encoder.latent_dim == autoencoder.latent_dim
        and np.isfinite(jax.tree.leaves(params)[0]).all()
    )
    model, weights, run = pretrained_generation.load(_read("generation"))
    assert set(weights) == {"encoder", "projector", "language_model", "embedding_rms", "head"}
    assert run.sound == representation.sound == geometry
    assert run.parents["representation"].fingerprint == representation.fingerprint
    _, params, run = language_model_stage.load(_read("language_model"))
    exported = pretrained_language_model.load_params("model", model.generator.language_model)
    jax.tree.map(np.testing.assert_array_equal, params, exported)


def test_runs_that_moved_together_find_each_other(runs, tmp_path, monkeypatch):
    """Every path in them is seen from a folder that is not the current one any more."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = lineage.Lineage.read(f"{runs}/generation")
    run.check(language_model=True)
    places = {name: run.ancestor(name).workdir for name in ("representation", "autoencoder")}
    assert places == {name: f"{runs}/{name}" for name in places}
    assert run.language_model_folder == f"{runs}/model"


@pytest.mark.parametrize("stage", _STAGES)
def test_every_run_is_refused_in_a_sentence_where_it_is_to_go_on(stage, runs):
    """Their optimizers knew one start per player and other leaves that decay."""
    config = _read(stage).config
    with pytest.raises(ValueError, match="gives a config of an earlier version") as refused:
        run_checks.train(config, stage, devices=jax.devices()[:1])
    assert "config.init_from.workdir" in str(refused.value) and "\n" not in str(refused.value)
    now = config_lib.read(f"{_RECIPES / stage}.py:tiny")
    with pytest.raises(ValueError, match=f"{stage} holds a run of an earlier version"):
        config_lib.check_same_run(now, stage)


def test_another_run_begins_with_the_weights_of_one(runs, capsys):
    config = config_lib.read(f"{_RECIPES / 'language_model.py'}:tiny")
    before = _read("language_model").config
    with config.unlocked():
        config.model, config.data, config.tokenizer = before.model, before.data, before.tokenizer
        config.init_from.workdir, config.num_steps = "language_model", 1
        config.optimizer.language_model.warmup_steps = 0
    assert run_checks.train(config, "begun", devices=jax.devices()[:1]) == session.EXIT_DONE
    assert "language_model from step 4 of language_model" in capsys.readouterr().out
