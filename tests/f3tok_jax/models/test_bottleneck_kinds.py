# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The bottlenecks that F3's is held against: their equations, written anew in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import bottleneck
from f3tok_jax.models import bottleneck_kinds


def _f3():
    return bottleneck.F3(normalize=True, perturb=True, gamma=1.0, epsilon=1e-5)


def _noisy(kind, latents, key, *, encoded=None, mask=None):
    encoded = latents if encoded is None else encoded
    mask = jnp.ones(latents.shape[:2], bool) if mask is None else mask
    return kind.noisy(latents, key, encoded=encoded, mask=mask)


def _kl_vae(**changes):
    fields = dict(weight=1e-2, half=True, free_nats=0.0, logvar_clip=12.0)
    return bottleneck_kinds.KlVae(**(fields | changes))


def _sigma_vae(**changes):
    return bottleneck_kinds.SigmaVae(**(dict(weight=1.0, noise_std=0.625) | changes))


def _soft_norm(**changes):
    fields = dict(weight=1.0, channels_weight=0.4, min_variance=1e-4, noise_ratio=1e-2)
    return bottleneck_kinds.SoftNorm(**(fields | changes))


_ALL = {"f3": _f3, "kl_vae": _kl_vae, "sigma_vae": _sigma_vae, "soft_norm": _soft_norm}


def _drawn(kind, *, rows=3, frames=7, dim=5, seed=0):
    """What an encoder may say, and a mask of rows of every length but none."""
    rng = np.random.default_rng(seed)
    encoded = rng.normal(0.3, 1.4, (rows, frames, kind.encoder_dim(dim))).astype(np.float32)
    return encoded, np.arange(frames)[None] < np.array([frames, frames - 3, 1])[:rows, None]


def _losses(kind, encoded, mask):
    return kind.losses(kind.clean(encoded), encoded=encoded, mask=mask)


def _ratio(pair):
    return float(pair[0]) / float(pair[1])


@pytest.mark.parametrize("half", [True, False])
def test_the_divergence_is_that_of_its_closed_form_in_both_conventions(half):
    kind = _kl_vae(half=half)
    encoded, mask = _drawn(kind)
    mean, logvar = np.split(encoded.astype(np.float64), 2, axis=-1)
    np.testing.assert_array_equal(kind.clean(encoded), encoded[..., :5])
    # Of normal densities, -E[log q / p], by the entropies of both: nothing is drawn.
    deviation = np.exp(0.5 * logvar)
    of_itself = -0.5 * np.log(2 * np.pi * deviation**2) - 0.5
    of_standard = -0.5 * np.log(2 * np.pi) - 0.5 * (mean**2 + deviation**2)
    exact = (of_itself - of_standard).sum(axis=-1)[mask].mean()
    (name,) = kind.loss_weights
    total, weight = _losses(kind, encoded, mask)[name]
    assert weight == mask.sum() and name == "kl"
    assert total / weight == pytest.approx(exact if half else 2 * exact, rel=1e-5)


