# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The representation stage: what trains and what does not, packing, meshes, latents, refusals."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.inference import latent_shards
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import representation as representation_stage
from f3tok_jax.training import session
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models

_RECIPE = str(pathlib.Path(__file__).parents[3] / "configs" / "representation.py") + ":tiny"
_SMALL = tiny_models.overrides(
    num_steps=6,
    model=tiny_models.SHAPE,
    rq=dict(codebook_size=8, num_codebooks=2, num_heads=2, statistics_frames=400),
    supervision=dict(
        max_tokens=24,
        tasks=dict(caption=0.0, language=0.0, instrument=0.0, event=0.0, digit=1.0),
    ),
    data=dict(batch_size=8, crop_frames=25, max_lost=1.0),
    packing=dict(examples=1, frames=0, positions=0),
    optimizer=dict(encoder=dict(warmup_steps=2, modules=dict(projector=dict(start=0.0)))),
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=3),
    loop=dict(log_every=1, eval_every=6),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Labelled sound, an autoencoder, its latents of the sound, and a language model."""
    root = tmp_path_factory.mktemp("representation")
    shards = sounds.labelled_set(root / "sound", num_files=12)
    tiny_models.write_run(root / "autoencoder", train=str(shards))
    latents = root / "latents"
    latent_shards.encode_shards(str(root / "autoencoder"), shards, latents, say=lambda line: None)
    return {
        "shards": str(shards),
        "latents": str(latents),
        "autoencoder": str(root / "autoencoder"),
        "model": tiny_models.write_language_model(root / "text"),
    }


def _config(folders, *more: str, from_latents: bool = True):
    data = folders["latents"] if from_latents else folders["shards"]
    return config_lib.read(
        _RECIPE,
        [
            *_SMALL,
            f"--config.autoencoder.workdir={folders['autoencoder']}",
            f"--config.language_model.folder={folders['model']}",
            f"--config.data.latents={from_latents}",
            f"--config.data.train={data}",
            f"--config.data.heldout={data}",
            *more,
        ],
    )


def _gradients(config):
    """Loss terms and the first step's gradients by way of the parameters it leaves."""
    stage = representation_stage.make_stage(config)
    state = sharding.unbox(compilation.run_once(stage.init_state, jax.random.key(0)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, sharding.unbox(stage.abstract_frozen))
    frozen = stage.load_frozen(shardings, run_checks.measured(config))
    batch = stage.open_data(
        config.data.train, train=True, process_index=0, process_count=1
    ).local_batch(0)
    state, metrics = jax.jit(stage.train_step)(state, frozen, batch)
    return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def plain(folders):
    return _gradients(_config(folders, "--config.model.input_noise=0.0"))


def test_the_first_losses_are_those_of_a_uniform_guess(plain):
    _, metrics = plain
    # Methods: within 2 % of ln V. Of few sounds, whose frames are alike, one head's may be further.
    losses = [np.divide(*metrics[f"train/rq_loss/k{k}"]) for k in (1, 2)]
    assert np.mean(losses) == pytest.approx(np.log(8), rel=0.02), losses
    total, weight = metrics["train/answer_loss"]
    assert weight > 0 and total / weight == pytest.approx(np.log(260), rel=0.2)


def test_frozen_weights_are_in_neither_state_nor_optimizer(plain, folders):
    state, _ = plain
    assert set(state.params) == {"encoder"}
    assert set(state.params["encoder"]) == {"encoder", "heads", "projector"}
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state)}
    assert (260, 16) not in shapes  # the language model's table


def test_the_language_model_teaches_the_projector_and_the_encoder(folders):
    config = _config(folders, "--config.rq.weight=0.0", "--config.model.input_noise=0.0")
    stage = representation_stage.make_stage(config)
    before = sharding.unbox(compilation.run_once(stage.init_state, jax.random.key(0)))
    after, metrics = _gradients(config)
    assert "train/rq_loss/k1" not in metrics and "heads" not in after.params["encoder"]
    moved = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b))), before.params["encoder"], after.params["encoder"]
    )
    assert moved["projector"]["output"]["kernel"] > 0
    assert moved["encoder"]["input"]["kernel"] > 0


@pytest.mark.slow
def test_before_its_share_of_the_run_the_language_model_is_not_asked(folders):
    _, metrics = _gradients(
        _config(folders, "--config.optimizer.encoder.modules.projector.start=0.5")
    )
    assert metrics["train/answer_loss"] == (0.0, 0.0)
    assert metrics["train/rq_loss/k1"][1] > 0


