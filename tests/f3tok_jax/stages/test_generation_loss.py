# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The losses of the generation stage: packing, stop labels, what training drops and disturbs."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.models import bottleneck
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.stages import generation as generation_stage
from f3tok_jax.stages import generation_loss
from tests.support import tiny_generation
from tests.support import tiny_models

_HEAD = pretrained_generation.HEAD


def _even_draw(key, target):
    """A draw that depends on its patch alone: what else is random is off."""
    time = jax.nn.sigmoid(jnp.sum(target, axis=(1, 2)))
    noise = jnp.sin(7.0 * target)
    t = time[:, None, None]
    return flow_loss.Draw(time=time, noisy=t * target + (1 - t) * noise, velocity=target - noise)


@pytest.fixture(scope="module")
def even():
    """Gradients and metrics by what is set, with draws that do not depend on their place."""
    patch = pytest.MonkeyPatch()
    patch.setattr(flow_loss, "draw", _even_draw)
    yield functools.lru_cache(
        lambda *more: tiny_generation.gradients_of_step(
            *tiny_generation.CALM, "--config.seed=1", *more
        )
    )
    patch.undo()


@pytest.mark.parametrize(
    "change",
    [
        # test_microbatches_lose_and_learn_what_the_batch_does has as much of it.
        pytest.param(("--config.optimizer.accumulate=2",), marks=pytest.mark.slow),
        ("--config.packing.examples=4", "--config.packing.patches=12",
         "--config.packing.positions=24"),
    ],
    ids=["accumulated", "packed"],
)  # fmt: skip
def test_packing_and_accumulation_change_nothing_but_the_draws(change, even):
    grads, metrics = even(*change)
    expected, plain = even()
    # Sums in another order, in float32.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), grads, expected
    )
    for name, value in plain.items():
        if name != "train/nonfinite" and not name.startswith("train/gradient_norm"):
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_microbatches_lose_and_learn_what_the_batch_does(even):
    rows = ("--config.packing.examples=2", "--config.packing.patches=5")
    rows += ("--config.packing.positions=9",)
    grads, metrics = even(*rows, "--config.optimizer.accumulate=4")
    expected, whole = even(*rows)
    assert whole["train/lost/patches"][0] > 0 and whole["train/lost/positions"][0] > 0
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), grads, expected
    )
    for name in ("flow_loss", "stop_loss", "stop_missed", "lost/patches", "lost/positions"):
        name = f"train/{name}"
        np.testing.assert_allclose(metrics[name], whole[name], rtol=1e-4, err_msg=name)


# Of the eight examples: what fills its row ends or not, as do shorter ones, with half a patch left
# (0, 4) and without (3 with it, 5); one of a single patch, and one without sound at all.
_BEGINS = np.array([1, 0, 1, 0, 1, 0, 1, 0], bool)
_ENDS = np.array([1, 1, 0, 0, 1, 1, 0, 0], bool)


def _cut_batch() -> dict[str, np.ndarray]:
    batch = tiny_generation.make_batch() | dict(begins=_BEGINS, ends=_ENDS)
    batch["mask"] = batch["mask"] & (np.arange(8) != 4)[:, None]  # arranged away: begins, ends
    return batch


def test_only_true_ends_are_taught_and_only_true_beginnings(even):
    _, metrics = tiny_generation.gradients_of_step(
        *tiny_generation.CALM, "--config.seed=1", batch=_cut_batch()
    )
    patches = np.array(tiny_generation.FRAMES) // 2
    patches[4] = 0
    weight = lambda name: tiny_generation.value(metrics, f"train/{name}")[1]
    assert weight("stop_missed") == np.sum(_ENDS & (patches > 0)) == 3
    assert weight("stop_early") == np.sum(np.maximum(patches - 1, 0))
    assert weight("stop_loss") == weight("stop_missed") + weight("stop_early")
    taught = patches.sum() - np.sum(~_BEGINS & (patches > 0))
    assert weight("flow_loss") == 2 * taught  # draws
    # A row that is full to its end has ended there, where its recording did.
    _, whole = even()
    full = tiny_generation.value(whole, "train/stop_missed")[1]
    assert full == len(tiny_generation.FRAMES)


