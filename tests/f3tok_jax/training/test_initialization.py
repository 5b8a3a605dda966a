# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of one run at the beginning of another, with the toy stage."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import saved_states
from f3tok_jax.training import initialization
from f3tok_jax.training import programs as programs_lib
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import seals
from tests.support import tiny_models
from tests.support import toy_run


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> pathlib.Path:
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def before(shards, tmp_path_factory) -> str:
    """A finished run of 12 steps."""
    workdir = str(tmp_path_factory.mktemp("before"))
    assert _train(shards, workdir) == session.EXIT_DONE
    return workdir


def _train(shards, workdir, *more: str) -> int:
    config = toy_run.make_config(shards, *more)
    return session.run(config, str(workdir), stage=toy_run.STAGE, devices=jax.devices()[:2])


def _first_loss(workdir) -> float:
    return metrics.read(workdir)[0]["train/error"]


def _begin(shards, *more: str):
    """(the fresh state on two devices, the same with the weights that the config names, lines)."""
    config, lines = toy_run.make_config(shards, *more), []
    mesh = programs_lib.make_mesh(config, jax.devices()[:2])
    with sharding.use(mesh):
        programs = programs_lib.CompiledStage(toy_run.make_stage(config), config, mesh)
        fresh = programs.init_state()
        return fresh, initialization.begin(fresh, _source(config), say=lines.append), lines


def _source(config) -> lineage.Lineage:
    return initialization.source(lineage.Lineage(config=config))


def _equal(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_a_decoder_is_not_trained_alone_for_another_level():
    """Its encoder would make other latents; a run that says nothing hears sound as it comes."""
    before, now = tiny_models.config(), tiny_models.config(level_db=-20.0)
    now.train_only = "decoder"
    del before.model.level_db
    source = lineage.Lineage(config=before)
    with pytest.raises(ValueError, match="config.model.level_db must be 0.0, as there, got -20"):
        initialization.kept_latents(source, now)
    now.model.level_db = 0.0
    assert initialization.kept_latents(source, now)


@pytest.mark.reliability("R12")
def test_every_player_gets_the_weights_and_nothing_else(shards, before):
    fresh, begun, lines = _begin(shards, f"--config.init_from.workdir={before}")
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), fresh)
    averages, _ = saved_states.restore_params(before, like.ema_params)
    discriminator, _ = saved_states.restore_params(
        before, {"discriminator": like.params["discriminator"]}, field="params"
    )
    assert _equal(begun.ema_params, averages)
    assert _equal(begun.params, averages | discriminator)
    assert _equal(begun.opt_state, fresh.opt_state) and int(begun.step) == 0
    shardings = [jax.tree.map(lambda leaf: leaf.sharding, s.params) for s in (fresh, begun)]
    assert shardings[0] == shardings[1]
    assert [line.split(" of ")[0] for line in lines] == [
        "generator from step 12",
        "discriminator from step 12",
    ]


def test_a_step_may_be_named(shards, before):
    _, newest, _ = _begin(shards, f"--config.init_from.workdir={before}")
    _, older, lines = _begin(
        shards, f"--config.init_from.workdir={before}", "--config.init_from.step=8"
    )
    assert "from step 8 of" in lines[0]
    assert not _equal(older.params, newest.params)
    with pytest.raises(ValueError, match="must hold a checkpoint of step 7"):
        _begin(shards, f"--config.init_from.workdir={before}", "--config.init_from.step=7")


def test_what_the_other_run_did_not_train_is_drawn(shards, before, tmp_path):
    fresh, begun, _ = _begin(shards, f"--config.init_from.workdir={before}")
    alone = begun.replace(
        params={"generator": begun.params["generator"]},
        opt_state={"generator": begun.opt_state["generator"]},
    )
    config = toy_run.make_config(shards)
    config_lib.save(config, str(tmp_path))
    text = config_lib.to_json(config)
    writer = checkpoint.Checkpointer(str(tmp_path), config_json=text, data_fingerprint="")
    writer.save(3, alone)
    writer.close()
    _, begun, lines = _begin(shards, f"--config.init_from.workdir={tmp_path}")
    assert _equal(begun.params["generator"], alone.params["generator"])
    assert _equal(begun.params["discriminator"], fresh.params["discriminator"])
    assert lines[-1].startswith("discriminator from scratch")
    config = toy_run.make_config(shards, f"--config.init_from.workdir={before}")
    initialization.begin(alone, _source(config), say=lines.append)
    assert lines[-1] == f"note: discriminator of {before} stays there: not trained here"


def test_a_run_goes_on_without_the_one_it_began_from(shards, before, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(before, source)
    begin_there = f"--config.init_from.workdir={source}"
    assert _train(shards, tmp_path / "on", begin_there, "--config.num_steps=4") == session.EXIT_DONE
    # The same batch and noise, before any update.
    assert _first_loss(tmp_path / "on") < _first_loss(before)
    assert "generator from step 12" in capsys.readouterr().out
    shutil.rmtree(source)
    assert _train(shards, tmp_path / "on", begin_there) == session.EXIT_DONE
    assert "resuming this run from its checkpoint of step 4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="must be the work folder of a run"):
        _train(shards, tmp_path / "new", begin_there)


@pytest.mark.reliability("R12")
def test_a_run_killed_before_its_first_save_begins_again_with_the_same_weights(
    shards, before, tmp_path, capsys
):
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(before, source)
    begin_there = f"--config.init_from.workdir={source}"
    few = ("--config.num_steps=4", "--config.checkpoint.keep_last=9")
    assert _train(shards, run, begin_there, *few) == session.EXIT_DONE
    shutil.rmtree(run / "checkpoints")
    first = _first_loss(run)
    assert _train(shards, source, "--config.num_steps=16") == session.EXIT_DONE
    capsys.readouterr()
    assert _train(shards, run, begin_there, *few) == session.EXIT_DONE
    assert "generator from step 12" in capsys.readouterr().out and _first_loss(run) == first
    # Nor with those of a step before, where the chosen ones are damaged.
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(source / "checkpoints" / "12" / "state")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint asked for .* is whole"):
        _train(shards, run, begin_there, *few)
    shutil.rmtree(source / "checkpoints" / "12")
    with pytest.raises(ValueError, match="with weights [0-9a-f]+, which were chosen .*at step 16"):
        _train(shards, run, begin_there, *few)


def test_other_latents_and_other_stages_are_refused(before, tmp_path):
    run, lines = shutil.copytree(before, tmp_path / "run"), []
    config = toy_run.make_config(tmp_path, f"--config.init_from.workdir={run}")
    prints = {"autoencoder": "a", "language_model": "b"}
    seals.change(run / "frozen.json", fingerprints=prints)
    files = run_folder.digests(str(run))
    seals.change(run / "checkpoints" / "12" / "meta" / "metadata", files=files)
    source = _source(config)
    initialization.check(source, config, prints, say=lines.append)
    assert not lines
    # A fingerprint of an earlier version says nothing about one of this.
    now = "config:1 tokenizer:2 weights:3"
    initialization.check(source, config, {"language_model": now}, say=lines.append)
    assert not lines
    initialization.check(source, config, {"language_model": "c"}, say=lines.append)
    assert "the language_model of fingerprint b, got c" in lines[0]
    with pytest.raises(ValueError, match="must be of the same latents: .*fingerprint a, got d"):
        initialization.check(source, config, {"autoencoder": "d"})
    with pytest.raises(ValueError, match="must be a run of the representation stage"):
        config.stage = "representation"
        _source(config)