@pytest.mark.parametrize(
    "change",
    [
        ("--config.packing.examples=4",),
        pytest.param(("--config.optimizer.accumulate=2",), marks=pytest.mark.slow),
        pytest.param(
            ("--config.packing.examples=2", "--config.packing.frames=48"), marks=pytest.mark.slow
        ),
    ],
    ids=["packed", "accumulated", "packed into shorter rows"],
)
def test_packing_and_accumulation_change_nothing(change, plain, folders):
    state, metrics = _gradients(_config(folders, "--config.model.input_noise=0.0", *change))
    for name, (total, weight) in plain[1].items():
        if "perplexity" in name:
            continue  # of a microbatch, not of the batch
        assert metrics[name][1] == pytest.approx(weight), name
        # Sums in another order, in float32.
        assert metrics[name][0] == pytest.approx(total, rel=1e-4, abs=1e-4), name
    # Adam's first step has the size of the learning rate whatever the gradient's: a tenth of it.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=5e-5), state.params, plain[0].params
    )


@pytest.mark.slow
def test_latents_and_sound_train_alike(plain, folders):
    _, live = _gradients(_config(folders, "--config.model.input_noise=0.0", from_latents=False))
    for name, (total, weight) in plain[1].items():
        assert live[name][1] == weight, name
        assert live[name][0] == pytest.approx(total, rel=1e-3, abs=1e-3), name


def _late_config(folders, *more: str):
    """Of a run whose projector begins after the first checkpoint."""
    return _config(folders, "--config.optimizer.encoder.modules.projector.start=4", *more)


def _losses(workdir) -> list[tuple]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line["train/rq_loss/k1"], line["train/answer_loss"])
        for line in lines
        if "train/answer_loss" in line
    ]


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """A run of six steps on one device."""
    workdir = tmp_path_factory.mktemp("whole")
    assert (
        run_checks.train(_late_config(folders), str(workdir), devices=jax.devices()[:1])
        == session.EXIT_DONE
    )
    return workdir


@pytest.mark.slow  # test_generation_run has the same of the stage after it
def test_eight_devices_see_the_losses_of_one(whole, folders, tmp_path):
    config = _late_config(folders, "--config.data.heldout=")  # a program less to compile
    assert run_checks.train(config, str(tmp_path), devices=jax.devices()) == session.EXIT_DONE
    np.testing.assert_allclose(_losses(tmp_path), _losses(whole), rtol=1e-4)


def test_a_resumed_run_ends_bit_equal_across_a_start(whole, folders, tmp_path):
    run_checks.check_that_it_resumes_bit_equal(whole, _late_config(folders), tmp_path / "resumed")


def test_the_projector_is_as_it_was_drawn_until_it_begins(whole, folders):
    stage = representation_stage.make_stage(_late_config(folders))
    fresh = sharding.unbox(compilation.run_once(stage.init_state, jax.random.key(0)))
    drawn, _ = fingerprint.of(fresh)
    early, late = (saved_states.read_meta(str(whole), step)["fingerprints"] for step in (3, 6))
    moved = {path for path in drawn if drawn[path] != late[path]}
    for path in moved:
        has_begun = "/projector/" not in path
        assert (drawn[path] != early[path]) == has_begun, path
    assert any("ema_params/encoder/projector" in path for path in moved)
    assert any("opt_state/encoder/projector" in path for path in moved)
    assert stage.best_from == 4


def test_another_autoencoder_is_refused(whole, folders, tmp_path):
    other = tmp_path / "autoencoder"
    tiny_models.write_run(other, train=folders["shards"], seed=1)
    config = _config(folders, f"--config.autoencoder.workdir={other}", from_latents=False)
    with pytest.raises(ValueError, match="latents|autoencoder"):
        run_checks.train(config, str(whole), devices=jax.devices()[:1])


@pytest.mark.parametrize(
    "change, words",
    [
        ("--config.autoencoder.workdir=", "config.autoencoder.workdir must name a run"),
        ("--config.language_model.folder=", "config.language_model.folder must name"),
        ("--config.language_model.folder=/nowhere", "must be a Hugging Face folder of a model"),
        ("--config.supervision.tasks.instrument=1.0", "'instrument' needs records with the label"),
        (
            "--config.supervision.max_tokens=6 --config.data.max_lost=0.5",
            "more than config.supervision.max_tokens=6 tokens",
        ),
        (
            "--config.optimizer.encoder.modules.projector.start=1.5",
            "must be a share of the run below",
        ),
        ("--config.optimizer.encoder.modules.projector.start=6", "must lie in the run"),
        ("--config.packing.examples=3", "config.packing.examples=3"),
        ("--config.rq.target=log_mel", "needs sound, got config.data.latents=True"),
        ("--config.rq.target=other", "config.rq.target must be"),
        ("--config.rq.normalization=other", "config.rq.normalization must be one of"),
        (
            "--config.rq.normalization=leading --config.rq.directions=9",
            "config.rq.directions must be at most 8, the width of the target 'latents', got 9",
        ),
    ],
)
def test_mistakes_are_one_sentence_before_anything_compiles(change, words, folders, tmp_path):
    with pytest.raises(ValueError, match=words) as error:
        config = _config(folders, *change.split())
        run_checks.train(config, str(tmp_path / "run"), devices=jax.devices()[:1])
    assert "\n" not in str(error.value)
