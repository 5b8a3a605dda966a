# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The program that caches latents: equal to live ones, and marked with their autoencoder."""

import functools

import jax
import numpy as np
import pytest

from data_pipelines.reading import remote
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from data_pipelines.records import pcm16
from f3tok_jax import encode_shards
from f3tok_jax.inference import codec
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import pins
from tests.support import sounds
from tests.support import tiny_models


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return sounds.labelled_set(tmp_path_factory.mktemp("sound"), num_files=8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny_models.write_run(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, workdir, shards):
    folder = tmp_path_factory.mktemp("latents")
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={folder}"]
    assert encode_shards.main([*arguments, "--batch_size=5"]) == 0
    return folder


def test_the_step_that_latents_are_of_is_kept(encoded, workdir):
    assert pins.of(workdir) == {3}


def test_latents_from_shards_are_those_of_the_sound(encoded, shards, workdir):
    run = lineage.Lineage.read(workdir)
    autoencoder, params, _ = pretrained_autoencoder.load(run)
    assert autoencoder.samples_per_latent == 640
    options = dict(
        sample_rate=16_000, crop_length=25 * 640, batch_size=8, random_crop=False, seed=1
    )
    live = sounds.open_pipeline(shards, **options).local_batch(0)
    cached = sounds.open_pipeline(encoded, autoencoder=run.fingerprint, **options).local_batch(0)
    expected = np.asarray(
        jax.jit(functools.partial(autoencoder.apply, method="waveform_to_latents"))(
            {"params": params}, live["waveform"]
        )
    )
    frames = live["mask"].reshape(8, 25, 640).any(-1)
    np.testing.assert_array_equal(cached["mask"], frames)
    np.testing.assert_allclose(cached["latents"][frames], expected[frames], atol=1e-5)
    assert np.std(expected[frames]) > 0.5  # the tolerance says something


def test_the_set_says_whose_latents_it_holds(encoded, shards, workdir):
    content = manifest.read(encoded)
    assert content.latents == manifest.Latents(
        lineage.Lineage.read(workdir).fingerprint, 8, 640, manifest.read(shards).fingerprint
    )
    with pytest.raises(ValueError, match="were made by autoencoder [0-9a-f]{16}, the run uses 12"):
        sources.LatentSet(encoded).check_autoencoder("12")
    sound = sources.ShardSet(shards)
    record = sources.LatentSet(encoded)[2]
    assert (record.labels, record.texts) == (sound[2].labels, sound[2].texts)
    assert record.num_samples == sound[2].waveform.size


def test_the_gain_of_each_sound_is_kept_beside_its_latents(shards, tmp_path):
    tiny_models.write_run(tmp_path / "run", level_db=-20.0)
    arguments = [f"--workdir={tmp_path / 'run'}", f"--shards={shards}"]
    assert encode_shards.main([*arguments, f"--output={tmp_path / 'latents'}"]) == 0
    run = lineage.Lineage.read(str(tmp_path / "run"))
    model, found = codec.Codec.load(run), sources.LatentSet(tmp_path / "latents")
    waveforms = [pcm16.to_float(record.waveform) for record in sources.ShardSet(shards)]
    gains = [record.gain for record in found]
    np.testing.assert_allclose(gains, model.gains(waveforms), rtol=1e-9)
    assert min(gains) > 0 and 1.0 not in gains
    expected = model.encode(waveforms, gains=gains)
    np.testing.assert_allclose(found[3].latents, expected[3], atol=1e-4)
    found.check_autoencoder(run.latents_fingerprint)
    with pytest.raises(ValueError, match="were made by autoencoder"):
        found.check_autoencoder(run.fingerprint)  # of the same weights without a level


def test_folders_of_two_sets_and_finished_ones(workdir, shards, tmp_path, capsys, monkeypatch):
    def zeros(self, waveforms, **options):  # the encoder takes long to compile
        return [np.zeros((-(-len(w) // 640), 8), np.float32) for w in waveforms]

    monkeypatch.setattr(codec.Codec, "encode", zeros)
    both = tmp_path / "both"
    both.mkdir()
    for name in ("train", "test"):
        (both / name).symlink_to(shards)
    arguments = [f"--workdir={workdir}", f"--shards={both}", f"--output={tmp_path / 'out'}"]
    assert encode_shards.main(arguments) == 0
    assert manifest.read(tmp_path / "out" / "train").num_records == len(sources.ShardSet(shards))
    assert encode_shards.main(arguments) == 0
    assert capsys.readouterr().out.count("is already encoded") == 2


def test_sets_behind_a_url_are_copied_and_encoded(workdir, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(
        codec.Codec,
        "encode",
        lambda self, waveforms, **options: [
            np.zeros((-(-len(w) // 640), 8), np.float32) for w in waveforms
        ],
    )
    monkeypatch.setenv(remote.VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "both").mkdir()
    for name in ("train", "test"):
        (tmp_path / "both" / name).symlink_to(shards)
    arguments = [f"--workdir={workdir}", f"--shards=file://{tmp_path}/both/"]
    assert encode_shards.main([*arguments, f"--output={tmp_path / 'out'}"]) == 0
    for name in ("train", "test"):
        assert manifest.read(tmp_path / "out" / name).num_records == len(sources.ShardSet(shards))
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == len(manifest.read(shards).shards)


@pytest.mark.parametrize(
    "change, message",
    [
        ("--workdir=/nowhere", "/nowhere"),
        ("--shards=/nowhere", "/nowhere is not a finished shard set"),
        ("--batch_size=0", "--batch_size must be at least 1, got 0"),
        ("--step=99", "99"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, message, workdir, shards, tmp_path, capsys):
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={tmp_path}", change]
    assert encode_shards.main(arguments) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith("f3tok_jax.encode_shards: ")
        and error.count("\n") == 1
        and message in error
    )


def test_latents_are_not_encoded_again(encoded, workdir, tmp_path, capsys):
    assert encode_shards.main(
        [f"--workdir={workdir}", f"--shards={encoded}", f"--output={tmp_path}"]
    )
    assert "hold latents, and sound is needed" in capsys.readouterr().err
