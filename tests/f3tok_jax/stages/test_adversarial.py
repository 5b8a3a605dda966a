# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the discriminators hear, and what each player learns from it."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax.models.discriminators import discriminators as discriminators_lib
from f3tok_jax.stages import adversarial
from f3tok_jax.training import players
from tests.support import noise
from tests.support import plain_discriminators

_CROP = 400


def _mask(num_samples, length):
    return np.arange(length)[None] < np.asarray(num_samples)[:, None]


def test_crops_lie_in_the_sound_and_every_example_has_its_own():
    length = 1000
    valid = [1000] * 200 + [700] * 200 + [450, 400, 399, 7, 0]
    mask = jnp.asarray(_mask(valid, length))
    draw = jax.jit(functools.partial(adversarial.crops, mask=mask, length=_CROP))
    starts, heard = jax.device_get(draw(jax.random.key(0)))
    np.testing.assert_array_equal(heard, np.minimum(valid, _CROP))
    assert np.all(starts >= 0) and np.all(starts + heard <= valid)
    # Sounds that are long enough fill their crops, and all of a sound is heard in time.
    for chosen, last in ((starts[:200], 600), (starts[200:400], 300)):
        assert len(np.unique(chosen)) > 100 and chosen.min() < 20 and chosen.max() > last - 20
    assert np.all(starts[-4:] == 0)
    others, _ = jax.device_get(draw(jax.random.key(1)))
    assert np.mean(others[:400] != starts[:400]) > 0.9


@pytest.fixture(scope="module")
def game():
    """A small game: its gradients as a function of sounds and where they are cut, with weights."""
    config = recipe.get_config("tiny")
    config.losses.update(dict(adversarial_crop=_CROP, split_game=True))
    module = discriminators_lib.Discriminators(
        periods=(2, 3),
        period_fold=3,
        period_channels=(8, 8),
        stft_windows=(64,),
        stft_bands=(0.0, 0.25, 1.0),
        stft_fold=4,
        stft_channels=8,
    )
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, _CROP)))["params"]
    params = noise.with_random_biases(params)

    @jax.jit
    def play(waveform, reconstruction, starts, heard):
        return adversarial.gradients(
            params,
            waveform,
            reconstruction,
            starts,
            heard,
            jnp.sum(heard),
            discriminators=module,
            losses=config.losses,
        )

    return types.SimpleNamespace(play=play, params=params, module=module)


def test_both_players_get_what_plain_convolutions_give_them(game):
    """Losses and gradients against the discriminators' definition, map by map."""
    real, fake = noise.waveform(2, _CROP), noise.waveform(2, _CROP, seed=1)
    zero, heard = np.zeros(2, np.int32), np.full(2, _CROP, np.int32)
    at_sound, of_params, metrics = game.play(real, fake, zero, heard)

    def losses(params, fake):
        maps_of = functools.partial(plain_discriminators.all_maps, params, module=game.module)
        adversarial_loss = feature_matching = discriminator = 0.0
        for real_stack, fake_stack, weight in zip(
            maps_of(real), maps_of(fake), game.module.map_weights, strict=True
        ):
            *real_layers, real_logits = real_stack
            *fake_layers, fake_logits = fake_stack
            for one, two in zip(sum(real_layers, []), sum(fake_layers, []), strict=True):
                difference = jnp.abs(jax.lax.stop_gradient(one) - two)
                feature_matching += weight * jnp.mean(difference)
            for one, two in zip(real_logits, fake_logits, strict=True):
                discriminator += jnp.mean((one - 1) ** 2) + jnp.mean(two**2)
                adversarial_loss += jnp.mean((two - 1) ** 2)
        return dict(
            adversarial=adversarial_loss,
            feature_matching=feature_matching,
            discriminator=discriminator,
        )

    expected = jax.jit(losses)(game.params, fake)
    assert metrics.keys() == expected.keys()
    for name, (value, weight) in metrics.items():
        assert float(value / weight) == pytest.approx(float(expected[name]), rel=1e-5)
    gradients = jax.jit(jax.jacrev(losses, argnums=(0, 1)))(game.params, fake)
    pairs = [(at_sound[name], gradients[name][1]) for name in at_sound]
    pairs += zip(
        jax.tree.leaves(of_params), jax.tree.leaves(gradients["discriminator"][0]), strict=True
    )
    for found, own in pairs:
        np.testing.assert_allclose(found, own, rtol=0, atol=1e-5 * np.max(np.abs(own)))


