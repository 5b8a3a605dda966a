# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion transformer's stage: it learns on latents of any scale, resumes, and what it refuses."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.inference import latent_shards
from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.pretrained import diffusion_transformer as pretrained
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.stages import diffusion_transformer as diffusion_stage
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_generation
from tests.support import tiny_models

_RECIPE = str(pathlib.Path(__file__).parents[3] / "configs" / "diffusion_transformer.py") + ":tiny"
_SMALL = tiny_models.overrides(
    num_steps=24,
    model=tiny_models.SHAPE,
    data=dict(latents=True, batch_size=8, crop_frames=25, statistics_frames=100),
    text=dict(max_tokens=40, tasks=dict(caption=0.0)),
    optimizer=dict(
        diffusion_transformer=dict(warmup_steps=2, learning_rate=1e-2, schedule="constant")
    ),
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=20),
    loop=dict(log_every=1, eval_every=12, eval_batches=1),
)
# Of toy shapes, without a run behind it.
_TOY = tiny_models.overrides(
    autoencoder=dict(recipe=dict(model=dict(latent_dim=4))),
    language_model=dict(shape=tiny_models.LANGUAGE_MODEL),
    data=dict(crop_frames=9),
    text=dict(max_tokens=3),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A language model, and an autoencoder whose latents are of another scale than 1, with those."""
    root = tmp_path_factory.mktemp("below")
    shards = sounds.labelled_set(root / "sound", num_files=8)
    folder, latents = str(root / "autoencoder"), root / "latents"
    tiny_models.write_run(folder, train=str(shards), latent_scale=3.0)
    latent_shards.encode_shards(folder, shards, latents, say=lambda line: None)
    model = tiny_models.write_language_model(root / "text")
    return {"autoencoder": folder, "latents": str(latents), "language_model": model}


def _config(folders, *changes: str):
    given = [
        f"autoencoder.workdir={folders['autoencoder']}",
        f"language_model.folder={folders['language_model']}",
        *(f"data.{name}={folders['latents']}" for name in ("train", "heldout")),
        *changes,
    ]
    return config_lib.read(_RECIPE, [*_SMALL, *(f"--config.{change}" for change in given)])


def _toy(*changes: str):
    """The metrics of a toy model of random weights: (batch) -> name -> (sum, weight), compiled."""
    config = config_lib.read(_RECIPE, [*_SMALL, *_TOY, *(f"--config.{one}" for one in changes)])
    model = pretrained.Model(lineage.Lineage(config=config))
    stage = registry.of(config.stage).make(config)
    params, frozen = (
        tiny_generation.random_state(stage).params,
        tiny_generation.random_frozen(stage),
    )
    loss = functools.partial(diffusion_stage.loss, params, frozen, model=model, is_training=True)
    return jax.jit(lambda batch: loss(batch, 1.0, key=jax.random.key(0))[1])


@pytest.mark.slow
def test_it_learns_and_ends_as_a_run_that_was_broken_off(folders, tmp_path):
    """15 s of CPU."""
    workdir, config = str(tmp_path / "whole"), _config(folders)
    assert run_checks.train(config, workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    losses = [line["train/flow_loss"] for line in found if "train/flow_loss" in line]
    assert np.mean(losses[-4:]) < 0.8 * losses[0]
    # A fresh velocity is 0, and latents are divided by the rms that was measured: 1 + 1, and more or
    # less in a batch; undivided they would be far above.
    assert losses[0] == pytest.approx(2.0, abs=0.4)
    evaluated = [line["eval/flow_loss"] for line in found if "eval/flow_loss" in line]
    assert evaluated[-1] < evaluated[0]
    run = lineage.Lineage.read(workdir)
    assert not run.normalizes_latents and run.latent_rms == run.measured["latent_rms"] > 2.0
    assert {*run.trained_on} >= {"autoencoder", "language_model"}
    assert run.named == {name: folders[name] for name in ("autoencoder", "language_model")}
    run_checks.check_that_it_resumes_bit_equal(workdir, config, tmp_path / "resumed")


def test_the_loss_is_over_frames_of_sound_alone_and_hears_texts_that_are_not_dropped():
    batch = tiny_generation.make_batch()
    loud = np.where(batch["mask"][..., None], batch["latents"], 9.0)
    others = tiny_generation.make_batch(text_seed=1)
    losses = {}
    for drop in (0.0, 1.0):
        measure = _toy(f"flow.condition_drop={drop}")
        losses[drop], weight = measure(batch)["flow_loss"]
        assert weight == sum(tiny_generation.FRAMES)
        np.testing.assert_array_equal(
            measure(batch | {"latents": loud})["flow_loss"][0], losses[drop]
        )
        changed = measure(batch | {"text": others["text"]})["flow_loss"][0]
        assert (changed == losses[drop]) == (drop == 1.0)
    assert losses[0.0] != losses[1.0]


def test_times_are_told_apart_and_frames_counted():
    """By losses.flow.measure, which has [n] masks of patches and [n, t] masks of frames."""
    target = jnp.ones((2, 3, 4))
    time = jnp.array([0.1, 0.9])
    drawn = flow_loss.Draw(time=time, noisy=target, velocity=target)
    mask = jnp.array([[True, True, False], [True, False, False]])
    velocity = jnp.zeros((2, 3, 4)).at[:, 2].set(7.0).at[1].set(2.0)
    total, metrics = flow_loss.measure(velocity, drawn, mask)
    assert float(total) == 3.0 and metrics["flow_loss"] == (3.0, 3.0)
    assert metrics["flow_loss/t0"] == (2.0, 2.0) and metrics["flow_loss/t0.75"] == (1.0, 1.0)
    assert metrics["flow_loss/t0.5"] == (0.0, 0.0)
    assert metrics["velocity_mean_square"] == (4.0, 3.0)


@pytest.mark.parametrize(
    "change, words",
    [
        ("flow.condition_drop=1.5", "config.flow.condition_drop must be a share in .*, got 1.5"),
        ("model.modulation_rank=0", "config.model.modulation_rank must be at least 1, got 0"),
        (
            "text.tasks.transcription=0.0",
            "config.text.tasks .* must give some task a weight above 0",
        ),
        ("autoencoder.workdir=", "workdir must name a run of the autoencoder stage, got ''"),
        ("language_model.folder=", "folder must name a Hugging Face folder of a .* model, got ''$"),
    ],
)
def test_mistakes_are_one_sentence(folders, change, words, tmp_path):
    config = _config(folders, change)
    with pytest.raises(ValueError, match=words) as error:
        run_checks.train(config, str(tmp_path / "run"), devices=jax.devices()[:1])
    assert "\n" not in str(error.value)
