# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""LoSATok and DashengTokenizer as wholes: published sizes, fusion, rates, lengths, and whom gradients
reach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import semantic
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.models import semantic_autoencoder
from tests.support import noise
from tests.support import tiny_models

_SOFT_NORM = bottleneck_kinds.SoftNorm(
    weight=1e-2, channels_weight=0.4, min_variance=1e-4, noise_ratio=1e-2
)
_PUBLISHED = dict(
    sample_rate=16_000,
    frame_length=1024,
    hop_length=160,
    num_mels=128,
    feature_dim=1280,
    bottleneck_dim=512,
    decoder_width=1280,
    decoder_hidden_width=5120,
    decoder_blocks=12,
    decoder_frame_length=1280,
    decoder_hop_length=320,
)
_model = tiny_models.semantic_autoencoder


@functools.cache
def _built(fusion: str) -> tuple[semantic_autoencoder.SemanticAutoencoder, dict]:
    """A small model and its parameters, of random weights; 64 samples to a latent."""
    model = _model(fusion)
    inputs = jnp.zeros((1, 640)), jnp.zeros((1, 10, 10))
    abstract = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return model, tiny_models.random_weights(abstract["params"])


def _features(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "fusion, latent_dim, sizes",
    [
        (
            "latents",
            128,
            dict(
                acoustic=659_200,
                acoustic_output=163_968,
                output=33_024,
                semantic_bottleneck=721_536,
                decoder=170_978_562,
            ),
        ),
        ("features", 1280, dict(acoustic=659_200, decoder=173_927_682)),
    ],
)
def test_the_published_sizes(fusion, latent_dim, sizes):
    model = _model(fusion, **_PUBLISHED, latent_dim=latent_dim)
    assert model.samples_per_latent == 640 and model.latent_rate == 25.0
    waveform = jax.ShapeDtypeStruct((2, 16_000), jnp.float32)
    features = jax.ShapeDtypeStruct((2, 25, 1280), jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), waveform, features)
    found = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in variables["params"].items()
    }
    assert found == sizes
    coded = jax.eval_shape(model.apply, variables, waveform, features)
    assert coded.reconstruction.shape == (2, 16_000)
    assert coded.latents.shape == (2, 25, latent_dim)
    assert coded.latents.dtype == coded.reconstruction.dtype == jnp.float32


def test_streams_are_added_narrow_or_wide():
    waveform, features = noise.waveform(2, 640), _features(2, 10, 10)
    model, params = _built("features")
    streams = jax.jit(functools.partial(model.apply, method="streams"))(
        {"params": params}, waveform, features
    )
    np.testing.assert_array_equal(streams.semantic, features)
    np.testing.assert_allclose(streams.encoded, features + streams.acoustic, atol=1e-6)
    assert streams.semantic_latents is None and np.std(streams.acoustic) > 0.1

    model, params = _built("latents")
    streams = jax.jit(functools.partial(model.apply, method="streams"))(
        {"params": params}, waveform, features
    )
    linear = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"].reshape(1, 1, -1)
    np.testing.assert_allclose(
        streams.acoustic_latents, linear("acoustic_output", streams.acoustic), atol=1e-5
    )
    narrow = streams.semantic_latents + streams.acoustic_latents
    np.testing.assert_allclose(streams.encoded, linear("output", narrow), atol=1e-5)
    assert streams.encoded.shape[-1] == 8  # means, then logarithms of variances
    apply = tiny_models.compiled(model)
    latents = apply({"params": params}, waveform, features, method="waveform_to_latents")
    np.testing.assert_allclose(latents, streams.encoded[..., :4], atol=1e-6)


