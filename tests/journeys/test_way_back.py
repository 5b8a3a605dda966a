# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run begins with an exported folder, whether or not PyTorch has trained it on."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from configs import sections
from f3tok_jax.devices import sharding
from f3tok_jax.exporting import torch_folder
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from f3tok_jax.training import initialization
from f3tok_jax.training import session
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models
from tests.support import toy_run

_STRIDES = ((4, 4),)


def _config(folder, shards="", **changes):
    config = tiny_models.config(strides=_STRIDES)
    config.num_steps = 2
    for player in config.optimizer.generator, config.optimizer.discriminator:
        player.update(dict(warmup_steps=0, schedule="constant"))
    config.losses.update(dict(mel_windows=(256,), mel_bands=(20,)))
    config.data.update(dict(train=str(shards), heldout=""))
    config.init_from = sections.init_from()
    config.init_from.workdir = str(folder)
    config.checkpoint.every_steps = 2
    config.loop.update(dict(log_every=1, sample_every=1000))
    config.update(changes)
    return config


def _train(config, workdir) -> int:
    return run_checks.train(config, str(workdir), devices=jax.devices()[:1])


def _source(config, read=exported.read):
    return initialization.source(lineage.Lineage(config=config), read_exported=read)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """A folder with a run of random weights, its export, and shards."""
    root = tmp_path_factory.mktemp("root")
    config = _config("")
    config_lib.save(config, str(root / "run"))
    stage = registry.of("autoencoder").make(config)
    tiny_models.write_checkpoint(root / "run", config, stage)
    torch_folder.write(lineage.Lineage.read(str(root / "run")), root / "model")
    sounds.labelled_set(root / "sound", num_files=12)
    return root


@pytest.fixture
def moved(root, tmp_path) -> pathlib.Path:
    """The export, with another encoder and decoder."""
    folder = shutil.copytree(root / "model", tmp_path / "moved")
    tensors = safetensors_numpy.load_file(folder / "model.safetensors")
    tensors = {name: array + np.float32(0.01) for name, array in tensors.items()}
    safetensors_numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def _weights(workdir):
    return pretrained_autoencoder.load(lineage.Lineage.read(str(workdir)))[1]


def test_the_generator_gets_the_weights_and_their_averages_and_nothing_else_does(root):
    config, lines = _config(root / "model"), []
    config.optimizer.discriminator.start = 0.0
    stage = registry.of("autoencoder").make(config)
    shapes = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    fresh = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype), shapes)
    begun = initialization.begin(fresh, _source(config), say=lines.append)
    for field in (begun.params, begun.ema_params):
        jax.tree.map(np.testing.assert_array_equal, field["generator"], _weights(root / "run"))
    equal = lambda one, other: jax.tree.map(np.testing.assert_array_equal, one, other)
    equal(begun.params["discriminator"], fresh.params["discriminator"])
    equal(begun.opt_state, fresh.opt_state)
    assert lines == [
        f"generator from step 3 of {root / 'model'}",
        f"discriminator from scratch: {root / 'model'} did not train it",
    ]


@pytest.mark.slow
def test_a_run_begins_with_it_goes_on_without_it_and_knows_what_it_began_with(
    root, moved, tmp_path, capsys
):
    workdir, config = tmp_path / "run", _config(moved, root / "sound" / "shards")
    assert _train(config, workdir) == session.EXIT_DONE
    assert f"generator from step 3 of {moved}" in capsys.readouterr().out
    bound = run_folder.frozen(str(workdir))["fingerprints"][run_folder.WEIGHTS]
    assert bound == exported.read(str(moved)).fingerprint
    # With a checkpoint it needs the folder no more.
    away, config.num_steps = shutil.move(moved, tmp_path / "away"), 3
    assert _train(config, workdir) == session.EXIT_DONE
    assert "resuming this run from its checkpoint of step 2" in capsys.readouterr().out
    first = saved_states.read_meta(str(workdir))["fingerprints"]
    # Killed before its first save, it begins again, with the same weights or not at all.
    shutil.rmtree(workdir / "checkpoints"), (workdir / "DONE").unlink()
    shutil.copytree(root / "model", moved)
    with pytest.raises(ValueError, match=f"with weights {bound}, which were chosen .*got [0-9a-f]"):
        _train(config, workdir)
    shutil.rmtree(moved), shutil.move(away, moved)
    assert _train(config, workdir) == session.EXIT_DONE
    assert saved_states.read_meta(str(workdir))["fingerprints"] == first


def test_a_decoder_alone_keeps_the_latents_that_the_folder_makes(root, moved, tmp_path):
    old = lineage.Lineage.read(str(root / "run")).latents_fingerprint
    for folder in (root / "model", moved):
        workdir = tmp_path / folder.name / "run"
        config = _config(folder, root / "sound" / "shards", train_only="decoder")
        assert _train(config, workdir) == session.EXIT_DONE
        found, source = lineage.Lineage.read(str(workdir)), exported.read(str(folder))
        assert found.encoder_fingerprint == source.encoder_fingerprint
        assert found.fingerprint != source.fingerprint
        assert found.latents_fingerprint == source.latents_fingerprint
        assert (found.latents_fingerprint == old) == (folder != moved)
        # And back again: what is exported claims no more than the run does.
        torch_folder.write(found, tmp_path / folder.name / "model")
        again = exported.read(str(tmp_path / folder.name / "model"))
        assert again.latents_fingerprint == found.latents_fingerprint


def test_another_geometry_and_another_stage_are_refused_before_anything_is_written(root, tmp_path):
    wrong = {
        "compression": (0.3, "config.model.compression must be 0.5, as there, got 0.3"),
        "latent_dim": (16, "config.model.latent_dim must be 8, as there, got 16"),
        "decoder_lookahead": (0, "config.model.decoder_lookahead must be 1, as there, got 0"),
    }
    for name, (value, message) in wrong.items():
        config = _config(root / "model", root / "sound" / "shards")
        config.model[name] = value
        with pytest.raises(ValueError, match=f"of the config's geometry: {message}"):
            _train(config, tmp_path / "run")
    config = _config(root / "model", root / "sound" / "shards")
    config.bottleneck.epsilon = 1e-3
    with pytest.raises(ValueError, match="config.bottleneck.epsilon must be 1e-05, as there"):
        _train(config, tmp_path / "run")
    config = _config(root / "model", root / "sound" / "shards", train_only="decoder")
    config.model.compute_dtype = "bfloat16"
    with pytest.raises(ValueError, match="keeps the latents of .*config.model.compute_dtype must"):
        _train(config, tmp_path / "run")
    config = _config(root / "model", root / "sound" / "shards")
    config.init_from.step = 2
    with pytest.raises(ValueError, match="holds one state, of step 3, got step 2"):
        _train(config, tmp_path / "run")
    toy = toy_run.make_config(
        root / "sound" / "shards", f"--config.init_from.workdir={root / 'model'}"
    )
    with pytest.raises(ValueError, match="got the exported folder .*: give the run that it was"):
        _source(toy, read=None)
    assert not (tmp_path / "run").exists()
