# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The losses of the representation stage: targets of cut sound, what packing loses."""

import functools

import jax
import numpy as np
import pytest

from f3tok_jax.stages import representation as representation_stage
from f3tok_jax.stages import representation_loss
from tests.support import tiny_models
from tests.support import tiny_representation

_HEADS, _CODEBOOKS = 3, 2


@functools.lru_cache
def _built(*more: str):
    """(loss and metrics of a batch, compiled; frozen arrays)."""
    config = tiny_representation.make_config(*more)
    stage, model = representation_stage.make_stage(config), tiny_representation.make_model(config)
    params = tiny_models.random_weights(jax.eval_shape(stage.init_state, jax.random.key(0)).params)
    frozen = tiny_representation.random_frozen(stage)

    @jax.jit
    def loss(batch):
        totals = representation_loss.batch_totals(batch, model)
        options = dict(model=model, is_supervised=True, noise_key=None)
        loss, metrics = representation_loss.total_loss(
            params["encoder"], frozen, batch, totals, **options
        )
        return loss, metrics, totals

    return lambda batch: jax.device_get(loss(batch))


def _cut_batch(**changes) -> dict[str, np.ndarray]:
    edges = dict(
        begins=np.array([1, 0, 1, 0, 1, 0, 1, 0], bool),
        ends=np.array([1, 1, 0, 0, 1, 1, 0, 0], bool),
    )
    return tiny_representation.make_batch() | edges | changes


def _true(batch) -> np.ndarray:
    """Frames whose labels are those of the recording, counted by hand.

    The autoencoder hears 2,240 samples, 3.5 latents of 640, before a latent's own and a hop after:
    without a beginning four frames are not true. Of the last frame's sound a sample may be all
    there is, so that without an end neither it nor the one before is.
    """
    time = np.arange(12)[None]
    count = np.array(tiny_representation.FRAMES)[:, None]
    return (
        (time < count)
        & (batch["begins"][:, None] | (time >= 4))
        & (batch["ends"][:, None] | (time < count - 2))
    )


def test_the_toy_s_geometry_is_as_counted():
    model = tiny_models.built()[0]
    assert (model.encoder_history, model.samples_per_latent) == (2240, 640)


@pytest.mark.parametrize("more", [(), ("--config.packing.examples=2",)], ids=["plain", "packed"])
def test_labels_of_frames_that_a_cut_has_touched_are_no_targets(more):
    batch = _cut_batch()
    loss, metrics, totals = _built(*more)(batch)
    is_true, mask = _true(batch), batch["mask"]
    for k in range(1, _HEADS + 1):
        expected = _CODEBOOKS * np.sum(mask[:, :-k] & is_true[:, k:])
        assert metrics[f"rq_loss/k{k}"][1] == totals["targets"][k - 1] == expected
    ratio = lambda name: np.divide(*metrics[name])
    rq = np.mean([ratio(f"rq_loss/k{k}") for k in range(1, _HEADS + 1)])
    assert loss == pytest.approx(rq + ratio("answer_loss"), rel=1e-5)
    # More is asked where nothing was cut.
    whole = _built(*more)(tiny_representation.make_batch())[1]
    counts = np.array(tiny_representation.FRAMES)
    assert whole["rq_loss/k1"][1] == _CODEBOOKS * np.sum(counts - 1)


def test_what_a_row_has_no_room_for_is_counted():
    more = ("--config.packing.examples=4", "--config.packing.frames=30")
    batch = _cut_batch()
    _, metrics, _ = _built(*more, "--config.packing.positions=16")(batch)
    frames = np.array(tiny_representation.FRAMES).reshape(2, 4).sum(1)
    assert metrics["lost/frames"] == (np.maximum(frames - 30, 0).sum(), frames.sum())
    texts = np.array(tiny_representation.TEXTS)
    patches = -(-np.array(tiny_representation.FRAMES) // 2)
    positions = np.where(texts > 0, texts + patches + 2, 0).reshape(2, 4).sum(1)
    lost = np.maximum(positions - 16, 0).sum()
    assert lost > 0 and metrics["lost/positions"] == (lost, positions.sum())


def test_a_row_without_sound_teaches_nothing():
    batch = _cut_batch()
    batch["mask"] = batch["mask"] & (np.arange(8) != 2)[:, None]
    _, metrics, totals = _built()(batch)
    is_true = _true(batch) & batch["mask"]
    for k in range(1, _HEADS + 1):
        expected = _CODEBOOKS * np.sum(batch["mask"][:, :-k] & is_true[:, k:])
        assert metrics[f"rq_loss/k{k}"][1] == totals["targets"][k - 1] == expected
    assert metrics["lost/frames"] == (0.0, batch["mask"].sum())


def test_audio_and_its_edges_come_at_the_scale_of_tokens(monkeypatch):
    config = tiny_representation.make_config()
    stage, model = representation_stage.make_stage(config), tiny_representation.make_model(config)
    params = tiny_models.random_weights(jax.eval_shape(stage.init_state, jax.random.key(0)).params)
    frozen, batch = tiny_representation.random_frozen(stage), tiny_representation.make_batch()
    states = np.random.default_rng(0).normal(size=(*batch["mask"].shape, config.model.width))

    class Made(Exception):
        pass

    def made(audio, patches, boundaries, *_, **__):
        raise Made(np.asarray(audio), np.asarray(boundaries))

    monkeypatch.setattr(representation_loss.sequences_lib, "make_sequences", made)
    found = []
    for rms in (1.0, 3.0):
        scaled = frozen | {"embedding_rms": np.float32(rms)}
        with pytest.raises(Made) as raised:
            representation_loss._supervise(
                params["encoder"]["projector"], states.astype(np.float32), batch["mask"],
                frozen=scaled, batch=batch, model=model,
            )  # fmt: skip
        found.append(raised.value.args)
    for one, three in zip(*found):
        assert np.any(one != 0)
        np.testing.assert_allclose(three, 3.0 * one, rtol=1e-6)