@pytest.mark.parametrize(
    "fusion, samples, frames, latents",
    [("latents", 600, 10, 10), ("features", 640, 10, 10), ("features", 600, 7, 7)],
)
def test_the_reconstruction_is_as_long_as_the_sound(fusion, samples, frames, latents):
    model, params = _built(fusion)
    waveform, features = noise.waveform(2, samples), _features(2, frames, 10)
    apply = tiny_models.compiled(model)
    coded = apply({"params": params}, waveform, features)
    assert coded.reconstruction.shape == (2, samples)
    assert coded.latents.shape == (2, latents, model.latent_dim)
    assert np.all(np.any(coded.reconstruction[:, : min(samples, latents * 64)], axis=0))
    assert not np.any(coded.reconstruction[:, latents * 64 :])
    decoded = apply({"params": params}, coded.latents, method="latents_to_waveform")
    kept = min(samples, latents * 64)
    np.testing.assert_allclose(decoded[:, :kept], coded.reconstruction[:, :kept], atol=1e-5)


@pytest.mark.parametrize("fusion", semantic_autoencoder.FUSIONS)
def test_a_shorter_sound_of_a_batch_is_what_it_is_alone(fusion):
    model, params = _built(fusion)
    waveform, features = noise.waveform(2, 640), _features(2, 10, 10)
    mask = np.arange(640)[None] < np.array([[640], [300]])
    apply = jax.jit(lambda *inputs, mask: model.apply({"params": params}, *inputs, mask=mask))
    behind = np.arange(10)[None, :, None] >= np.array([10, 5])[:, None, None]
    coded = apply(np.where(mask, waveform, np.nan), np.where(behind, np.nan, features), mask=mask)
    alone = jax.jit(model.apply)({"params": params}, waveform[1:, :300], features[1:, :5])
    np.testing.assert_allclose(coded.latents[1:, :5], alone.latents, atol=1e-5)
    np.testing.assert_allclose(coded.reconstruction[1:, :300], alone.reconstruction, atol=1e-5)
    np.testing.assert_array_equal(coded.streams.mask, ~behind[..., 0])
    assert np.all(np.isfinite(coded.reconstruction))


def test_both_branches_hear_whole_latents():
    model, _ = _built("latents")
    waveform, mask = np.ones((2, 100)), np.arange(100)[None] < np.array([[100], [30]])
    heard, is_heard = model.heard(waveform, mask)
    assert heard.shape == is_heard.shape == (2, 128)
    assert np.sum(is_heard, axis=1).tolist() == [128, 64]
    assert np.sum(heard, axis=1).tolist() == [100, 30]