def _loss(batch: dict[str, np.ndarray], model, stage) -> tuple[float, dict]:
    weights = tiny_generation.random_state(stage).params
    loss, metrics = jax.jit(
        functools.partial(
            generation_loss.total_loss, model=model, key=jax.random.key(0), is_training=False
        )
    )(
        weights,
        tiny_generation.random_frozen(stage),
        batch,
        generation_loss.batch_totals(batch, model),
    )
    return float(loss), jax.device_get(metrics)


def test_losses_are_divided_by_what_was_taught(even):
    config = tiny_generation.make_config("--config.flow.stop_weight=0.3")
    stage, model = generation_stage.make_stage(config), tiny_generation.make_model(config)
    for batch in (tiny_generation.make_batch(), _cut_batch()):
        loss, metrics = _loss(batch, model, stage)
        flow, stop = (np.divide(*metrics[name]) for name in ("flow_loss", "stop_loss"))
        assert loss == pytest.approx(flow + 0.3 * stop, rel=1e-5)
        assert metrics["patch_error"][1] == metrics["flow_loss"][1] / 2


def test_what_a_row_has_no_room_for_is_counted():
    rows = ("--config.packing.examples=4", "--config.packing.patches=8")
    config = tiny_generation.make_config(*rows, "--config.packing.positions=14")
    stage, model = generation_stage.make_stage(config), tiny_generation.make_model(config)
    for batch in (tiny_generation.make_batch(), _cut_batch()):
        _, metrics = _loss(batch, model, stage)
        patches = batch["mask"][:, :8].reshape(8, 4, 2).all(-1)
        wanted = patches.sum(1) + np.where(patches.any(1), 1 + batch["text_mask"].sum(1), 0)
        wanted = wanted.reshape(2, 4).sum(1)
        lost = np.maximum(wanted - 14, 0).sum()
        assert lost > 0 and metrics["lost/positions"] == (lost, wanted.sum())
        taught = (patches & (batch["begins"][:, None] | (np.arange(4) > 0))).sum()
        assert metrics["lost/patches"] == (taught - metrics["flow_loss"][1] / 2, taught)
        assert metrics["lost/patches"][0] > 0


def _teaching(mask) -> generation_loss.generator_lib.Teaching:
    mask = jnp.asarray(mask, bool)
    states = jnp.asarray(np.random.default_rng(0).normal(size=(*mask.shape, 16)), jnp.float32)
    states = jnp.pad(states, ((0, 0), (1, 0), (0, 0)))
    return generation_loss.generator_lib.Teaching(
        states=states, tokens=states, targets=None, history=None, sound=mask, mask=mask, text=None,
        lost=None,
    )  # fmt: skip


def test_stop_labels_say_which_patch_is_the_last():
    model = tiny_generation.make_model(tiny_generation.make_config())
    head = model.generator.head
    inputs = tiny_models.head_inputs(head, 16)
    shapes = jax.eval_shape(head.init, jax.random.key(0), *inputs)["params"]
    weights = {"head": tiny_models.random_weights(shapes)}
    teaching = _teaching(
        [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    )
    ends = jnp.array([1, 0, 1, 1, 1, 0], bool)
    loss, metrics = generation_loss._stop_loss(weights, teaching, ends, model=model)
    logits = np.asarray(
        head.apply({"params": weights["head"]}, teaching.states[:, 1:], method="stop_logits")
    )
    goes_on = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (4, 0), (4, 1), (4, 2), (5, 0)]
    last = [(0, 2), (2, 0), (4, 3)]
    expected = sum(np.log1p(np.exp(logits[at])) for at in goes_on)
    expected += sum(np.log1p(np.exp(-logits[at])) for at in last)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert tiny_generation.value(metrics, "stop_loss") == (
        pytest.approx(float(expected), rel=1e-5),
        12.0,
    )
    # In turn: the sound is taken to end where it is more likely than not to have ended.
    ended = np.exp(-np.cumsum(np.logaddexp(0.0, logits), axis=1)) < 0.5
    missed = sum(not ended[at] for at in last), 3.0
    early = sum(ended[at] for at in goes_on), 9.0
    assert tiny_generation.value(metrics, "stop_missed") == missed
    assert tiny_generation.value(metrics, "stop_early") == early


