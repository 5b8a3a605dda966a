# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder's decoder is trained on alone, and latents of before stay valid."""

import pathlib

import jax
import numpy as np
import pytest
import soundfile

from configs import sections
from f3tok_jax import cli
from f3tok_jax.inference import latent_shards
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.runs import saved_states
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs


def _config(shards, parent=""):
    config = tiny_models.config(strides=((4, 4),))
    _shorten(config, shards, parent)
    return config


def _shorten(config, shards, parent) -> None:
    """Three steps of the decoder of `parent`, and few mel spectra."""
    config.num_steps, config.train_only = 3, "decoder"
    config.losses.update(dict(mel_windows=(256,), mel_bands=(20,)))
    config.data.update(dict(train=str(shards), heldout=""))
    config.init_from = sections.init_from()
    config.init_from.workdir = str(parent)
    config.checkpoint.every_steps = 3
    config.loop.update(dict(log_every=1, sample_every=1000))


def test_a_decoder_is_trained_alone_and_decodes_latents_of_before(tmp_path):
    shards = sounds.labelled_set(tmp_path / "sound", num_files=12)
    old, new = tmp_path / "old", tmp_path / "new"
    parent = _config(shards)
    parent.train_only = ""
    devices = jax.devices()[:1]
    assert run_checks.train(parent, str(old), devices=devices) == session.EXIT_DONE
    config = _config(shards, old)
    assert run_checks.train(config, str(new), devices=devices) == session.EXIT_DONE

    before, after = (saved_states.read_meta(str(run))["fingerprints"] for run in (old, new))
    average = {path: value for path, value in before.items() if path.startswith("ema_params")}
    for path, value in average.items():
        is_kept = "/encoder/" in path
        assert (after[path] == value) == is_kept, path
        if is_kept:
            assert after[path.replace("ema_params", "params")] == value, path
    assert not any(path.startswith("opt_state/generator/encoder") for path in after)

    runs = [lineage.Lineage.read(str(run)) for run in (old, new)]
    assert runs[0].fingerprint != runs[1].fingerprint
    assert runs[0].latents_fingerprint == runs[1].latents_fingerprint == runs[0].fingerprint
    sound = tmp_path / "sound.wav"
    soundfile.write(sound, 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
    latents = str(tmp_path / "old.npz")
    assert cli.main([f"--model={old}", "encode", str(sound), latents]) == 0
    decoded = []
    for run in (old, new):
        target = tmp_path / f"{run.name}.wav"
        assert cli.main([f"--model={run}", "decode", latents, str(target)]) == 0
        decoded.append(soundfile.read(target)[0])
    assert decoded[0].shape == decoded[1].shape and not np.array_equal(*decoded)
    opened = [tokenizer_lib.F3Tokenizer.from_pretrained(str(run)) for run in (old, new)]
    rows = [one.encode_file(sound).rows[0] for one in opened]
    np.testing.assert_array_equal(*rows)
    with_other = tokenizer_lib.F3Tokenizer.from_pretrained(str(old), decoder=str(new))
    found = with_other.decode(opened[0].encode_file(sound))
    np.testing.assert_array_equal(found, opened[1].decode(opened[0].encode_file(sound)))

    stranger = tmp_path / "stranger"
    tiny_models.write_run(stranger, train=str(shards))
    with pytest.raises(ValueError, match="must be of the latents"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(old), decoder=str(stranger))
    other = _config(shards, old)
    other.model.compression = 0.3
    with pytest.raises(ValueError, match="config.model.compression must be 0.5, as there, got 0.3"):
        run_checks.train(other, str(tmp_path / "other"), devices=devices)
    assert not config_lib.exists(str(tmp_path / "other"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> dict[str, str]:
    """Runs of three stages and, as "decoder", the decoder of the first one, trained on in a game."""
    root = tmp_path_factory.mktemp("chain")
    folders = tiny_runs.write_chain(root) | {"decoder": str(root / "decoder")}
    folders["shards"] = str(sounds.labelled_set(root / "sound", num_files=12))
    config = tiny_models.config()
    config.optimizer.discriminator.update(dict(start=1, warmup_steps=1))
    config.discriminators.update(
        dict(periods=(2,), period_channels=(8, 8), stft_windows=(512,), stft_channels=8)
    )
    config.optimizer.generator.learning_rate = 0.03
    _shorten(config, folders["shards"], folders["autoencoder"])
    devices = jax.devices()[:1]
    assert run_checks.train(config, folders["decoder"], devices=devices) == session.EXIT_DONE
    return folders


@pytest.mark.slow
def test_discriminators_play_against_a_decoder_alone(chain):
    runs = (chain["autoencoder"], chain["decoder"])
    before, after = (saved_states.read_meta(run)["fingerprints"] for run in runs)
    for path in before:
        if path.startswith("ema_params/"):
            assert (after[path] == before[path]) == ("/encoder/" in path), path
    lines = metrics.read(pathlib.Path(chain["decoder"]))
    assert [line["step"] for line in lines if "train/feature_matching" in line] == [2, 3]


@pytest.mark.slow
def test_a_generator_of_before_is_heard_through_the_new_decoder(chain, tmp_path):
    heard = {}
    for name, more in (("old", []), ("new", [f"--decoder={chain['decoder']}"])):
        output = tmp_path / f"{name}.wav"
        flags = [f"--model={chain['generation']}", "--text=ab", f"--output={output}", "--seed=1"]
        assert cli.main(["generate", *flags, "--max_seconds=0.4", *more]) == 0
        heard[name], _ = soundfile.read(output)
    assert len(heard["old"]) == len(heard["new"]) > 0
    assert not np.array_equal(heard["old"], heard["new"])


@pytest.mark.slow
def test_a_later_stage_is_trained_on_it_from_the_latents_of_before(chain, tmp_path):
    latents = tmp_path / "latents"
    encode = dict(say=lambda line: None)
    latent_shards.encode_shards(chain["autoencoder"], chain["shards"], latents, **encode)
    config = config_lib.load(chain["representation"])
    config.autoencoder.workdir = chain["decoder"]
    config.supervision.weight, config.rq.normalization, config.num_steps = 0.0, "standardize", 1
    config.data.update(dict(latents=True, train=str(latents), heldout="", batch_size=4))
    config.optimizer.encoder.warmup_steps = 0
    workdir = str(tmp_path / "representation")
    assert run_checks.train(config, workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    run = lineage.Lineage.read(workdir)
    run.check()
    assert run.latents_fingerprint == lineage.Lineage.read(chain["autoencoder"]).fingerprint


def test_a_random_encoder_that_never_learns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must have in config.init_from.workdir the run"):
        run_checks.train(_config(tmp_path), str(tmp_path / "new"))
