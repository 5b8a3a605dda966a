# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The semantic encoder's stage: that it learns, resumes, is loaded as published weights are; refusals."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.pretrained import semantic_encoder as pretrained
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import semantic_encoder as semantic_stage
from f3tok_jax.training import session
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models

_RECIPE = str(pathlib.Path(__file__).parents[3] / "configs" / "semantic_encoder.py") + ":tiny"
_SMALL = tiny_models.overrides(
    num_steps=40,
    model=dict(num_layers=1, width=32, num_heads=2),
    decoder=dict(num_layers=1, width=32, num_heads=2),
    mel_norm=dict(statistics_seconds=8),
    data=dict(batch_size=8, crop_frames=12),
    optimizer=dict(semantic_encoder=dict(warmup_steps=2, schedule="constant")),
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=35),
    loop=dict(log_every=1, eval_every=20, eval_batches=1),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return str(sounds.labelled_set(tmp_path_factory.mktemp("semantic") / "sound", num_files=12))


def _config(shards, *more: str):
    given = (f"--config.data.train={shards}", f"--config.data.heldout={shards}")
    return config_lib.read(_RECIPE, [*_SMALL, *given, *more])


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory) -> str:
    """A finished run on one device."""
    workdir = str(tmp_path_factory.mktemp("whole"))
    code = run_checks.train(_config(shards), workdir, devices=jax.devices()[:1])
    assert code == session.EXIT_DONE
    return workdir


def _losses(workdir: str, name: str) -> list[float]:
    lines = map(json.loads, (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def test_it_learns_what_is_hidden(whole):
    losses = _losses(whole, "train/loss")
    # Each patch's own mean is 1 off, but for a 256th.
    assert 0.9 < losses[0] < 1.3
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    first, last = _losses(whole, "eval/loss")
    assert last < first


def test_a_resumed_run_ends_bit_equal(whole, shards, tmp_path):
    run_checks.check_that_it_resumes_bit_equal(whole, _config(shards), tmp_path / "resumed")


@pytest.mark.slow
def test_the_bands_are_standardised_by_what_was_heard_first(shards, whole):
    measured = run_checks.measured(_config(shards), num_devices=2)
    stage = semantic_stage.make_stage(_config(shards))
    count = stage.statistics.num_examples
    assert count == 17  # of 0.48 s
    data = stage.statistics.open_data(batch_size=1)
    encoder, frames = semantic_stage.make_model(_config(shards)).encoder, []
    for step in range(min(count, data.num_records)):
        batch = data.local_batch(step)
        frames += [np.asarray(encoder.mel_decibels(batch["waveform"][batch["mask"]][None]))[0]]
    frames = np.concatenate(frames)
    np.testing.assert_allclose(measured["mel_mean"], frames.mean(0), atol=1e-2)
    np.testing.assert_allclose(measured["mel_variance"], frames.var(0), rtol=1e-2, atol=1e-2)
    loaded = pretrained.load(whole)
    found = loaded.variables["statistics"]["mean"]
    np.testing.assert_allclose(found, measured["mel_mean"], rtol=1e-6)


def test_a_finished_run_gives_features(whole, tmp_path):
    loaded = pretrained.load(whole)
    assert (loaded.rate, loaded.encoder.width) == (25.0, 32)
    assert loaded.origin == "trained by this project, 40 steps"
    # The fingerprint is of what gives the features, not of the decoder.
    assert loaded.run.fingerprint and loaded.run.sound.latent_dim == 32
    features = loaded.features(jnp.asarray(0.1 * np.ones((2, 8000), np.float32)))
    assert features.shape == (2, 12, 32) and np.isfinite(features).all()
    loaded.check_sample_rate(16_000)
    with pytest.raises(ValueError, match="hears sound at 16000 Hz, got 24000 Hz: resample it"):
        loaded.check_sample_rate(24_000)
    assert pretrained.load(whole, compute_dtype="bfloat16").features(jnp.ones((1, 800))).dtype == (
        jnp.bfloat16
    )
    with pytest.raises(ValueError, match="must hold model.safetensors"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize(
    "changes, words",
    [
        (["model.sample_rate=24000"], "config.model.sample_rate=24000 .* must be 16000"),
        (["data.crop_frames=253"], "crop_frames=253 .* at most config.model.max_patches=252"),
        (["data.crop_frames=3"], "leave something to be seen of config.data.crop_frames=3"),
        (["masking.ratio=1.0"], "config.masking.ratio=1.0 .* must lie between 0 and 1"),
        (["model.width=33"], "config.model.width=33 .* a multiple of config.model.num_heads=2"),
        (["decoder.num_heads=3"], "config.decoder.width=32 .* config.decoder.num_heads=3"),
        (["masking.group=0"], "config.masking.group must be at least 1, got 0"),
        (["model.remat=all"], "remat must be one of"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_compiles(changes, words, shards, tmp_path):
    with pytest.raises(ValueError, match=words) as error:
        config = _config(shards, *(f"--config.{change}" for change in changes))
        run_checks.train(config, str(tmp_path / "run"), devices=jax.devices()[:1])
    assert "\n" not in str(error.value)


def test_sound_of_another_rate_is_refused(tmp_path):
    other = sounds.shard_set(tmp_path / "other", num_files=8, sample_rate=24_000)
    with pytest.raises(ValueError, match="16000|16,000") as error:
        run_checks.train(_config(str(other)), str(tmp_path / "run"), devices=jax.devices()[:1])
    assert "24" in str(error.value) and "\n" not in str(error.value)
