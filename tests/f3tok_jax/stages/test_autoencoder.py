# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The two-player step: one compilation, its switches, its guards."""

import functools

import chex
import jax
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.stages import adversarial
from f3tok_jax.stages import autoencoder as autoencoder_stage
from f3tok_jax.training import health as health_lib
from f3tok_jax.training import progress
from tests.support import sounds
from tests.support import tiny_models

# Metrics of the first step of `_config()`. A change of the model, of a loss or of the recipe's random
# streams changes them, and then they are to be replaced by what the failure prints; a change that only
# rearranges code must not.
_GOLDEN = {"train/mel": 5.092099, "train/gradient_norm/generator": 74.91769}


def _config(start=-1, **losses):
    config = tiny_models.config(strides=((4, 4),))
    config.losses.update(dict(mel_windows=(64, 256), mel_bands=(10, 20)) | losses)
    config.optimizer.discriminator.start = start
    config.discriminators.update(
        dict(
            periods=(2,),
            period_fold=9,
            period_channels=(8, 8),
            stft_windows=(256,),
            stft_channels=8,
        )
    )
    return config


@functools.lru_cache
def _adversarial():
    """An adversarial stage that starts at step 1, its initial state and its compiled step."""
    stage = autoencoder_stage.make_stage(_config(start=1))

    @chex.assert_max_traces(n=1)
    def train_step(state, frozen, batch):
        return stage.train_step(state, frozen, batch)

    return stage, compilation.run_once(stage.init_state, jax.random.key(0)), jax.jit(train_step)


def _batch(stage, seed=0, valid=1.0):
    shape = stage.batch_spec["waveform"].shape
    waveform = 0.1 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    mask = np.broadcast_to(np.arange(shape[1]) < valid * shape[1], shape).copy()
    edges = dict.fromkeys(("begins", "ends"), np.ones(shape[:1], bool))
    return {"waveform": waveform, "mask": mask, **edges}


def _ratios(metrics):
    return {name: float(total / weight) for name, (total, weight) in metrics.items() if weight}


