# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The first stage with every kind of bottleneck: its step, its gradient, what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.models import flops
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import lineage
from f3tok_jax.stages import autoencoder as autoencoder_stage
from tests.support import tiny_models

_KINDS = ("kl_vae", "sigma_vae", "soft_norm")
_FRAMES = np.array([4, 4, 3, 2, 1, 4, 2, 4])  # of sound, in each example


def _config(kind, *, accumulate=1, **losses):
    config = tiny_models.config(strides=((4, 4),))
    config.losses.update(dict(mel_windows=(64, 256), mel_bands=(10, 20)) | losses)
    config.optimizer.discriminator.start = -1
    config.optimizer.accumulate = accumulate
    config.data.crop_frames = 4
    config.bottleneck.kind = kind
    return config


@functools.cache
def _stage(kind, accumulate=1, balance="weights", mel=15.0):
    """A stage whose bottleneck counts, its initial state and its compiled step."""
    weights = dict(mel=mel, stft=0.0, spectrum=0.0, waveform=0.0)
    config = _config(kind, accumulate=accumulate, balance=balance, weights=weights)
    config.bottleneck[kind].weight = 0.5
    stage = autoencoder_stage.make_stage(config)
    state = compilation.run_once(stage.init_state, jax.random.key(0))
    return config, state, jax.jit(stage.train_step), stage


def _batch(stage, fill=0.0):
    shape = stage.batch_spec["waveform"].shape
    samples = np.arange(shape[1]) // (shape[1] // 4)
    mask = samples[None] < _FRAMES[:, None]
    waveform = 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)
    edges = dict.fromkeys(("begins", "ends"), np.ones(shape[:1], bool))
    return {"waveform": np.where(mask, waveform, np.float32(fill)), "mask": mask, **edges}


def _ratios(metrics):
    return {name: float(total / weight) for name, (total, weight) in metrics.items() if weight}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_step_tells_and_moves_what_it_asks_of_latents_and_hears_no_padding(kind):
    config, state, step, stage = _stage(kind)
    after, metrics = step(state, {}, _batch(stage))
    other, more = step(state, {}, _batch(stage, fill=np.nan))
    assert _ratios(metrics) == _ratios(more)
    jax.tree.map(np.testing.assert_array_equal, after.params, other.params)
    found = _ratios(metrics)
    bottleneck = pretrained_autoencoder.make(config).bottleneck
    names = [f"train/{name}" for name in bottleneck.loss_weights]
    drift = "train/latent_drift_mean_square"
    assert np.isfinite([found[name] for name in (*names, drift)]).all()
    assert all(metrics[name][1] == _FRAMES.sum() for name in names)
    assert metrics[drift][1] == len(_FRAMES) * 8
    before = jax.tree.leaves(state.params["generator"]["encoder"])
    moved = jax.tree.leaves(after.params["generator"]["encoder"])
    assert all(np.any(one != two) for one, two in zip(before, moved, strict=True))
    evaluated = _ratios(jax.jit(stage.eval_step)(state, {}, _batch(stage)))
    assert {f"eval/{name}" for name in bottleneck.loss_weights} <= evaluated.keys()


@pytest.mark.parametrize(
    "kind, accumulate, balance",
    [
        pytest.param("kl_vae", 1, "gradients", marks=pytest.mark.slow),
        pytest.param("sigma_vae", 2, "weights", marks=pytest.mark.slow),
        ("soft_norm", 2, "weights"),
    ],
)
def test_what_is_asked_of_latents_has_its_weight_whatever_balances_the_rest(
    kind, accumulate, balance
):
    """Where no loss of the sound weighs, the gradient is that of the bottleneck over all frames."""
    config, state, step, stage = _stage(kind, accumulate, balance, 0.0)
    batch = _batch(stage)
    autoencoder = pretrained_autoencoder.make(config)

    def asked(params):
        coded = autoencoder.apply({"params": params}, batch["waveform"], mask=batch["mask"])
        weights = autoencoder.bottleneck.loss_weights
        return sum(weights[name] * total / w for name, (total, w) in coded.losses.items())

    gradient = jax.jit(jax.grad(asked))(state.params["generator"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["decoder"]))
    expected = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    found = _ratios(step(state, {}, batch)[1])["train/gradient_norm/generator"]
    assert found == pytest.approx(float(expected), rel=1e-4) and found > 0


