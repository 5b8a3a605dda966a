# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The semantic bottleneck's stage: that it learns on frozen features, resumes, and what it refuses."""

import json
import pathlib

import jax
import numpy as np
import pytest

from f3tok_jax.pretrained import semantic_encoder as pretrained
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.stages import semantic_bottleneck as bottleneck_stage
from f3tok_jax.training import session
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models

_CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
_ENCODER = tiny_models.overrides(
    num_steps=2,
    model=dict(num_layers=1, width=32, num_heads=2),
    decoder=dict(num_layers=1, width=32, num_heads=2),
    mel_norm=dict(statistics_seconds=4),
    data=dict(batch_size=8, crop_frames=12),
    optimizer=dict(semantic_encoder=dict(warmup_steps=0, schedule="constant")),
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=2),
    loop=dict(log_every=1, eval_every=2, eval_batches=1),
)
_SMALL = tiny_models.overrides(
    num_steps=40,
    model=dict(hidden_dim=16, latent_dim=4),
    losses=dict(weights=dict(feature_reconstruction=25.0)),
    data=dict(batch_size=8, crop_frames=12),
    optimizer=dict(
        semantic_bottleneck=dict(warmup_steps=2, schedule="constant", learning_rate=1e-2)
    ),
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=35),
    loop=dict(log_every=1, eval_every=20, eval_batches=1),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return str(sounds.labelled_set(tmp_path_factory.mktemp("sound"), num_files=12))


@pytest.fixture(scope="module")
def encoder(shards, tmp_path_factory) -> str:
    """A run of a semantic encoder that has hardly begun."""
    given = (f"--config.data.train={shards}", f"--config.data.heldout={shards}")
    config = config_lib.read(f"{_CONFIGS / 'semantic_encoder.py'}:tiny", [*_ENCODER, *given])
    workdir = str(tmp_path_factory.mktemp("encoder"))
    assert run_checks.train(config, workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    return workdir


@pytest.fixture
def config(shards, encoder):
    """changes -> the config of a small run."""

    def read(*changes: str):
        given = (f"semantic_encoder.workdir={encoder}", f"data.train={shards}")
        changes = (*given, f"data.heldout={shards}", *changes)
        recipe = f"{_CONFIGS / 'semantic_bottleneck.py'}:tiny"
        return config_lib.read(recipe, [*_SMALL, *(f"--config.{change}" for change in changes)])

    return read


def test_it_learns_and_ends_as_a_run_that_was_broken_off(config, encoder, tmp_path):
    workdir = str(tmp_path / "whole")
    assert run_checks.train(config(), workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for name, share in (("feature_reconstruction", 0.5), ("time_relation", 0.9)):
        values = [line[f"train/{name}"] for line in found if f"train/{name}" in line]
        assert np.mean(values[-5:]) < share * np.mean(values[:5]), (name, values)
    losses = [line["eval/loss"] for line in found if "eval/loss" in line]
    assert losses[-1] < losses[0]
    run = lineage.Lineage.read(workdir)
    assert run.parents["semantic_encoder"].workdir == encoder
    assert run.sound.latent_rate == 25.0 and run.fingerprint
    run_checks.check_that_it_resumes_bit_equal(workdir, config(), tmp_path / "resumed")


def test_losses_are_of_the_frozen_encoders_features(config, encoder):
    before, _, batch, state, metrics = run_checks.first_step(config())
    assert set(state.params) == {"semantic_bottleneck"}
    assert set(state.params["semantic_bottleneck"]) == {"down", "up"}
    theirs = pretrained.load(encoder)
    features = theirs.features(np.where(batch["mask"], batch["waveform"], 0.0), batch["mask"])
    mask = np.asarray(theirs.encoder.feature_mask(batch["mask"]))
    counts = mask.sum(axis=1)
    assert metrics["train/feature_reconstruction"][1] == counts.sum() < mask.size
    assert metrics["train/time_relation"][1] == np.square(counts).sum()
    model = bottleneck_stage.make_model(config())
    expected = model.losses(before.params["semantic_bottleneck"], features, mask)
    for name, (total, _) in expected.items():
        assert float(metrics[f"train/{name}"][0]) == pytest.approx(float(total), rel=1e-4)


def test_accumulation_changes_nothing(config):
    (*_, plain, of_plain), (*_, cut, of_cut) = map(
        run_checks.first_step, (config(), config("optimizer.accumulate=2"))
    )
    for name, pair in of_plain.items():
        np.testing.assert_allclose(of_cut[name], pair, rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, atol=1e-3), plain.params, cut.params
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ("model.latent_dim=0", "config.model.latent_dim must be at least 1, got 0"),
        ("losses.weights.time_relation=-1.0", "time_relation must not be negative, got -1.0"),
        ("losses.weights.feature_reconstruction=0.0", "must be above 0: .*would learn nothing"),
        ("semantic_encoder.workdir=", "workdir must name a run of the semantic_encoder stage"),
    ],
)
def test_mistakes_are_one_sentence(config, change, words, tmp_path):
    with pytest.raises(ValueError, match=words) as error:
        run_checks.train(config(change), str(tmp_path / "run"), devices=jax.devices()[:1])
    assert "\n" not in str(error.value)
