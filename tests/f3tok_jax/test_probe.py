# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The probing program: which examples are learnt and tested, the table, and what is refused."""

import json
import types

import numpy as np
import pytest

from data_pipelines.building import latent_writer
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from f3tok_jax import probe
from f3tok_jax.inference import codec
from f3tok_jax.probing import features as features_lib
from f3tok_jax.probing import probes
from f3tok_jax.probing import xares_probe
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib
from tests.support import seals
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_HOP, _DIM = 640, 8


def _encode(waveforms, **options):
    """In place of the autoencoder, which takes long to compile: frames of log magnitudes."""
    padded = [np.pad(w, (0, -len(w) % _HOP)).reshape(-1, _HOP) for w in waveforms]
    return [np.abs(np.fft.rfft(w))[:, 4 : 4 + _DIM].astype(np.float32) for w in padded]


def _double(scale: float):
    """A representation encoder that says everything twice."""
    return lambda latents, batch_size: [scale * np.concatenate([x, -x], -1) for x in latents]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(sounds.labelled_set(tmp_path_factory.mktemp("sound"), num_files=12))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny_models.write_run(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(codec.Codec, "encode", lambda self, *args, **options: _encode(*args))


def _models(fingerprint: str = "abc"):
    tokenizer = types.SimpleNamespace(
        sample_rate=16_000, fingerprint=fingerprint, codec=types.SimpleNamespace(encode=_encode)
    )
    encoders = {"representations": _double(2.0), "halved": _double(1.0)}
    return features_lib.Models(tokenizer, encoders)


def _read(folder, models, poolings=("mean",)):
    return features_lib.read(
        str(folder), models, poolings=poolings, batch_size=5, say=lambda line: None
    )


def test_features_are_pooled_over_valid_frames(shards, tmp_path):
    found = _read(shards, _models(), ("mean", "mean_std", "attentive"))
    source = sources.ShardSet(shards)
    assert len(source) == len(found.labels) == len(found.sources) == len(found.sounds)
    for i in range(len(source)):
        record = source[i]
        of_input = source.manifest.sources[:16]
        assert (
            found.labels[i] == record.labels and found.sources[i] == f"{of_input}:{record.source}"
        )
        waveform = record.waveform.astype(np.float32) / 32768
        (latents,) = _encode([waveform])
        np.testing.assert_allclose(found.features["latents:mean"][i], latents.mean(0), rtol=1e-5)
        assert found.features["latents:attentive"][i].shape == (32, _DIM)
        expected = 2 * np.concatenate([latents, -latents], -1).mean(0)
        np.testing.assert_allclose(found.features["representations:mean"][i], expected, rtol=1e-5)
        np.testing.assert_allclose(found.features["halved:mean"][i], expected / 2, rtol=1e-5)
        log_mel = features_lib.log_mel(waveform, sample_rate=16_000)
        statistics = np.concatenate([log_mel.mean(0), log_mel.std(0)])
        np.testing.assert_array_equal(found.features["log_mel:mean_std"][i], statistics)
        mfcc = features_lib.mfcc(log_mel).mean(0)
        np.testing.assert_allclose(found.features["mfcc:mean"][i], mfcc, rtol=1e-5)
    assert len(set(found.sounds)) == len(source) and all(found.sounds)
    sound = sources.ShardSet(shards)
    content = manifest.Latents("abc", _DIM, _HOP, "")
    latent_writer.build(
        sound,
        tmp_path,
        lambda waveforms: (_encode(waveforms), [1.0] * len(waveforms)),
        latents=content,
        say=lambda line: None,
    )
    cached = _read(tmp_path, _models())
    assert set(cached.features) == {"latents:mean", "representations:mean", "halved:mean"}
    name = "representations:mean"
    np.testing.assert_allclose(cached.features[name], found.features[name], rtol=1e-5)
    # The same sources, whether their sound or its latents are read.
    assert list(cached.sources) == list(found.sources)
    with pytest.raises(ValueError, match="made by autoencoder abc, the run uses other"):
        _read(tmp_path, _models("other"))


def test_log_mel_statistics_tell_pitch_and_change():
    low, high = (sounds.tone(0.5, hertz=hertz) for hertz in (300.0, 3000.0))
    low, high, both = (
        features_lib.log_mel(waveform, sample_rate=16_000)
        for waveform in (low, high, np.concatenate([low, high]))
    )
    assert low.shape == (50, 80) and low.dtype == np.float32
    assert low.mean(0).argmax() < high.mean(0).argmax()
    assert both.std(0).max() > 3 * low.std(0).max()


def test_cepstra_are_the_cosines_of_the_mels():
    log_mels = np.random.default_rng(0).standard_normal((3, 80)).astype(np.float32)
    found = features_lib.mfcc(log_mels)
    place = np.pi * (np.arange(80) + 0.5) / 80
    basis = np.sqrt(2 / 80) * np.cos(np.arange(20)[:, None] * place)
    basis[0] /= np.sqrt(2)
    np.testing.assert_allclose(found, log_mels @ basis.T, atol=1e-5)
    assert found.dtype == np.float32


def test_silence_is_no_sound_that_could_be_known():
    ramp = np.arange(8, dtype=np.int16)
    assert features_lib._checksum(np.zeros(8, np.int16)) == ""
    assert features_lib._checksum(ramp) == features_lib._checksum(ramp.copy()) != ""
    assert features_lib._checksum(ramp) != features_lib._checksum(ramp[::-1])


def test_the_program_writes_a_table(shards, workdir, tmp_path, capsys):
    output = tmp_path / "probe.json"
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={output}"]
    arguments += ["--label=speaker", "--num_seeds=2", "--pooling=mean"]
    assert probe.main(arguments) == 0
    results = json.loads(output.read_text())
    assert results["format"] == probe_results.Probe.FORMAT
    assert results["recipe"]["name"] == "logistic" and results["pooling"] == "mean"
    (test,) = results["labels"]["speaker"]["tests"].values()
    source = sources.ShardSet(shards)
    # A fifth of the sources, and no source on both sides.
    assert test["num_examples"] + results["labels"]["speaker"]["num_train"] == len(source)
    assert 0 < test["num_examples"] < len(source) / 2
    assert list(test["features"]) == ["log_mel:mean", "mfcc:mean", "latents:mean"]
    drawn = results_lib.read(output).map
    assert len(drawn.labels["speaker"]) == test["num_examples"] and all(drawn.labels["speaker"])
    assert {len(plane.x) for plane in drawn.features.values()} == {test["num_examples"]}
    printed = capsys.readouterr().out
    head = (
        f"speaker: 2 classes, learnt from {results['labels']['speaker']['num_train']} examples in "
    )
    assert head in printed and "groups by source, tested on" in printed
    assert "chance 0.500, ± " in printed and "always the commonest 0." in printed
    assert "labels shuffled" in printed and "±" in printed and "L2 " in printed
    for row in ("1 log-mel statistics, mean", "2 MFCC statistics, mean", "3 raw latents, mean"):
        assert row in printed


def test_an_undertrained_probe_is_refused(shards, tmp_path, monkeypatch, capsys):
    needed = iter((8, 16))
    monkeypatch.setattr(xares_probe, "_epochs_needed", lambda *_: next(needed))
    arguments = [f"--shards={shards}", "--label=speaker", "--recipe=xares", "--num_epochs=1"]
    output = tmp_path / "probe.json"
    assert probe.main([*arguments, "--num_seeds=1", f"--output={output}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("f3tok_jax.probe: a probe must be trained to its end, got that of MFCC")
    assert "give --num_epochs=16, which suffices" in error and not output.exists()


def test_without_a_run_spectra_are_probed_and_speakers_left_out(shards, tmp_path, capsys):
    output = tmp_path / "probe.json"
    # No digit is said by both of these speakers, so that all of each is unknown.
    arguments = [f"--shards={shards}", "--label=digit", "--leave_out=speaker", "--num_seeds=1"]
    assert probe.main([*arguments, "--group=source", f"--output={output}"]) == 0
    found = results_lib.read(output)
    (test,) = found.labels["digit"].tests.values()
    assert list(test.groups) == ["ada", "bob"] and found.leave_out == "speaker"
    assert list(test.features) == ["log_mel:mean_std", "mfcc:mean_std"] and not found.workdir
    assert test.num_unseen == test.num_examples == len(sources.ShardSet(shards))
    assert test.features["log_mel:mean_std"].linear.mean == 0.0
    printed = capsys.readouterr().out
    assert "speaker ada left out (" in printed and "mean ± std over speakers" in printed
    assert f"{test.num_examples} of 10 classes that were not learnt" in printed


def test_a_value_is_kept_out_of_training_and_tested_alone(shards, workdir, tmp_path):
    results = probes.probe(
        workdir,
        shards,
        tmp_path / "probe.json",
        options=probes.Options(
            labels=["digit"],
            exclude=[("speaker", "bob")],
            only=[("speaker", "bob"), ("digit", "1"), ("digit", "3")],
            num_seeds=1,
        ),
        test_shards=[shards, shards],
        say=lambda line: None,
    )
    source = sources.ShardSet(shards)
    labels = [source[i].labels for i in range(len(source))]
    found = results.labels["digit"]
    assert found.num_train == sum(record["speaker"] == "ada" for record in labels)
    (test,) = found.tests.values()
    wanted = sum(record["digit"] in "13" and record["speaker"] == "bob" for record in labels)
    assert test.num_examples == wanted > 0
    assert test.num_unseen == wanted  # only bob says odd digits
    assert test.unseen_classes == ["1", "3"]


def test_a_representation_run_brings_its_autoencoder(workdir, tmp_path):
    config = config_lib.read(
        f"{tiny_runs.CONFIGS}/representation.py:tiny",
        [
            *tiny_runs.SMALL,
            f"--config.autoencoder.workdir={workdir}",
            "--config.supervision.weight=0.0",
        ],
    )
    tiny_runs.write(config, str(tmp_path))
    models = probes.load_models(str(tmp_path))
    assert models.tokenizer.fingerprint == probes.load_models(workdir).tokenizer.fingerprint
    assert set(models.encoders) == {"representations"} and not probes.load_models(workdir).encoders
    (found,) = models.encoders["representations"]([np.ones((5, _DIM), np.float32)], batch_size=1)
    assert found.shape == (5, tiny_models.SHAPE["width"])
    frozen = tmp_path / "frozen.json"
    seals.replace(frozen, models.tokenizer.fingerprint, "5eed")
    with pytest.raises(ValueError, match="was trained on autoencoder 5eed, got "):
        probes.load_models(str(tmp_path))


@pytest.mark.parametrize(
    "change, message",
    [
        ("--workdir=/nowhere", "/nowhere"),
        ("--shards=/nowhere", "/nowhere is not a finished shard set"),
        ("--test_shards=/nowhere", "/nowhere is not a finished shard set"),
        ("--label=colour", "the label 'colour' must have at least two values"),
        ("--exclude=speaker", "--exclude must be label=value, got 'speaker'"),
        ("--only=digit=17", "no record to test in"),
        ("--num_seeds=0", "--num_seeds and --batch_size must be at least 1"),
        ("--label=,", "--label must name a label"),
        ("--recipe=xares --num_epochs=0", "a linear probe needs"),
        ("--num_epochs=20", "--num_epochs is of --recipe=xares, got 20 with --recipe=logistic"),
        ("--recipe=adam", "invalid choice: 'adam'"),
        ("--test_shards=SHARDS", "whose source is among those learnt from"),
        ("--pooling=max", "--pooling must be different ones of mean, mean_std, thirds, attentive"),
        ("--pooling=attentive", "--pooling=attentive with --recipe=logistic"),
        ("--leave_out=speaker", "--leave_out must be another label than what is predicted"),
        ("--leave_out=room", "--leave_out=room needs the label of every record"),
        ("--group=speaker", "--group must be another label than what is predicted"),
        ("--group=room", "--group=room must be a label of every record"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, message, workdir, shards, tmp_path, capsys):
    arguments = [f"--workdir={workdir}", f"--shards={shards}", "--label=speaker"]
    change = change.replace("SHARDS", shards).split()
    assert probe.main([*arguments, f"--output={tmp_path / 'x.json'}", *change]) == 1
    error = capsys.readouterr().err
    assert error.startswith("f3tok_jax.probe: ") and error.count("\n") == 1 and message in error


def test_several_sets_are_learnt_from_together():
    one, two = (
        features_lib.Examples(
            {"a": np.full((2, 3), value, np.float32)} | extra,
            [{"digit": str(value)}] * 2,
            [f"source {value}"] * 2,
            [f"sound {value}"] * 2,
        )
        for value, extra in ((1, {"b": np.zeros((2, 1), np.float32)}), (2, {}))
    )
    joined = features_lib.join([one, two])
    assert list(joined.features) == ["a"]
    np.testing.assert_array_equal(joined.features["a"][:, 0], [1, 1, 2, 2])
    assert [labels["digit"] for labels in joined.labels] == ["1", "1", "2", "2"]
    assert list(joined.sources) == ["source 1"] * 2 + ["source 2"] * 2
    assert list(joined.select([True, False, False, True]).sounds) == ["sound 1", "sound 2"]