def _same(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_two_steps_are_one_trace_and_the_discriminators_join_in_time():
    stage, state, step = _adversarial()
    first, metrics = step(state, {}, _batch(stage))
    assert "train/adversarial" not in _ratios(metrics)
    assert _same(first.params["discriminator"], state.params["discriminator"])
    assert not _same(first.params["generator"], state.params["generator"])
    second, metrics = step(first, {}, _batch(stage))
    assert {"train/adversarial", "train/feature_matching", "train/discriminator"} <= set(
        _ratios(metrics)
    )
    assert not _same(second.params["discriminator"], first.params["discriminator"])
    assert int(second.step) == 2


def test_a_step_that_is_not_finite_changes_nothing_but_the_step():
    stage, state, step = _adversarial()
    batch = _batch(stage)
    batch["waveform"][3, 100] = np.inf
    skipped, metrics = step(state, {}, batch)
    assert _ratios(metrics)["train/nonfinite"] == 1
    assert int(skipped.step) == 1
    assert _same(skipped.replace(step=state.step), state)


def test_padding_reaches_nothing():
    stage, state, step = _adversarial()
    clean, dirty = _batch(stage, valid=0.6), _batch(stage, valid=0.6)
    clean["waveform"][~clean["mask"]] = 0.0
    dirty["waveform"][~dirty["mask"]] = np.nan
    expected, found = step(state, {}, clean), step(state, {}, dirty)
    assert _same(expected, found)


def test_same_step_same_noise_other_step_other_noise():
    stage, state, step = _adversarial()
    mel = lambda state: _ratios(step(state, {}, _batch(stage))[1])["train/mel"]
    assert mel(state) == mel(state)
    # Step 100 instead of 0 with the same weights: past the start of the discriminators, too.
    assert mel(state) != mel(state.replace(step=state.step + 100))


def test_first_step_is_as_it_was():
    stage, state, step = _adversarial()
    ratios = _ratios(step(state, {}, _batch(stage))[1])
    found = {name: ratios[name] for name in _GOLDEN}
    # Other processors round float32 sums of 1e4 terms differently.
    assert found == pytest.approx(_GOLDEN, rel=1e-3), f"see _GOLDEN; now {found}"


@pytest.mark.slow  # test_generation_loss shows it of its stage, with what all have in common
def test_microbatches_add_up_to_the_batch():
    _, state, _ = _adversarial()
    results = []
    for accumulate in (1, 4):
        config = _config(start=0, adversarial_crop=600)
        config.bottleneck.perturb = False  # noise is drawn per microbatch
        config.optimizer.accumulate = accumulate
        stage = autoencoder_stage.make_stage(config)
        batch = _batch(stage)
        # Microbatches with unequally many valid samples: ratios must be formed after all sums.
        batch["mask"][::3, batch["mask"].shape[1] // 2 :] = False
        results.append(_ratios(jax.jit(stage.train_step)(state, {}, batch)[1]))
    for name in results[0]:
        # Float32 sums in another order.
        assert results[1][name] == pytest.approx(results[0][name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("start", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_gradients_norms_at_the_sound_are_logged_of_every_loss_that_has_one(start):
    weights = dict(mel=15.0, stft=1.0, waveform=1.0, adversarial=1.0)
    config = _config(start=start, weights=weights, mel_windows=(256,), mel_bands=(20,))
    stage = autoencoder_stage.make_stage(config)
    state = compilation.run_once(stage.init_state, jax.random.key(0))
    ratios = _ratios(jax.jit(stage.train_step)(state, {}, _batch(stage))[1])
    found = {name.rsplit("/", 1)[-1] for name in ratios if "sound_gradient" in name}
    expected = {"mel", "stft", "waveform"} | (
        {"adversarial", "feature_matching"} if not start else set()
    )
    assert found == expected
    # Of an absolute difference, over the batch's n samples: 1 / n at every sample.
    size = np.prod(stage.batch_spec["waveform"].shape)
    assert ratios["train/sound_gradient/waveform"] == pytest.approx(size**-0.5, rel=0.01)


def test_balanced_by_gradients_a_loss_weighs_the_same_whatever_its_size():
    """Ten times the other losses' gradient is met by nothing; a tenth of the weight is."""
    results = []
    for scale in (1.0, 1000.0):
        config = _config(start=0, balance="gradients")
        gradients = {"mel": scale * np.ones((2, 3), np.float32), "adversarial": np.eye(2, 3)}
        results.append(adversarial.meet(gradients, config.losses, 1)[0])
        shares = np.array([15.0, 1.0]) / 16.0
        expected = shares[0] / np.sqrt(6.0) + shares[1] * np.eye(2, 3) / np.sqrt(2.0)
        np.testing.assert_allclose(results[-1], expected, rtol=1e-5)
    # Before the discriminators join, the mel distance has all of it.
    gradients["adversarial"] = np.zeros((2, 3), np.float32)
    whole, metrics = adversarial.meet(gradients, config.losses, 1)
    assert float(np.linalg.norm(whole)) == pytest.approx(1.0)
    assert metrics["sound_gradient/adversarial"][1] == 0.0
    # Of four microbatches, which hold other examples, too.
    parts = [adversarial.meet(gradients, config.losses, 4)[0] for _ in range(4)]
    assert float(np.linalg.norm(np.concatenate(parts))) == pytest.approx(1.0)


def test_a_step_balanced_by_gradients_moves_both_players():
    config = _config(start=0, balance="gradients", mel_windows=(256,), mel_bands=(20,))
    stage = autoencoder_stage.make_stage(config)
    state = compilation.run_once(stage.init_state, jax.random.key(0))
    after, metrics = jax.jit(stage.train_step)(state, {}, _batch(stage))
    assert np.isfinite(list(_ratios(metrics).values())).all()
    for player in ("generator", "discriminator"):
        assert not _same(after.params[player], state.params[player])


@pytest.mark.slow
def test_every_microbatch_hears_noise_of_its_own():
    """Twins in two microbatches; with one noise for both they would be one of them twice."""
    heard = []
    for accumulate in (1, 2):
        config = _config(weights=dict(mel=15.0, adversarial=0.0, feature_matching=0.0))
        config.optimizer.accumulate = accumulate
        config.data.batch_size = 4 * accumulate
        stage = autoencoder_stage.make_stage(config)
        state = compilation.run_once(stage.init_state, jax.random.key(0))
        four = _batch(autoencoder_stage.make_stage(_config()), seed=1)
        twins = {name: np.repeat(value[:4], accumulate, axis=0) for name, value in four.items()}
        heard.append(_ratios(jax.jit(stage.train_step)(state, {}, twins)[1])["train/mel"])
    assert heard[1] == pytest.approx(heard[0], rel=0.1)
    assert heard[1] != pytest.approx(heard[0], rel=1e-4)


def test_run_without_discriminators_has_none():
    stage = autoencoder_stage.make_stage(_config(start=10**6))
    state = jax.eval_shape(stage.init_state, jax.random.key(0))
    assert set(state.params) == set(state.opt_state) == set(state.ema_params) == {"generator"}


def test_run_of_another_stage_is_refused(tmp_path):
    config = _config()
    config.stage = "representation"
    config_lib.save(config, str(tmp_path))
    with pytest.raises(ValueError, match="must be a run of the autoencoder stage"):
        lineage.Lineage.read(str(tmp_path), stage="autoencoder")


@pytest.mark.reliability("R22")
def test_discriminators_that_have_won_are_named_once_they_have_for_long():
    stage = autoencoder_stage.make_stage(_config(start=0))
    health = health_lib.Health(stage.watched, stage.signs)

    def said(theirs, steps):
        losses = {"train/discriminator": theirs, "train/adversarial": 1.0}
        return [line for step in steps for line in health.look(step, losses).sentences]

    assert not said(2.0, range(1, 300)) and not said(0.05, range(300, 400))
    first, *_ = said(0.05, range(400, 600))
    assert "the discriminators have won" in first
    assert "lower config.optimizer.discriminator.learning_rate" in first


@pytest.mark.slow  # hundreds of steps; the sign itself is shown above
@pytest.mark.reliability("R22")
@pytest.mark.parametrize("factor, wins", [(1.0, False), (100.0, True)])
def test_discriminators_that_win_are_named_with_their_learning_rate(factor, wins):
    config = _config(start=0)
    config.num_steps = 1000
    config.optimizer.discriminator.learning_rate *= factor
    # Held still, the generator gives the others nothing new to learn.
    config.optimizer.generator.learning_rate = 1e-9 if wins else 1e-3
    stage = autoencoder_stage.make_stage(config)
    state = compilation.run_once(stage.init_state, jax.random.key(0))
    step = jax.jit(stage.train_step, donate_argnums=0)
    health, said = health_lib.Health(stage.watched, stage.signs), []
    for number in range(1, 401 if wins else 261):  # longer than the sign has to hold
        state, metrics = step(state, {}, _batch(stage, seed=number))
        said += health.look(number, progress.ratios(jax.device_get(metrics))).sentences
        if said:
            break
    assert bool(said) == wins, said
    if wins:
        assert "the discriminators have won" in said[0]
        assert "lower config.optimizer.discriminator.learning_rate" in said[0]


def test_a_model_is_measured_as_it_is_used_at_its_level_and_trained_at_that_of_the_data():
    stages = {level: autoencoder_stage.make_stage(_leveled(level)) for level in (0.0, -20.0)}
    state = compilation.run_once(stages[0.0].init_state, jax.random.key(0))
    batch = _batch(stages[0.0], valid=0.7)
    power = np.mean(np.square(batch["waveform"]), axis=1, where=batch["mask"], keepdims=True)
    batch["waveform"] *= 0.1 / np.sqrt(power)
    quiet = batch | {"waveform": np.where(batch["mask"], 0.03 * batch["waveform"], np.nan)}
    samples = {level: jax.jit(stage.sample) for level, stage in stages.items()}
    made = samples[-20.0](state, {}, quiet)
    expected = np.where(batch["mask"], 0.03 * batch["waveform"], 0.0)
    np.testing.assert_allclose(made["reference"], expected, atol=1e-8)
    # The batch is at -20 dBFS: there, both hear the same.
    plain = samples[0.0](state, {}, batch)["reconstruction"]
    scale = float(np.std(plain))
    np.testing.assert_allclose(made["reconstruction"], 0.03 * plain, atol=0.03 * 1e-2 * scale)
    assert np.std(samples[0.0](state, {}, quiet)["reconstruction"] - 0.03 * plain) > 1e-3 * scale
    trained = [jax.jit(stage.train_step)(state, {}, batch)[1] for stage in stages.values()]
    assert _ratios(trained[0]) == pytest.approx(_ratios(trained[1]), rel=1e-6)


def _leveled(level_db):
    config = _config()
    config.model.level_db = level_db
    return config


@pytest.mark.parametrize("level_db", [0.0, -30.0])
def test_crops_are_at_the_level_at_which_the_model_hears(level_db, tmp_path):
    shards = sounds.labelled_set(tmp_path, num_files=8)
    config = _leveled(level_db)
    config.data.gain_db = (0.0, 0.0)
    opened = autoencoder_stage.make_stage(config).open_data(
        str(shards), train=True, process_index=0, process_count=1
    )
    batch = opened.local_batch(0)
    energy = np.sum(np.square(batch["waveform"]), axis=1) / np.sum(batch["mask"], axis=1)
    found = 10 * np.log10(energy)
    assert np.allclose(found, level_db, atol=0.1) == bool(level_db), found