def _close(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        # Sums of another order in float32.
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_what_lies_outside_the_crop_or_the_sound_reaches_neither_player(game):
    starts, heard = np.array([100, 0, 0], np.int32), np.array([400, 150, 0], np.int32)
    inside = (np.arange(700) >= starts[:, None]) & _mask(starts + heard, 700)
    real, fake = noise.waveform(3, 700), noise.waveform(3, 700, seed=1)
    expected = game.play(np.where(inside, real, 0.0), np.where(inside, fake, 0.0), starts, heard)
    filled = game.play(
        np.where(inside, real, noise.waveform(3, 700, seed=2)),
        np.where(inside, fake, noise.waveform(3, 700, seed=3)),
        starts,
        heard,
    )
    _close(filled, expected)
    for gradient in expected[0].values():
        assert not np.any(np.asarray(gradient)[~inside])
        assert np.any(np.asarray(gradient)[0]) and np.any(np.asarray(gradient)[1])


def test_a_padded_example_teaches_what_it_teaches_alone(game):
    """Zeros behind a sound are not judged as sound: they change neither loss nor gradients."""
    real, fake = noise.waveform(1, 150), noise.waveform(1, 150, seed=1)
    pad = lambda x, n: np.pad(x, ((0, 0), (0, n - 150)))
    zero, heard = np.zeros(1, np.int32), np.array([150], np.int32)
    short = game.play(pad(real, _CROP), pad(fake, _CROP), zero, heard)
    # Beside an example without sound, in a longer batch.
    beside = [np.concatenate([pad(x, 900), noise.waveform(1, 900, seed=4)]) for x in (real, fake)]
    both = game.play(*beside, np.zeros(2, np.int32), np.array([150, 0], np.int32))
    ratios = lambda metrics: {name: value / weight for name, (value, weight) in metrics.items()}
    _close(ratios(both[2]), ratios(short[2]))
    _close(both[1], short[1])
    for name, gradient in both[0].items():
        _close(gradient[0, :150], short[0][name][0, :150])
        assert not np.any(gradient[1])


def test_examples_weigh_as_many_samples_as_are_heard(game):
    real, fake = noise.waveform(2, 400), noise.waveform(2, 400, seed=1)
    heard, zero = np.array([400, 100], np.int32), np.zeros(1, np.int32)
    both = game.play(real, fake, np.zeros(2, np.int32), heard)
    each = [game.play(real[[i]], fake[[i]], zero, heard[[i]]) for i in range(2)]
    for name, (value, weight) in both[2].items():
        assert weight == pytest.approx(1.25)
        assert float(value) == pytest.approx(sum(float(one[2][name][0]) for one in each), rel=1e-4)
    for name, gradient in both[0].items():
        expected = [0.8 * np.asarray(each[0][0][name])[0], 0.2 * np.asarray(each[1][0][name])[0]]
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("start", "branches"), [(0, 0), (20, 1)])
def test_nothing_branches_where_the_discriminators_play_from_the_first_step_on(start, branches):
    config = recipe.get_config("tiny")
    config.optimizer.discriminator.start = start
    player = players.make_players(config, ["discriminator"])["discriminator"]
    program = jax.make_jaxpr(
        lambda step, x: adversarial.once(player.plays(step), lambda x: 2 * x, x)
    )(jnp.int32(0), jnp.float32(1))
    assert sum(equation.primitive.name == "cond" for equation in program.eqns) == branches


def test_the_players_play_the_game_that_they_are_told():
    """By discriminators whose logits are the samples, times the one weight that they have."""

    def apply(variables, sound, num_samples):
        del num_samples
        logits = variables["params"] * sound.T[None]
        return [[logits[..., None], logits]], [[jnp.ones(logits.shape, bool)] * 2]

    module = types.SimpleNamespace(apply=apply, map_weights=[1.0])
    config = recipe.get_config("tiny")
    config.losses.update(dict(adversarial_crop=0, split_game=True, game="hinge"))
    real, fake = jnp.array([[0.5, 2.0]]), jnp.array([[-2.0, 0.5]])
    at_sound, of_params, metrics = adversarial.gradients(
        jnp.float32(1.0),
        *(real, fake, jnp.zeros(1, jnp.int32), jnp.array([2]), jnp.int32(2)),
        discriminators=module,
        losses=config.losses,
    )
    losses = {name: float(total / weight) for name, (total, weight) in metrics.items()}
    assert losses == {
        "discriminator": (0.5 + 0 + 0 + 1.5) / 2,
        "adversarial": (3 + 0.5) / 2,
        "feature_matching": (2.5 + 1.5) / 2,
    }
    np.testing.assert_allclose(at_sound["adversarial"], [[-0.5, -0.5]])
    # d/dw of max(0, 1 - 0.5 w) / 2 + max(0, 1 + 0.5 w) / 2; of the others nothing is asked.
    assert of_params == pytest.approx(-0.25 + 0.25)


@pytest.mark.parametrize("name, value", [("balance", "norms"), ("game", "chess")])
def test_a_choice_that_there_is_not_is_refused(name, value):
    config = recipe.get_config("tiny")
    config.losses[name] = value
    message = rf"losses.{name} must be one of .* got '{value}' \(here\)"
    with pytest.raises(ValueError, match=message):
        adversarial.validate(config, "here")
