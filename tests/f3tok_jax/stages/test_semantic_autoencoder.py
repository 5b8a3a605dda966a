# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""LoSATok and DashengTokenizer in the autoencoder's stage: they learn, resume, are used, and refuse."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
import soundfile

from configs import semantic_autoencoder as recipe
from f3tok_jax.devices import sharding
from f3tok_jax.inference import latent_shards
from f3tok_jax.inference import model_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import lineage
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from f3tok_jax.training import validation
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_runs
from tests.support import tiny_semantic

_TRAINED = {
    "losatok": {"acoustic", "acoustic_output", "output", "decoder"},
    "dasheng_tokenizer": {"acoustic", "decoder"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """Of the frozen runs, and of shards of sound."""
    folder = tmp_path_factory.mktemp("runs")
    encoder = tiny_semantic.write_encoder(folder / "semantic_encoder")
    tiny_semantic.write_bottleneck(folder / "semantic_bottleneck", encoder)
    sounds.labelled_set(folder / "sound", num_files=8)
    return folder


@pytest.fixture
def config(root):
    """(kind, changes) -> the config of a small run."""

    def read(kind: str, *changes: str):
        sound = root / "sound" / "shards"
        named = (*tiny_semantic.named(kind, root), f"data.train={sound}", f"data.heldout={sound}")
        return tiny_semantic.read(kind, *named, *changes)

    return read


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A run of LoSATok that is trained, with discriminators from a step on."""
    workdir, sound = str(tmp_path_factory.mktemp("losatok")), root / "sound" / "shards"
    named = (*tiny_semantic.named("losatok", root), f"data.train={sound}", f"data.heldout={sound}")
    made = tiny_semantic.read("losatok", *named, "optimizer.discriminator.start=18.0")
    assert run_checks.train(made, workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    return workdir, made


def test_it_learns_and_ends_as_a_run_that_was_broken_off(trained, root, tmp_path):
    workdir, made = trained
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for name in ("mel", "supervision_high", "supervision_low"):
        values = [line[f"train/{name}"] for line in found if f"train/{name}" in line]
        assert np.mean(values[-4:]) < 0.95 * np.mean(values[:4]), (name, values)
        assert any(f"eval/{name}" in line for line in found)
    assert any(line.get("train/kl") for line in found)
    assert any(line.get("train/discriminator") for line in found)
    assert list((pathlib.Path(workdir) / "samples").rglob("*.wav"))
    run = lineage.Lineage.read(workdir)
    run.check()
    assert set(run.trained_on) >= {"semantic_bottleneck", "semantic_encoder"}
    assert run.sound.latent_rate == 25.0 and run.sound.latent_dim == 4
    run_checks.check_that_it_resumes_bit_equal(workdir, made, tmp_path / "resumed")


def test_supervision_is_of_the_frozen_features_by_its_weight(config):
    made = config("dasheng_tokenizer", "losses.weights.mel=0.0")
    before, frozen, batch, state, metrics = run_checks.first_step(made)
    assert set(state.params["generator"]) == _TRAINED["dasheng_tokenizer"]
    run = lineage.Lineage(config=made)
    coder = pretrained_autoencoder.make(made, run)
    params = pretrained_autoencoder.joined(before.params["generator"], frozen)
    heard = np.where(batch["mask"], batch["waveform"], 0.0)
    coded = jax.jit(coder.apply)({"params": params}, heard, mask=batch["mask"])
    frames = np.asarray(coder.frame_mask(batch["mask"]))
    assert frames.sum() < frames.size  # some crops are shorter
    difference = np.asarray(coded.streams.acoustic - coded.streams.semantic)[frames]
    total, weight = metrics["train/supervision_high"]
    assert weight == len(difference)
    np.testing.assert_allclose(total / weight, np.mean(np.square(difference)), rtol=1e-4)
    # It alone has a weight here, and reaches the branch alone: of its last bias the gradient is known.
    weight = made.losses.weights.supervision
    of_bias = 2 * weight * np.mean(difference, axis=0) / difference.shape[1]
    norms = [float(metrics[f"train/gradient_norm/{name}"][0]) for name in ("acoustic", "decoder")]
    assert norms[1] == 0 and norms[0] > np.linalg.norm(of_bias) > 0.1


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_the_presets_train_what_is_published_and_need_no_weights_for_their_shapes(preset):
    config = recipe.get_config(preset)
    stage = registry.of(config.stage).make(config)
    state = jax.eval_shape(stage.init_state, jax.random.key(0))
    generator = state.params["generator"]
    assert set(generator) == _TRAINED[preset.removesuffix("_tiny")]
    sizes = {"losatok": 170_978_562, "dasheng_tokenizer": 173_927_682}
    size = sum(leaf.size for leaf in jax.tree.leaves(generator["decoder"]))
    assert size == sizes.get(preset, size)
    if preset in sizes:
        encoder = stage.abstract_frozen["semantic_encoder"]["params"]
        leaves = jax.tree.leaves(sharding.unbox(encoder))
        assert sum(leaf.size for leaf in leaves) == 630_333_568
    assert stage.model_flops > 0 and stage.per_batch == pytest.approx(
        config.data.batch_size * config.data.crop_frames / 25
    )


@functools.cache
def _tokenizer(workdir: str) -> tokenizer_lib.F3Tokenizer:
    return tokenizer_lib.F3Tokenizer.from_pretrained(workdir)


def test_sound_goes_through_latents_and_back_whatever_it_is_batched_with(trained):
    tokenizer = _tokenizer(trained[0])
    rng = np.random.default_rng(0)
    waveforms = [0.1 * rng.normal(size=n).astype(np.float32) for n in (4000, 6400)]
    together = tokenizer.encode(waveforms)
    assert [row.shape for row in together.rows] == [(7, 4), (10, 4)]
    alone = tokenizer.encode(waveforms[0])
    np.testing.assert_allclose(together.rows[0], alone.rows[0], atol=1e-4)
    decoded = tokenizer.decode(together)
    assert decoded.shape == (2, 6400) and not np.any(decoded[0, 4000:])
    np.testing.assert_allclose(decoded[0, :4000], tokenizer.decode(alone), atol=1e-4)
    assert np.std(decoded[0, :4000]) > 1e-3
    assert tokenizer.codec.fingerprint == together.fingerprint
    told = model_folder.describe(tokenizer.run)
    assert told["latent_dim"] == 4 and told["encoder_lookahead_samples"] is None


def test_files_are_coded_whole_and_streams_are_refused(trained, tmp_path):
    tokenizer, path = _tokenizer(trained[0]), tmp_path / "sound.wav"
    sound = 0.1 * np.random.default_rng(0).normal(size=4410)
    soundfile.write(path, sound, 22_050)
    latents = tokenizer.encode_file(path)
    assert latents.rows[0].shape == (5, 4)
    tokenizer.decode_file(latents, tmp_path / "back.wav")
    back, rate = soundfile.read(tmp_path / "back.wav")
    assert (len(back), rate) == (4410, 22_050) and np.std(back) > 0
    with pytest.raises(ValueError, match="cannot stream, got a stream: give whole sounds"):
        tokenizer.encode_stream([np.zeros((1, 640), np.float32)])
    with pytest.raises(ValueError, match="cannot stream"):
        tokenizer.decode_stream([latents.rows[0][None]])


def test_shards_of_latents_are_those_of_whole_sounds(trained, root, tmp_path):
    (written,) = latent_shards.encode_shards(
        trained[0], root / "sound" / "shards", tmp_path / "latents"
    )
    assert written.latents.latent_dim == 4
    assert written.latents.autoencoder == _tokenizer(trained[0]).codec.fingerprint


@pytest.mark.parametrize(
    "kind, change, words",
    [
        (
            "losatok",
            "model.feature_dim=32",
            "feature_dim must be 16, the width of the semantic encoder",
        ),
        (
            "losatok",
            "model.latent_dim=8",
            "latent_dim must be 4, the width of the semantic bottleneck's",
        ),
        ("losatok", "model.bottleneck_dim=9", "bottleneck_dim must be 8, the width"),
        ("losatok", "model.feature_rate=50.0", "feature_rate must be 25, the Hz of the semantic"),
        ("losatok", "model.sample_rate=24000", "latents must come at a multiple of 25 Hz"),
        (
            "losatok",
            "model.sample_rate=32000",
            "sample_rate must be 16000, the Hz of the semantic encoder",
        ),
        ("losatok", "semantic_bottleneck.workdir=", "semantic_bottleneck.workdir must name a run"),
        (
            "dasheng_tokenizer",
            "semantic_encoder.workdir=",
            "semantic_encoder.workdir must name a run",
        ),
        ("dasheng_tokenizer", "losses.supervision=both", "supervision must be 'high' for a model"),
        ("losatok", "losses.supervision=all", "supervision must be one of"),
        ("losatok", "losses.weights.supervision=-1.0", "supervision must not be negative"),
        ("losatok", "losses.weights.spectrum=1.0", "weights.spectrum=1.0 must be 0"),
        ("losatok", "train_only=decoder", "train_only='decoder' must be ''"),
        ("dasheng_tokenizer", "bottleneck.kind=kl_vae", "choose another kind"),
    ],
)
def test_mistakes_are_one_sentence(config, kind, change, words, tmp_path):
    # Where no run is named, sizes are those of the recipes within the recipe.
    sizes = dict(feature_dim=96, bottleneck_dim=64, latent_dim=96 if kind != "losatok" else 16)
    given = [f"model.{name}={size}" for name, size in sizes.items() if change.endswith("workdir=")]
    made = config(kind, change, *given)
    with pytest.raises(ValueError, match=words) as error:
        run_checks.train(made, str(tmp_path / "run"), devices=jax.devices()[:1])
    assert "\n" not in str(error.value)


def test_another_encoder_than_that_of_the_bottleneck_is_refused(config, tmp_path):
    other = tiny_semantic.write_encoder(tmp_path / "other", "--config.seed=1")
    made = config("losatok", f"semantic_encoder.workdir={other}")
    with pytest.raises(ValueError, match="must name nothing, or the encoder .* was trained on"):
        run_checks.train(made, str(tmp_path / "run"), devices=jax.devices()[:1])


def test_frozen_models_are_held_by_their_fingerprints(config, root, tmp_path):
    workdir = str(tmp_path / "run")
    tiny_runs.write(config("losatok"), workdir)
    run = lineage.Lineage.read(workdir)
    run.check()
    theirs = run.ancestor("semantic_encoder")
    assert run.trained_on["semantic_encoder"] == theirs.fingerprint
    assert run.trained_on["semantic_bottleneck"] == run.parents["semantic_bottleneck"].fingerprint
    assert validation.source(run.config) == "configs/semantic_autoencoder.py:losatok_tiny"


def test_published_weights_take_the_place_of_a_run_and_are_held_too(config, tmp_path):
    weights = tiny_semantic.write_weights(tmp_path / "weights", tiny_semantic.tensors())
    named = ("semantic_encoder.workdir=", f"semantic_encoder.folder={weights}")
    width = ("model.feature_dim=8", "model.latent_dim=8")
    made = config("dasheng_tokenizer", *named, *width)
    workdir = str(tmp_path / "run")
    tiny_runs.write(made, workdir)
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir)
    assert tokenizer.encode(np.ones(1280, np.float32)).rows[0].shape == (2, 8)
    with pytest.raises(ValueError, match="must be '' where .* names a run"):
        both = config("dasheng_tokenizer", named[1], *width)
        run_checks.train(both, str(tmp_path / "both"), devices=jax.devices()[:1])
    changed = tiny_semantic.tensors()
    changed["norm.bias"] += 1.0
    tiny_semantic.write_weights(weights, changed)
    with pytest.raises(ValueError, match="was trained on semantic encoder"):
        tokenizer_lib.F3Tokenizer.from_pretrained(workdir)


def test_a_bottleneck_on_published_weights_brings_them_along(config, tmp_path):
    weights = tiny_semantic.write_weights(tmp_path / "weights", tiny_semantic.tensors())
    folder = f"--config.semantic_encoder.folder={weights}"
    bottleneck = tiny_semantic.write_bottleneck(tmp_path / "bottleneck", "", folder)
    made = config("losatok", f"semantic_bottleneck.workdir={bottleneck}", "model.feature_dim=8")
    workdir = str(tmp_path / "run")
    tiny_runs.write(made, workdir)
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir)
    assert tokenizer.encode(np.ones(1280, np.float32)).rows[0].shape == (2, 4)
    assert tokenizer.run.semantic_weights == str(weights)