def test_the_divergence_is_met_by_numerical_integration():
    mean, deviation = 0.7, 0.4
    points = np.linspace(-9, 9, 200_001)
    density = np.exp(-0.5 * ((points - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    log_ratio = np.log(np.maximum(density, 1e-300)) + 0.5 * points**2 + 0.5 * np.log(2 * np.pi)
    exact = np.sum(density * log_ratio) * (points[1] - points[0])
    encoded = np.array([[[mean, 2 * np.log(deviation)]]], np.float32)
    found = _losses(_kl_vae(), encoded, np.ones((1, 1), bool))["kl"]
    assert _ratio(found) == pytest.approx(exact, rel=1e-5)


def test_free_nats_are_of_each_value_and_take_its_gradient():
    kind = _kl_vae(free_nats=0.2)
    encoded, mask = _drawn(kind)
    mean, logvar = np.split(encoded, 2, axis=-1)
    each = np.maximum(0.5 * (mean**2 + np.exp(logvar) - 1 - logvar), 0.2)
    found = _losses(kind, encoded, mask)["kl"]
    assert _ratio(found) == pytest.approx(each.sum(axis=-1)[mask].mean(), rel=1e-5)
    gradient = jax.grad(lambda x: _losses(kind, x, mask)["kl"][0])(encoded)
    met = (each > 0.2) & mask[..., None]
    assert met.any() and not met.all()
    np.testing.assert_allclose(gradient[..., :5], np.where(met, mean, 0.0), rtol=1e-5, atol=1e-6)
    expected = np.where(met, 0.5 * (np.exp(logvar) - 1), 0.0)
    np.testing.assert_allclose(gradient[..., 5:], expected, rtol=1e-5, atol=1e-6)


def test_a_logarithm_beyond_its_clip_counts_as_the_clip_and_has_no_gradient():
    kind = _kl_vae(logvar_clip=2.0)
    encoded, mask = np.full((1, 4, 2), 50.0, np.float32), np.ones((1, 4), bool)
    encoded[..., 0] = 0.0
    total, pull_back = jax.vjp(lambda x: _losses(kind, x, mask)["kl"][0], encoded)
    assert float(total) == pytest.approx(4 * 0.5 * (np.exp(2.0) - 3.0), rel=1e-5)
    assert not np.any(pull_back(jnp.float32(1.0))[0])
    latents = jnp.zeros((1, 4, 1))
    noise = _noisy(kind, latents, jax.random.key(0), encoded=encoded)
    assert np.abs(noise).max() < 5 * np.e


def test_a_vae_samples_with_the_deviation_that_it_says():
    kind = _kl_vae()
    encoded = jnp.broadcast_to(jnp.array([1.0, -2.0, 0.0, 2.0]), (100, 200, 4))
    noise = np.asarray(_noisy(kind, jnp.zeros((100, 200, 2)), jax.random.key(3), encoded=encoded))
    # Of 20,000 draws the deviation is known to 0.5 %.
    np.testing.assert_allclose(noise.std(axis=(0, 1)), np.exp([0.0, 1.0]), rtol=0.02)
    gradient = jax.grad(
        lambda e: jnp.sum(jnp.square(_noisy(kind, kind.clean(e), jax.random.key(3), encoded=e)))
    )(encoded)
    assert np.all(np.any(np.asarray(gradient), axis=(0, 1)))  # the decoder's reaches both halves


def test_a_sigma_vae_draws_one_signed_deviation_per_example():
    latents = jnp.zeros((4000, 30, 8))
    noise = np.asarray(_noisy(_sigma_vae(), latents, jax.random.key(1)))
    scales = noise.std(axis=(1, 2))
    # A half-normal deviate: mean magnitude 0.625 * sqrt(2 / pi), about 0.5; known to 1 %.
    assert scales.mean() == pytest.approx(0.625 * np.sqrt(2 / np.pi), rel=0.03)
    assert np.sqrt(np.mean(scales**2)) == pytest.approx(0.625, rel=0.03)
    halves = noise[:, :15].std(axis=(1, 2)) / noise[:, 15:].std(axis=(1, 2))
    # Two deviations of 120 draws each: 0.091 apart, of one scale.
    assert np.log(halves).std() < 0.1
    encoded, mask = _drawn(_sigma_vae())
    found = _losses(_sigma_vae(), encoded, mask)["latent_square"]
    assert _ratio(found) == pytest.approx(np.square(encoded[mask]).mean(), rel=1e-5)
    assert found[1] == mask.sum()


def test_soft_norm_is_of_unbiased_variances_over_time_and_over_channels():
    kind = _soft_norm()
    encoded, mask = _drawn(kind)
    encoded[:, :, 2] = 0.25  # a channel without variance counts as one of the least
    rows = [row[valid].astype(np.float64) for row, valid in zip(encoded, mask)]

    def penalty(mean, variance):
        variance = np.maximum(variance, 1e-4)
        return mean**2 + variance - np.log(variance) - 1

    over_time = [len(x) * penalty(x.mean(0), x.var(0, ddof=1)).mean() for x in rows if len(x) > 1]
    over_channels = np.concatenate([penalty(x.mean(1), x.var(1, ddof=1)) for x in rows])
    found = _losses(kind, encoded, mask)
    assert _ratio(found["soft_norm_time"]) == pytest.approx(sum(over_time) / mask.sum(), rel=1e-5)
    assert _ratio(found["soft_norm_channels"]) == pytest.approx(over_channels.mean(), rel=1e-5)
    assert kind.loss_weights == {"soft_norm_time": 1.0, "soft_norm_channels": 0.4}
    # Rows of one length: the published mean over examples and channels.
    whole = np.ones_like(mask)
    published = penalty(encoded.mean(1), encoded.var(1, ddof=1)).mean()
    assert _ratio(_losses(kind, encoded, whole)["soft_norm_time"]) == pytest.approx(
        published, rel=1e-5
    )


def test_soft_norm_adds_a_hundredth_of_each_channels_own_deviation():
    latents = np.random.default_rng(0).normal(size=(200, 100, 3)) * np.array([0.0, 1.0, 20.0])
    latents, mask = jnp.asarray(latents, jnp.float32), jnp.ones((200, 100), bool)
    noise = np.asarray(_noisy(_soft_norm(), latents, jax.random.key(2)) - latents)
    np.testing.assert_allclose(noise.std(axis=(0, 1)), [0.0, 0.01, 0.2], rtol=0.03, atol=1e-7)
    gradient = jax.grad(lambda x: jnp.sum(_noisy(_soft_norm(), x, jax.random.key(2), mask=mask)))
    assert np.isfinite(gradient(latents)).all()


@pytest.mark.parametrize("kind", _ALL)
def test_padding_reaches_no_loss_no_noise_and_no_gradient(kind):
    kind = _ALL[kind]()
    encoded, mask = _drawn(kind)
    other = np.where(mask[..., None], encoded, 100.0 * encoded + 7.0)

    def told(x):
        latents = kind.clean(x)
        noisy = _noisy(kind, latents, jax.random.key(0), encoded=x, mask=mask)
        terms = kind.losses(latents, encoded=x, mask=mask)
        heard = jnp.sum(jnp.square(jnp.where(mask[..., None], noisy, 0.0)))
        return heard + sum(total for total, _ in terms.values()), terms

    (one, _), gradient = jax.value_and_grad(told, has_aux=True)(encoded)
    (two, terms), _ = jax.value_and_grad(told, has_aux=True)(other)
    assert float(one) == pytest.approx(float(two), rel=1e-6)
    assert not np.any(np.asarray(gradient)[~mask]) and np.isfinite(gradient).all()
    assert set(terms) == set(kind.loss_weights)
    assert all(weight == mask.sum() for _, weight in terms.values())


@pytest.mark.parametrize(
    "kind, change",
    [
        ("kl_vae", dict(weight=-1.0)),
        ("kl_vae", dict(free_nats=-0.5)),
        ("kl_vae", dict(logvar_clip=0.0)),
        ("sigma_vae", dict(noise_std=-0.1)),
        ("sigma_vae", dict(weight=float("inf"))),
        ("soft_norm", dict(min_variance=0.0)),
        ("soft_norm", dict(channels_weight=-0.4)),
        ("soft_norm", dict(noise_ratio=-1.0)),
    ],
)
def test_impossible_values_are_refused(kind, change):
    (name,) = change
    with pytest.raises(ValueError, match=f"config.bottleneck.*{name} must"):
        _ALL[kind](**change)


def test_a_kind_that_there_is_none_of_is_refused_and_none_is_f3():
    fields = dict(normalize=True, perturb=True, gamma=1.0, epsilon=1e-5)
    assert bottleneck_kinds.make(fields) == bottleneck_kinds.make(fields | {"kind": "f3"}) == _f3()
    with pytest.raises(ValueError, match="kind must be one of .*'kl_vae'.*, got 'vae'"):
        bottleneck_kinds.make(fields | {"kind": "vae"})
    with pytest.raises(ValueError, match="latent_dim must be at least 2"):
        _soft_norm().encoder_dim(1)
