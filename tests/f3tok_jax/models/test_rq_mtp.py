# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Random quantization against brute force; heads that get no target from elsewhere."""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.models import rq_mtp

_SIZES = dict(input_dim=24, num_codebooks=3, codebook_size=64)
# Of seed 7: the first two projections and the last, the first two entries of codes and the last.
_DRAWN = [
    -0.3281901878361592,
    0.21682416412729155,
    0.31398695714353764,
    -0.39505208088292987,
    0.07501796356551649,
    0.19128340040547148,
]
_CODES = functools.partial(rq_mtp.codes_of, num_codebooks=3)


def _features(batch=4, time=50, dim=24, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, time, dim)).astype(np.float32)


def test_labels_are_the_nearest_codes_of_the_normalised_projection():
    features = _features()
    projections, codes = rq_mtp.make_codebooks(7, **_SIZES)
    projected = np.einsum("btd,gdc->btgc", features.astype(np.float64), projections)
    projected /= np.linalg.norm(projected, axis=-1, keepdims=True)
    distance = np.linalg.norm(projected[..., None, :] - codes[None, None], axis=-1)
    labels = _CODES(jnp.asarray(features), rq_mtp.make_table(7, **_SIZES))
    np.testing.assert_array_equal(labels, distance.argmin(-1))
    assert labels.dtype == jnp.int32 and labels.shape == (4, 50, 3)


def test_codebooks_are_xavier_uniform_unit_norm_and_their_seed_s():
    projections, codes = rq_mtp.make_codebooks(1, input_dim=64, num_codebooks=4, codebook_size=512)
    bound = math.sqrt(6 / (64 + 16))
    assert np.abs(projections).max() <= bound
    assert projections.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)  # 4096 draws
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1.0, rtol=1e-12)
    assert abs(codes.mean()) < 0.01
    tables = [rq_mtp.make_table(seed, **_SIZES) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])
    # Labels of an old run must not change under a new NumPy: numbers of the legacy generator.
    projections, codes = rq_mtp.make_codebooks(7, **_SIZES)
    found = [*projections[0, 0, :2], projections[2, 23, 15], *codes[0, 0, :2], codes[2, 63, 15]]
    np.testing.assert_allclose(found, _DRAWN, rtol=1e-12)
    with pytest.raises(ValueError, match="codebook_size of the random quantizer"):
        rq_mtp.make_table(0, **(_SIZES | dict(codebook_size=0)))


def test_labels_do_not_change_with_the_scale_of_the_query():
    features, table = jnp.asarray(_features(seed=1)), rq_mtp.make_table(3, **_SIZES)
    scale = np.exp(np.random.default_rng(2).normal(size=(4, 50, 1))).astype(np.float32)
    np.testing.assert_array_equal(_CODES(features, table), _CODES(features * scale, table))


def test_labels_are_the_same_on_one_and_on_eight_devices():
    features, table = _features(batch=16, seed=3), rq_mtp.make_table(5, **_SIZES)
    alone = jax.jit(_CODES)(features, table)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=-1, tensor=1))
    with sharding.use(mesh):
        batch = sharding.host_to_global({"features": features}, mesh)["features"]
        # The table too lies in pieces, as a frozen array of a stage does.
        where = sharding.state_shardings(table, mesh, 1)
        spread = jax.jit(_CODES)(batch, jax.device_put(table, where))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_array_equal(alone, spread)


