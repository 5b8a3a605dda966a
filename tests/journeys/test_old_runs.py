# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that were written before the folders became floors: one small run of each stage still loads,
and goes on as the code that wrote it did.

tests/golden/runs_before_floors.tar.gz holds them after four steps of toy shapes, with the data that
they were trained on; every path in them is relative.
"""

import json
import pathlib
import tarfile

import jax
import numpy as np
import pytest

from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import lineage
from f3tok_jax.stages import language_model as language_model_stage
from f3tok_jax.training import session
from tests.support import run_checks

_RUNS = pathlib.Path(__file__).parents[1] / "golden" / "runs_before_floors.tar.gz"

# What the code that wrote them measured at steps 5 and 6, on one CPU device.
_WENT_ON = {
    "autoencoder": {"train/mel": (7.674490356445313, 7.564354705810547)},
    "language_model": {
        "train/loss": (5.316163436226223, 5.258804866245815),
        "train/gradient_norm": (1.3261330127716064, 1.2338296175003052),
    },
    "representation": {
        "train/answer_loss": (5.36583948135376, 5.34047794342041),
        "train/rq_loss/k1": (2.6098688565767727, 2.6223661461654975),
    },
    "generation": {
        "train/flow_loss": (1.7963199615478516, 1.6836581596961389),
        "train/stop_loss": (0.6612715148925781, 0.6573923428853353),
    },
}


@pytest.fixture
def runs(tmp_path, monkeypatch) -> pathlib.Path:
    """The folder of the runs, which is the current one."""
    with tarfile.open(_RUNS) as archive:
        archive.extractall(tmp_path, filter="data")
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
    geometry = lineage.Sound(16_000, autoencoder.samples_per_latent, autoencoder.latent_dim)
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


@pytest.mark.parametrize("stage", _WENT_ON)
def test_every_run_goes_on_as_it_would_have(stage, runs, capsys):
    config = _read(stage).config
    with config.unlocked():
        config.num_steps = 6
    assert run_checks.train(config, stage, devices=jax.devices()[:1]) == session.EXIT_DONE
    assert "resuming this run from its checkpoint of step 4" in capsys.readouterr().out
    lines = (runs / stage / "metrics.jsonl").read_text().splitlines()
    steps = {
        values["step"]: values for values in map(json.loads, lines) if "train/nonfinite" in values
    }
    for name, expected in _WENT_ON[stage].items():
        found = [steps[step][name] for step in (5, 6)]
        # Another processor sums float32 in another order; a lost optimizer state or another batch
        # changes these by several per cent.
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=name)


def test_a_run_that_kept_no_fingerprint_of_its_data_goes_on_where_it_was_moved(runs, capsys):
    config = _read("representation").config
    assert config.data.train == config.data.heldout == "latents"
    moved = (runs / "latents").rename(runs / "moved=1")
    with config.unlocked():
        config.num_steps, config.data.train, config.data.heldout = 5, str(moved), str(moved)
    assert run_checks.train(config, "representation", devices=jax.devices()[:1]) == 0
    said = capsys.readouterr().out
    assert "resuming this run from its checkpoint of step 4" in said
    assert "note: data.heldout lies elsewhere" in said
    with config.unlocked():
        config.num_steps, config.data.train = 6, f"{moved}=1,{moved}/=1"
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        run_checks.train(config, "representation", devices=jax.devices()[:1])