@pytest.mark.parametrize(
    "feature_rate, patch_frames", [(25.0, 2), (50.0, 4), (25.0, 4), (100.0, 2)]
)
def test_features_are_interpolated_as_torch_does(feature_rate, patch_frames):
    torch = pytest.importorskip("torch")
    model = _model("latents", feature_rate=feature_rate, patch_frames=patch_frames)
    features = _features(2, 12, 10)
    factor = model.latent_rate / feature_rate
    count = int(12 * factor)
    found = model._at_latent_rate(jnp.array(features), jnp.array([count, count // 2]))
    resized = lambda x: torch.nn.functional.interpolate(
        torch.from_numpy(x).swapaxes(1, 2), scale_factor=factor, mode="linear", align_corners=False
    ).swapaxes(1, 2)
    np.testing.assert_allclose(found[0], resized(features)[0], atol=1e-6)
    # Of the second, half as long, nothing is seen of what lies behind.
    if factor != 1:
        np.testing.assert_allclose(found[1, : count // 2], resized(features[:, :6])[1], atol=1e-6)


def _losses(streams) -> dict[str, jax.Array]:
    """What supervision asks at each of the levels that a model has."""
    is_narrow = streams.semantic_latents is not None
    low = (streams.semantic_latents, streams.acoustic_latents) if is_narrow else None
    levels = semantic.SUPERVISIONS if is_narrow else ("high",)
    found = {}
    for name in levels:
        pairs = semantic.supervision(
            (streams.semantic, streams.acoustic), low, streams.mask, levels=name
        )
        found[name] = sum(total / weight for total, weight in pairs.values())
    return found


@pytest.mark.parametrize(
    "fusion, parts",
    [
        (
            "latents",
            dict(
                # Sound teaches all but what is frozen.
                sound={"acoustic", "acoustic_output", "output", "decoder"},
                high={"acoustic"},
                low={"acoustic", "acoustic_output"},
                both={"acoustic", "acoustic_output"},
                kl={"acoustic", "acoustic_output", "output"},
            ),
        ),
        # DashengTokenizer's preservation of semantics, as we have it, is "high".
        ("features", dict(sound={"acoustic", "decoder"}, high={"acoustic"})),
    ],
)
def test_gradients_reach_only_what_they_should(fusion, parts):
    model, params = _built(fusion)
    waveform, features = noise.waveform(2, 640), _features(2, 10, 10)

    @jax.jit
    @functools.partial(jax.jacrev, argnums=(0, 1))
    def gradients(params, features):
        key = jax.random.key(3)
        coded = model.apply({"params": params}, waveform, features, noise_key=key)
        asked = {name: total / weight for name, (total, weight) in coded.losses.items()}
        sound = jnp.sum(jnp.square(coded.reconstruction - waveform))
        return _losses(coded.streams) | asked | {"sound": sound}

    found = {}
    for name, (of_params, of_features) in gradients(params, features).items():
        assert not np.any(of_features)
        reached = {part: any(map(np.any, jax.tree.leaves(of_params[part]))) for part in of_params}
        found[name] = {part for part, is_reached in reached.items() if is_reached}
    assert found == parts


def test_noise_is_of_training_alone():
    model, params = _built("latents")
    inputs = {"params": params}, noise.waveform(2, 600), _features(2, 10, 10)
    clean = jax.jit(model.apply)(*inputs)
    noisy = jax.jit(model.apply)(*inputs, noise_key=jax.random.key(0))
    np.testing.assert_allclose(noisy.latents, clean.latents, atol=1e-6)
    assert np.std(noisy.reconstruction - clean.reconstruction) > 1e-4


def test_sound_is_heard_at_the_models_level():
    model = _model("latents", level_db=-20.0)
    waveform = noise.waveform(2, 1600)
    gains = model.gains(waveform, jnp.ones(waveform.shape, bool))
    level_db = 20 * np.log10(np.std(gains * waveform, axis=1))
    np.testing.assert_allclose(level_db, -20.0, atol=0.5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(feature_rate=40.0), "features must come at a multiple of 25 Hz, .* got 40 Hz"),
        (dict(patch_frames=3), "latents must come at a multiple of 25 Hz, .* got 33.3333 Hz"),
        (dict(fusion="sum"), "fusion must be one of .*, got 'sum'"),
        (dict(compute_dtype="float16"), "compute_dtype must be one of .*, got 'float16'"),
        (
            dict(decoder_hop_length=48),
            "even number of hops, got frame_length=128 and hop_length=48",
        ),
        (
            dict(decoder_hop_length=24, decoder_frame_length=96),
            "decoder_hop_length=24 must divide the 64 samples of a latent",
        ),
        (
            dict(fusion="features", latent_dim=4),
            "latent_dim=4 must be feature_dim=10 where features are fused",
        ),
        (dict(level_db=3.0), "level_db must be dBFS"),
        (
            dict(fusion="features", bottleneck=tiny_models.KL_VAE),
            "10 values of a latent as they come, got KlVae, which asks the encoder for 20; choose",
        ),
        (dict(bottleneck=_SOFT_NORM), "no scale and shift of each channel .* got SoftNorm"),
    ],
)
def test_a_geometry_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _model(**(dict(fusion="latents") | changes)).init(
            jax.random.key(0), jnp.zeros((1, 640)), jnp.zeros((1, 10, 10))
        )


def test_features_of_another_width_are_refused():
    model, params = _built("latents")
    with pytest.raises(ValueError, match=r"feature_dim=10 must be .* got \[1, 10, 12\]"):
        model.apply({"params": params}, jnp.zeros((1, 640)), jnp.zeros((1, 10, 12)))