def test_sound_that_packing_cuts_does_not_end_there():
    config = tiny_generation.make_config(
        "--config.packing.examples=4", "--config.packing.positions=12"
    )
    stage, model = generation_stage.make_stage(config), tiny_generation.make_model(config)
    frozen, batch = tiny_generation.random_frozen(stage), tiny_generation.make_batch()
    weights = pretrained_generation.generator_weights(
        tiny_generation.random_state(stage).params, frozen
    )
    teach = functools.partial(model.generator.teach, examples_per_row=4, length=12)
    teaching = jax.jit(teach)(
        weights, batch["latents"], batch["mask"], batch["text"], batch["text_mask"],
        batch["answer"],
    )  # fmt: skip
    _, metrics = generation_loss._stop_loss(weights, teaching, batch["ends"], model=model)
    kept = np.asarray(teaching.mask).sum(axis=1)
    ended = [k == f // 2 for k, f in zip(kept, tiny_generation.FRAMES) if k]
    assert 0 < sum(ended) < len(tiny_generation.FRAMES)
    assert tiny_generation.value(metrics, "stop_missed")[1] == sum(ended)


def test_the_encoder_s_noise_reaches_the_loss_of_training(even):
    _, noisy = even("--config.flow.encoder_noise=0.5")
    _, clean = even()
    for name in ("train/flow_loss", "train/stop_loss"):
        assert noisy[name][1] == clean[name][1] and noisy[name][0] != clean[name][0]


def test_what_is_always_dropped_teaches_nothing():
    grads, metrics = tiny_generation.gradients_of_step(*tiny_generation.DROPPED)
    for name in ("state_in", "token_in"):
        np.testing.assert_array_equal(grads[_HEAD][name]["kernel"], 0.0)
    assert np.abs(grads[_HEAD]["time_out"]["kernel"]).max() > 0
    _, other = tiny_generation.gradients_of_step(
        *tiny_generation.DROPPED, batch=tiny_generation.make_batch(text_seed=1)
    )
    jax.tree.map(np.testing.assert_array_equal, other, metrics)
    # Positions do count: without text, the sound is read from the first one on.
    no_text = tiny_generation.make_batch() | {
        name: np.zeros_like(tiny_generation.make_batch()[name]) for name in ("text_mask", "answer")
    }
    _, silent = tiny_generation.gradients_of_step(*tiny_generation.DROPPED, batch=no_text)
    jax.tree.map(np.testing.assert_array_equal, silent, metrics)


def test_where_nothing_is_dropped_text_and_condition_teach(even):
    grads, metrics = even()
    for name in ("state_in", "token_in"):
        assert np.abs(grads[_HEAD][name]["kernel"]).max() > 0
    _, other = tiny_generation.gradients_of_step(
        *tiny_generation.CALM, "--config.seed=1", batch=tiny_generation.make_batch(text_seed=1)
    )
    for name in ("train/flow_loss", "train/stop_loss"):
        assert tiny_generation.value(other, name)[0] != tiny_generation.value(metrics, name)[0]


def test_a_patch_is_made_of_what_has_been_read_before_it():
    place = jnp.broadcast_to(jnp.arange(5.0)[:, None], (8, 5, 3))
    patches = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], (8, 4, 2, 4))
    sound = jnp.arange(4)[None] < jnp.array([4, 2, 3, 1, 4, 0, 2, 3])[:, None]
    teaching = generator_lib.Teaching(
        states=place, tokens=10 + place, targets=patches, history=20 + patches,
        sound=sound, mask=sound, text=None, lost=(0.0, 0.0),
    )  # fmt: skip
    for packed in ((), ("--config.packing.examples=4", "--config.packing.patches=12")):
        config = tiny_generation.make_config(*packed)
        learned, _ = generation_loss._pack(teaching, jnp.ones(8, bool), config)
        valid = np.asarray(learned.mask)
        assert valid.sum() == 19
        order = np.asarray(learned.targets)[valid][:, 0, 0]
        np.testing.assert_array_equal(np.asarray(learned.states)[valid][:, 0], order)
        np.testing.assert_array_equal(np.asarray(learned.tokens)[valid][:, 0], 10 + order)
        np.testing.assert_array_equal(np.asarray(learned.history)[valid][:, 0, 0], 20 + order)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_conditions_and_histories_are_dropped_by_their_shares_patch_by_patch(share):
    count = 4000
    learned = generation_loss._Learned(
        *(jnp.ones((count, 2)) for _ in range(2)), jnp.ones((count, 1, 1)),
        jnp.ones((count, 4, 3)).at[: count // 2, :2].set(0.0), jnp.ones((count,), bool),
    )  # fmt: skip
    flow = tiny_generation.make_config(
        f"--config.flow.condition_drop={share}", f"--config.flow.history_drop={share}",
        "--config.flow.history_noise=0.5",
    ).flow  # fmt: skip
    keys = functools.partial(lambda name: jax.random.key(len(name)))
    disturbed = generation_loss._disturb(learned, keys, flow)
    history = np.asarray(disturbed.history)
    kept = (history[:, 2:] != 0).all(axis=(1, 2))
    # Three standard errors of 4000 draws.
    assert 1 - kept.mean() == pytest.approx(share, abs=0.025)
    assert 1 - np.mean(disturbed.keeps_condition) == pytest.approx(share, abs=0.025)
    np.testing.assert_array_equal(history[~kept], 0.0)
    np.testing.assert_array_equal(history[: count // 2, :2], 0.0)  # there was nothing
    if share < 1:
        noise = history[kept][:, 2:] - 1.0
        # Its strength is one per patch, of U(0, 0.5): rms 0.5 / sqrt(3).
        assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.5 / np.sqrt(3), rel=0.05)
    np.testing.assert_array_equal(disturbed.targets, learned.targets)


@pytest.mark.reliability("R22")
def test_a_head_that_stands_still_or_never_ends_is_named():
    config = ml_collections.ConfigDict({"flow": {"stop_weight": 0.1}})
    still, endless = generation_loss.signs(config)
    assert "has collapsed" in still.shows(0.01)
    assert "never stops; raise config.flow.stop_weight" in endless.shows(1.0)
    assert still.shows(1.2) == endless.shows(0.9) == ""
    assert [*still.metrics, *endless.metrics] == ["train/velocity_rms", "train/stop_missed"]
    config.flow.stop_weight = 0.0
    assert len(generation_loss.signs(config)) == 1


class _Heard(Exception):
    """What the encoder would have been given."""


def test_the_encoder_hears_noise_in_training_alone_of_a_strength_per_example(monkeypatch):
    perturb = bottleneck.perturb

    def heard(latents, key, *, gamma, segments):
        raise _Heard(gamma, segments, perturb(latents, key, gamma=gamma, segments=segments))

    monkeypatch.setattr(bottleneck, "perturb", heard)
    config = tiny_generation.make_config("--config.flow.encoder_noise=0.3")
    stage, model = generation_stage.make_stage(config), tiny_generation.make_model(config)
    batch = tiny_generation.make_batch()
    lower = functools.partial(
        generation_loss.total_loss,
        tiny_generation.random_state(stage).params,
        tiny_generation.random_frozen(stage),
        batch | {"latents": np.zeros((8, 9, 4), np.float32)},
        generation_loss.batch_totals(batch, model),
        model=model,
        key=jax.random.key(0),
    )
    with pytest.raises(_Heard) as found:
        lower(is_training=True)
    gamma, segments, noise = found.value.args
    assert gamma == 0.3 and set(np.unique(segments)) == {0, 1}  # an example, and its padding
    strengths = [np.asarray(row)[np.asarray(one) > 0].std() for row, one in zip(noise, segments)]
    assert len({round(float(strength), 4) for strength in strengths}) == 8
    assert 0 < max(strengths) < 0.3 * 1.6  # of eight values at least
    jax.eval_shape(functools.partial(lower, is_training=False))