def test_channels_are_standardised_by_the_data_set():
    features = 3.0 * _features(seed=4) + np.arange(24, dtype=np.float32)[None, None]
    mask = np.random.default_rng(5).uniform(size=(4, 50)) < 0.7
    hurt = np.where(mask[..., None], features, np.nan)
    parts = [rq_mtp.measure_statistics(hurt[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    mean, std = rq_mtp.finish_statistics([np.add(*pair) for pair in zip(*parts)])
    np.testing.assert_allclose(mean, features[mask].mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std, features[mask].std(0), rtol=1e-4)  # float32 sums of squares
    plain = np.asarray(rq_mtp.standardize(jnp.asarray(features), mean, std))[mask]
    np.testing.assert_allclose(plain.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(plain.std(0), 1.0, atol=1e-4)
    normed = rq_mtp.standardize(jnp.asarray(features), mean, std, layer_norm=True)
    np.testing.assert_allclose(np.mean(normed, -1), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.std(normed, -1), 1.0, atol=1e-3)
    with pytest.raises(ValueError, match="at least one valid frame"):
        rq_mtp.finish_statistics(rq_mtp.measure_statistics(features, np.zeros((4, 50), bool)))


def _heads(**changes) -> rq_mtp.Heads:
    fields = dict(num_heads=3, num_codebooks=2, codebook_size=64, bottleneck_dim=16)
    return rq_mtp.Heads(**(fields | changes))


def _inputs(time=40, width=32, seed=0):
    draw = np.random.default_rng(seed)
    states = draw.standard_normal((4, time, width)).astype(np.float32)
    labels = draw.integers(0, 64, (4, time, 2)).astype(np.int32)
    return states, labels, np.ones((4, time), np.int32)


@pytest.mark.parametrize("kind", rq_mtp.HEADS)
@pytest.mark.parametrize("codebook_size, width", [(64, 32), (2048, 256)])
def test_the_first_loss_is_that_of_a_guess(kind, codebook_size, width):
    states, labels, segments = _inputs(width=width)
    heads = _heads(kind=kind, codebook_size=codebook_size)
    outcome, _ = heads.init_with_output(jax.random.key(0), states, labels, segments)
    np.testing.assert_allclose(outcome.loss / outcome.weight, math.log(codebook_size), rtol=0.02)
    assert outcome.total() == pytest.approx(math.log(codebook_size), rel=0.02)
    np.testing.assert_array_equal(outcome.weight, [4 * (40 - k) * 2 for k in (1, 2, 3)])


@pytest.mark.parametrize("kind", rq_mtp.HEADS)
def test_losses_are_cross_entropies_with_the_labels_ahead(kind):
    states, labels, segments = _inputs(seed=1)
    segments[1, 25:] = 0
    heads = _heads(kind=kind)
    params = nn.unbox(heads.init(jax.random.key(1), states, labels, segments)["params"])
    params = jax.tree.map(lambda leaf: 5.0 * np.asarray(leaf), params)  # far from uniform
    outcome = heads.apply({"params": params}, states, labels, segments)
    for k in (1, 2, 3):
        hidden = states.astype(np.float64)
        if kind == "bottleneck":
            rms = np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-6)
            hidden = hidden / rms * params["norm"][k - 1] @ params["down"][k - 1]
        logits = np.einsum("btd,dgv->btgv", hidden, params["output"][k - 1])
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss = correct = count = 0
        for row in range(4):
            for t in range((25 if row == 1 else 40) - k):
                for g in range(2):
                    target = labels[row, t + k, g]
                    loss -= log_p[row, t, g, target]
                    correct += log_p[row, t, g].argmax() == target
                    count += 1
        assert outcome.loss[k - 1] == pytest.approx(loss, rel=1e-5)
        assert outcome.correct[k - 1] == correct and outcome.weight[k - 1] == count
    assert set(outcome.metrics()) >= {"rq_loss/k1", "rq_accuracy/k3"}


def test_no_head_gets_a_target_past_the_end_in_padding_or_across_a_segment():
    states, labels, segments = _inputs(time=12)
    segments[:] = [1, 1, 1, 1, 2, 2, 2, 0, 0, 3, 3, 3]
    _, valid = rq_mtp.shifted_targets(jnp.asarray(labels), jnp.asarray(segments), num_heads=3)
    np.testing.assert_array_equal(valid[0, 0], [1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(valid[1, 0], [1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(valid[2, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    heads = _heads()
    params = heads.init(jax.random.key(0), states, labels, segments)

    def loss(states, labels):
        return heads.apply(params, states, labels, segments).loss

    base = np.asarray(loss(states, labels))
    changed = labels.copy()
    changed[:, [0, 4, 7, 8, 9]] ^= 1  # first frames, which no head may predict, and padding
    np.testing.assert_array_equal(loss(states, changed), base)
    changed[:, 3] ^= 1
    assert (np.asarray(loss(states, changed)) != base).all()
    # States that have no target: the last of each segment, and padding, whatever stands there.
    hurt = states.copy()
    hurt[:, [7, 8]] = np.nan
    hurt[:, [3, 6, 11]] += 1.0
    np.testing.assert_array_equal(loss(hurt, labels), base)
    gradient = jax.grad(lambda s: loss(s, labels).sum())(jnp.asarray(hurt))
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[:, [3, 6, 7, 8, 11]].any()


def test_packed_and_padded_segments_end_as_whole_examples_do():
    states, labels, segments = _inputs(time=5)
    heads = _heads(num_heads=8)  # more heads than frames
    params = heads.init(jax.random.key(0), states, labels, segments)
    outcome = heads.apply(params, states, labels, segments)
    np.testing.assert_array_equal(outcome.weight, [32, 24, 16, 8, 0, 0, 0, 0])
    assert np.isfinite(outcome.total())


def test_heads_on_a_mesh_give_the_same_numbers():
    states, labels, segments = _inputs(seed=2)
    batch = {"states": np.tile(states, (2, 1, 1)), "labels": np.tile(labels, (2, 1, 1))}
    batch["segments"] = np.tile(segments, (2, 1))
    heads = _heads()
    boxed = heads.init(jax.random.key(0), states, labels, segments)
    axes = nn.get_partition_spec(boxed)["params"]["output"]
    assert tuple(axes) == ("layers", "embed", None, "vocabulary")
    params = nn.unbox(boxed)

    def loss(params, states, labels, segments):
        return heads.apply(params, states, labels, segments).total()

    alone = jax.value_and_grad(loss)(params, **batch)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=4, tensor=2))
    with sharding.use(mesh):
        spread = jax.jit(jax.value_and_grad(loss))(params, **sharding.host_to_global(batch, mesh))
    np.testing.assert_allclose(alone[0], spread[0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone[1], spread[1]
    )  # of the order of 1e-3


def test_perplexity_counts_the_codes_in_use():
    labels = np.zeros((1, 8, 2), np.int32)
    labels[0, :, 0] = [0, 1, 2, 3, 0, 1, 2, 3]
    labels[0, :, 1] = [5, 5, 5, 5, 5, 5, 1, 1]
    segments = np.ones((1, 8), np.int32)
    segments[0, 6:] = 0
    segments[0, :4] = 2
    usage = rq_mtp.code_usage(jnp.asarray(labels), jnp.asarray(segments), codebook_size=8)
    np.testing.assert_array_equal(usage[0], [2, 2, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(usage[1], [0, 0, 0, 0, 0, 6, 0, 0])
    share = np.array([2, 2, 1, 1]) / 6
    expected = [np.exp(-(share * np.log(share)).sum()), 1.0]
    np.testing.assert_allclose(rq_mtp.perplexity(usage), expected, rtol=1e-6)
    np.testing.assert_allclose(rq_mtp.perplexity(jnp.ones((1, 64))), [64.0], rtol=1e-5)
    np.testing.assert_allclose(rq_mtp.perplexity(jnp.zeros((1, 64))), [1.0])


def test_collapsed_codebooks_are_named():
    said = rq_mtp.collapse_warning(1, 10.0, codebook_size=64)
    assert said.startswith("codebook 1 of RQ-MTP has collapsed: its codes have perplexity 10.0")
    assert "below 40% of 64" in said
    assert "codebook 2" in rq_mtp.collapse_warning(2, float("nan"), codebook_size=64)
    assert not rq_mtp.collapse_warning(0, 64.0, codebook_size=64)
    assert not rq_mtp.collapse_warning(0, 10.0, codebook_size=64, min_share=0.1)


def test_log_mel_frames_come_at_the_rate_of_the_latents():
    options = dict(sample_rate=16_000, samples_per_latent=640, num_mels=20)
    time = np.arange(6_500) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    waveform = np.stack([tone, np.where(time < 0.2, tone, 0.0).astype(np.float32)])
    frames = np.asarray(rq_mtp.log_mel_frames(waveform, **options))
    assert frames.shape == (2, 11, 80)
    # The sound ends with latent 4, and a window reaches 3/4 of a hop beyond.
    np.testing.assert_allclose(frames[0, :4], frames[1, :4], atol=1e-6)
    np.testing.assert_allclose(frames[1, 6:], -5.0)
    assert frames[0, 5].reshape(4, 20).argmax(-1).std() == 0
    with pytest.raises(ValueError, match="frames_per_latent=3 must divide"):
        rq_mtp.log_mel_frames(waveform, **options, frames_per_latent=3)
