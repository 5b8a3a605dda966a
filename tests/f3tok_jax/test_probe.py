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
from f3tok_jax.probing import classifiers
from f3tok_jax.probing import features as features_lib
from f3tok_jax.probing import probes
from f3tok_jax.runs import config as config_lib
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


def _read(folder, models):
    return features_lib.read(
        str(folder), models, pooling="mean", batch_size=5, say=lambda line: None
    )


def test_features_are_pooled_over_valid_frames(shards, tmp_path):
    found = _read(shards, _models())
    source = sources.ShardSet(shards)
    assert len(source) == len(found.labels) == len(found.groups)
    for i in range(len(source)):
        record = source[i]
        assert found.labels[i] == record.labels and found.groups[i] == record.source
        waveform = record.waveform.astype(np.float32) / 32768
        (latents,) = _encode([waveform])
        np.testing.assert_allclose(found.features["latents"][i], latents.mean(0), rtol=1e-5)
        expected = 2 * np.concatenate([latents, -latents], -1).mean(0)
        np.testing.assert_allclose(found.features["representations"][i], expected, rtol=1e-5)
        np.testing.assert_allclose(found.features["halved"][i], expected / 2, rtol=1e-5)
        reference = features_lib.log_mel_statistics(waveform, sample_rate=16_000)
        np.testing.assert_array_equal(found.features["log_mel"][i], reference)
    sound = sources.ShardSet(shards)
    content = manifest.Latents("abc", _DIM, _HOP, "")
    latent_writer.build(sound, tmp_path, _encode, latents=content, say=lambda line: None)
    cached = _read(tmp_path, _models())
    assert set(cached.features) == {"latents", "representations", "halved"}
    np.testing.assert_allclose(
        cached.features["representations"], found.features["representations"], rtol=1e-5
    )
    with pytest.raises(ValueError, match="made by autoencoder abc, the run uses other"):
        _read(tmp_path, _models("other"))


def test_log_mel_statistics_tell_pitch_and_change():
    low, high = (sounds.tone(0.5, hertz=hertz) for hertz in (300.0, 3000.0))
    low, high, both = (
        features_lib.log_mel_statistics(waveform, sample_rate=16_000)
        for waveform in (low, high, np.concatenate([low, high]))
    )
    assert low.shape == (160,) and low.dtype == np.float32
    assert low[:80].argmax() < high[:80].argmax()
    assert both[80:].max() > 3 * low[80:].max()


def _examples(count=60, seed=0, classes=3, **labels):
    draw = np.random.default_rng(seed)
    values = draw.integers(0, classes, count)
    features = {
        "good": np.eye(8)[values] + 0.05 * draw.standard_normal((count, 8)),
        "bad": draw.standard_normal((count, 8)),
    }
    return features_lib.Examples(
        {name: array.astype(np.float32) for name, array in features.items()},
        [{"digit": str(value), **labels} for value in values],
        [f"source {i}" for i in range(count)],
    )


def test_every_feature_and_test_set_is_measured():
    tests = {"a": _examples(seed=1), "b": _examples(count=40, seed=2, classes=4)}
    found = probes.measure(
        _examples(count=300),
        tests,
        "digit",
        seeds=range(3),
        training=classifiers.Training(learning_rate=0.02),
    )
    assert found.classes == ["0", "1", "2"] and found.num_train == 300
    first, second = found.tests["a"], found.tests["b"]
    assert first.features["good"].linear.mean > 0.99
    assert first.features["good"].neighbours > 0.99
    assert first.features["bad"].linear.mean < 0.6 and first.num_unseen == 0
    assert len(first.features["bad"].linear.values) == 3
    values = first.features["bad"].linear.values
    assert first.features["bad"].linear.std == pytest.approx(np.std(values))
    unseen = sum(labels["digit"] == "3" for labels in tests["b"].labels)
    assert second.num_unseen == unseen > 0
    assert second.features["good"].neighbours == pytest.approx(1 - unseen / 40)
    commonest = [labels["digit"] for labels in _examples(count=300).labels]
    commonest = max("012", key=commonest.count)
    share = np.mean([labels["digit"] == commonest for labels in tests["a"].labels])
    assert first.majority == pytest.approx(share)


def test_records_without_the_label_are_left_out():
    train = _examples(count=200)
    train.labels[:50] = [{}] * 50
    found = probes.measure(train, {"a": _examples()}, "digit", seeds=(0,))
    assert found.num_train == 150
    with pytest.raises(ValueError, match="label 'speaker' must have at least two values"):
        probes.measure(train, {"a": _examples()}, "speaker", seeds=(0,))
    with pytest.raises(ValueError, match="no record to test in a has the label 'digit'"):
        probes.measure(train, {"a": _examples().select([False] * 60)}, "digit", seeds=(0,))


def test_the_program_writes_a_table(shards, workdir, tmp_path, capsys):
    output = tmp_path / "probe.json"
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={output}"]
    assert probe.main([*arguments, "--label=speaker", "--num_seeds=2", "--num_epochs=2"]) == 0
    results = json.loads(output.read_text())
    assert results["format"] == results_lib.Probe.FORMAT
    (test,) = results["labels"]["speaker"]["tests"].values()
    source = sources.ShardSet(shards)
    # A fifth of the sources, and no source on both sides.
    assert test["num_examples"] + results["labels"]["speaker"]["num_train"] == len(source)
    assert 0 < test["num_examples"] < len(source) / 2
    assert set(test["features"]) == {"log_mel", "latents"}
    drawn = results_lib.read(output).map
    assert len(drawn.labels["speaker"]) == test["num_examples"] and all(drawn.labels["speaker"])
    assert {len(plane.x) for plane in drawn.features.values()} == {test["num_examples"]}
    printed = capsys.readouterr().out
    assert "raw latents" in printed and "log-mel statistics" in printed and "±" in printed


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
        ("--num_epochs=0", "a linear probe needs"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, message, workdir, shards, tmp_path, capsys):
    arguments = [f"--workdir={workdir}", f"--shards={shards}", "--label=speaker"]
    assert probe.main([*arguments, f"--output={tmp_path / 'x.json'}", change]) == 1
    error = capsys.readouterr().err
    assert error.startswith("f3tok_jax.probe: ") and error.count("\n") == 1 and message in error


def test_several_sets_are_learnt_from_together():
    one, two = (
        features_lib.Examples(
            {"a": np.full((2, 3), value, np.float32)} | extra,
            [{"digit": str(value)}] * 2,
            [f"group {value}"] * 2,
        )
        for value, extra in ((1, {"b": np.zeros((2, 1), np.float32)}), (2, {}))
    )
    joined = features_lib.join([one, two])
    assert list(joined.features) == ["a"]
    np.testing.assert_array_equal(joined.features["a"][:, 0], [1, 1, 2, 2])
    assert [labels["digit"] for labels in joined.labels] == ["1", "1", "2", "2"]
    assert list(joined.groups) == ["group 1"] * 2 + ["group 2"] * 2