def test_a_latent_of_padding_counts_in_no_statistic():
    config, state, _, stage = _stage("sigma_vae")
    params = state.params["generator"]
    autoencoder = pretrained_autoencoder.make(config)
    batch = _batch(stage)
    apply = functools.partial(autoencoder.apply, method="waveform_to_latents")
    latents = np.asarray(apply({"params": params}, batch["waveform"]))
    rows = [row[:count] for row, count in zip(latents, _FRAMES)]
    found = _ratios(jax.jit(stage.eval_step)(state, {}, batch))
    values = np.concatenate(rows)
    assert found["eval/latent_mean"] == pytest.approx(values.mean(), rel=1e-3, abs=1e-6)
    assert found["eval/latent_mean_square"] == pytest.approx(np.square(values).mean(), rel=1e-4)
    assert found["eval/latent_square"] == pytest.approx(np.square(values).mean(), rel=1e-4)
    drift = np.square([row.mean(axis=0) for row in rows]).mean()
    assert found["eval/latent_drift_mean_square"] == pytest.approx(drift, rel=1e-4)


def test_what_a_kind_learns_is_the_encoders():
    parts = {}
    for kind in ("f3", *_KINDS):
        autoencoder = pretrained_autoencoder.make(_config(kind))
        params = pretrained_autoencoder.abstract_params(autoencoder)
        assert set(params) == {"encoder", "decoder"}
        shapes = jax.tree.map(lambda leaf: leaf.shape, params["encoder"])
        parts[kind] = shapes, flops.encoder(autoencoder, 4).total
    for kind, affine in (("sigma_vae", {}), ("soft_norm", {"bias": (8,), "scale": (8,)})):
        shapes, counted = parts[kind]
        assert shapes == parts["f3"][0] | ({"affine": affine} if affine else {})
        assert counted == parts["f3"][1]
    wide, narrow = (parts[kind][0]["dense_pair"] for kind in ("kl_vae", "f3"))
    width = jax.tree.leaves(narrow, is_leaf=lambda one: isinstance(one, tuple))
    doubled = jax.tree.leaves(wide, is_leaf=lambda one: isinstance(one, tuple))
    assert sum(one != two for one, two in zip(width, doubled)) == 4  # two kernels, two biases
    assert parts["kl_vae"][1] > parts["f3"][1]


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"kind": "vq"},
            r"kind must be one of \('f3', 'kl_vae', 'sigma_vae', 'soft_norm'\), got 'vq'",
        ),
        ({"gamma": -1.0}, "bottleneck.gamma must not be negative"),
        ({"kind": "kl_vae", "kl_vae": {"weight": -1.0}}, "kl_vae.weight must not be negative"),
        ({"kind": "kl_vae", "kl_vae": {"logvar_clip": 0.0}}, "kl_vae.logvar_clip must be positive"),
        ({"kind": "sigma_vae", "sigma_vae": {"noise_std": -1.0}}, "noise_std must not be negative"),
        (
            {"kind": "soft_norm", "soft_norm": {"min_variance": 0.0}},
            "min_variance must be positive",
        ),
    ],
)
def test_a_bottleneck_that_cannot_be_is_refused_in_a_sentence(change, words):
    config = _config("f3")
    config.bottleneck.update(change)
    with pytest.raises(ValueError, match=words) as refused:
        autoencoder_stage.validate(config)
    assert "configs/autoencoder.py" in str(refused.value) and "\n" not in str(refused.value)


def test_latents_of_every_other_kind_are_divided_by_what_is_measured_of_them():
    assert lineage.Lineage(config=_config("f3")).normalizes_latents
    for kind in _KINDS:
        assert not lineage.Lineage(config=_config(kind)).normalizes_latents


@pytest.mark.parametrize("kind", _KINDS)
def test_a_stream_of_latents_is_that_of_the_whole(kind):
    config = _config(kind)
    autoencoder = pretrained_autoencoder.make(config)
    params = tiny_models.random_weights(pretrained_autoencoder.abstract_params(autoencoder))
    hop, ahead = autoencoder.samples_per_latent, autoencoder.encoder_lookahead
    waveform = 0.1 * np.random.default_rng(1).normal(size=(1, 3 * hop)).astype(np.float32)
    apply = tiny_models.compiled(autoencoder)
    whole = apply({"params": params}, waveform, method="waveform_to_latents")
    assert whole.shape == (1, 3, 8)
    state = autoencoder.apply({"params": params}, 1, method="encoder_state")
    padded, parts = np.pad(waveform, ((0, 0), (0, ahead))), []
    for start in range(0, 3 * hop, hop):
        chunk = jnp.asarray(padded[:, start : start + hop + ahead])
        state, part = apply({"params": params}, state, chunk, method="encode_step")
        parts.append(part)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5 * max(scale, 1.0))
