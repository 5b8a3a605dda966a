# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Results on disk: they come back as they were, and whatever else lies there is one sentence."""

import dataclasses
import json
import os

import pytest

from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results
from f3tok_jax.runs import typed_json
from tests.support import seals

_SPREAD = probe_results.Spread(mean=0.5, std=0.1, values=[0.4, 0.6])
_TESTED = dict(num_examples=9, num_unseen=0, majority=0.25)
_SOUNDS = (results.Sounds(key="a", files={"original": "listen/a.wav"}),)
_ALL = (
    results.Reconstruction(
        step=4,
        shards=results.ShardSet(path="DIR", fingerprint="f", sample_rate=16_000),
        num_examples=2,
        seconds=1.5,
        unreadable=("a: empty",),
        latents=results.LatentStatistics(
            rate=25.0,
            dim=2,
            num_frames=9,
            channel_mean=(0.0, 1.0),
            channel_rms=(1.0, 1.0),
            rms=1.0,
            effective_rank=1.5,
            drift_rms=0.5,
            spectrum=(0.75, 0.25),
        ),
        flops_per_second=results.Flops(encode=2.0, decode=1.0),
        semantic_encoder="trained by this project, 9 steps",
        missing={"pesq": "not installed"},
        metrics={
            "stoi": results.Metric(title="STOI", unit="", explanation="x", higher_is_better=True)
        },
        rows=(
            results.ScoredRow(
                name="model",
                title="model",
                description="y",
                metrics={
                    "stoi": results.Score(
                        mean=None, standard_error=None, count=0, undefined={"too short": 2}
                    )
                },
            ),
        ),
        spectral_frechet_distance={"model": 3.0},
        sounds=_SOUNDS,
    ),
    results.Generation(
        num_examples=2,
        classifier=results.ClassifierSource(shards="DIR", label="digit"),
        sampler={"guidance": 2.0},
        max_seconds=3.0,
        rows=(results.GeneratedRow(name="a", title="a", classifier_accuracy=0.5),),
        texts={"a": "one"},
        sounds=_SOUNDS,
    ),
    results.LanguageModel(step=3, num_records=2, loss=1.0, perplexity=2.718),
    probe_results.Probe(
        exclude=(),
        only=("speaker=ada",),
        pooling="mean",
        num_seeds=2,
        labels={
            "digit": probe_results.ProbedLabel(
                classes=("0", "1"),
                num_train=8,
                tests={
                    "test": probe_results.Tested(
                        **_TESTED,
                        features={
                            "latents": probe_results.FeatureAccuracy(linear=_SPREAD, neighbours=0.5)
                        },
                    )
                },
            )
        },
    ),
    comparison_results.Comparison(
        recipes={"autoencoder": "configs/autoencoder.py:tiny"},
        changes={"autoencoder": ("num_steps=600",)},
        num_steps={"autoencoder": 600},
        seeds=(0, 1),
        heldout="f" * 64,
        num_examples=48,
        measures={"latents/rms": comparison_results.Measure(group="latents", title="rms")},
        arms=(
            comparison_results.Arm(
                name="norm only",
                recipe="configs/semantic_autoencoder.py:losatok_tiny",
                semantic_encoder="published weights, dasheng",
                changes=("bottleneck.perturb=False",),
                figures={"latents/rms": probe_results.Spread(mean=1.0, std=0.5, values=[0.5, 1.5])},
            ),
        ),
    ),
    probe_results.Stability(
        workdirs=("a", "b"),
        autoencoders=("1", "2"),
        shards="DIR/train",
        test_shards="DIR/test",
        num_frames=100,
        seeds=(0, 1),
        num_codebooks=4,
        codebook_size=64,
        arms={"whitened": ("rq.normalization=whiten",)},
        rows=(
            probe_results.StableLabels(
                name="whitened", kept={"1 ms": _SPREAD}, by_chance=_SPREAD, in_use=_SPREAD
            ),
        ),
    ),
    results.Sweep(
        workdir="s",
        recipe="configs/autoencoder.py:tiny",
        metric="eval/mel",
        goal="minimize",
        rows=(
            results.SweptRun(
                name="gamma-1_0", changes=("gamma=1",), state="running", step=3, num_steps=9
            ),
        ),
    ),
    probe_results.Ablation(
        exclude=(),
        only=(),
        pooling="mean",
        num_seeds=2,
        num_steps=10,
        seeds=(0, 1),
        arms={"full": (), "without RQ-MTP": ("rq.weight=0.0",)},
        labels={
            "digit": probe_results.ProbedLabel(
                tests={
                    "test": probe_results.Tested(
                        **_TESTED,
                        rows=(
                            probe_results.ArmAccuracy(
                                name="full", title="full", linear=_SPREAD, neighbours=_SPREAD
                            ),
                        ),
                    )
                }
            )
        },
        transcripts={
            "test": probe_results.TranscribedSet(
                num_examples=3,
                rows=(probe_results.ArmErrors(name="full", characters=_SPREAD, words=_SPREAD),),
            )
        },
    ),
    results.Transcripts(
        num_examples=1,
        characters=0.5,
        words=1.0,
        examples=(results.Transcript(key="a", reference="one", hypothesis="on"),),
    ),
    results.Benchmark(
        name="codec",
        machine={"cores": 2},
        tables={
            "encode": (
                results.Timing(
                    name="f3tok jax",
                    amount=10.0,
                    unit="audio_seconds",
                    seconds=(0.9, 1.0, 1.2),
                    best=0.8,
                    times_the_first=(1.0, 1.0, 1.0),
                ),
            )
        },
    ),
    results.Cost(topology="v5e:4x4", fits=True, figures={"flops": 1e12, "modules": {"a": {}}}),
    results.Cost(topology="v5e:4x4", fits=False, error="too large", figures={}),
)


@pytest.mark.parametrize("result", _ALL, ids=lambda one: one.FORMAT)
def test_what_was_written_comes_back(tmp_path, result):
    path = tmp_path / "new" / "results.json"
    results.write(path, result)
    assert results.read(path) == result
    assert json.loads(path.read_text())["format"] == type(result).FORMAT


@pytest.mark.parametrize("result", _ALL, ids=lambda one: one.FORMAT)
def test_no_flipped_bit_changes_what_is_read(tmp_path, result):
    path = tmp_path / "results.json"
    results.write(path, result)

    def read() -> results.Result:
        found = results.read(path)
        if isinstance(found, results.Cost):  # "seal" by another name is a figure as any.
            figures = {name: found.figures[name] for name in result.figures}
            found = dataclasses.replace(found, figures=figures)
        return found

    # A space may become a tab, "seal" another name.
    assert seals.count_refusals(path, read, stride=5) > 0.9


def test_a_changed_number_is_refused_by_name(tmp_path):
    path = tmp_path / "results.json"
    results.write(path, _ALL[2])
    path.write_text(path.read_text().replace("2.718", "2.717"))
    with pytest.raises(ValueError, match="results.json must have the seal that it was written"):
        results.read(path)


def test_what_earlier_versions_wrote_is_read(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(typed_json.write(_ALL[0])))
    assert results.read(path) == _ALL[0]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(ValueError, match="results.json cannot be read: it is not a file"):
        results.read(tmp_path / "results.json")


def test_every_kind_is_tried():
    assert {type(one) for one in _ALL} == set(results.KINDS.values())


def test_the_keys_on_disk_are_those_that_scripts_know(tmp_path):
    generation, cost = typed_json.write(_ALL[1]), typed_json.write(_ALL[-2])
    assert generation["judge"] == {"shards": "DIR", "label": "digit"}
    assert generation["rows"] == [{"name": "a", "title": "a", "judge_accuracy": 0.5}]
    assert generation["listen"] == [{"key": "a", "files": {"original": "listen/a.wav"}}]
    assert cost["flops"] == 1e12 and "figures" not in cost and "error" not in cost
    score = typed_json.write(_ALL[0])["rows"][0]["metrics"]["stoi"]
    assert score["mean"] is None and score["standard_error"] is None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_leaves_the_old_file(tmp_path, number):
    path = tmp_path / "results.json"
    results.write(path, _ALL[2])
    with pytest.raises(ValueError):
        results.write(path, results.LanguageModel(step=4, num_records=2, loss=number, perplexity=1))
    assert results.read(path) == _ALL[2] and list(tmp_path.iterdir()) == [path]


def _changed(**changes) -> str:
    return json.dumps(typed_json.write(_ALL[2]) | changes)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "results.json cannot be read: Expecting value"),
        ("[1]", "results.json cannot be read: it is not a JSON object"),
        ("[" * 100_000, "results.json cannot be read: "),
        ("{}", 'results.json has no results: its "format" must be one of'),
        (_changed(format=["f3tok"]), 'its "format" must be one of'),
        (_changed(format="f3tok shard set 1"), 'its "format" must be one of'),
        (
            _changed(format="f3tok language model 2"),
            "is 'f3tok language model 2', this version reads 'f3tok language model 1': update",
        ),
        (_changed(step="4"), "is damaged: step must be a whole number, got '4'"),
        (_changed(step=4.5), "is damaged: step must be a whole number, got 4.5"),
        (_changed(step=True), "is damaged: step must be a whole number, got True"),
        (_changed(loss=float("nan")), "is damaged: loss must be a finite number, got nan"),
        (_changed(loss=10**400), "is damaged: loss must be a finite number, got 1000"),
        (_changed(loss=None), "is damaged: loss must be a finite number, got None"),
        (_changed(workdir=5), "is damaged: workdir must be a text, got 5"),
        ('{"format": "f3tok language model 1"}', "is damaged: step is missing"),
        (
            json.dumps(typed_json.write(_ALL[0]) | {"rows": [{"name": 3}]}),
            "is damaged: rows[0].name must be a text, got 3",
        ),
        (
            json.dumps(typed_json.write(_ALL[0]) | {"metrics": {"stoi": []}}),
            "is damaged: metrics.stoi must be an object, got []",
        ),
    ],
)
def test_what_is_damaged_foreign_or_newer_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        results.read(path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_absent_and_oversized_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="there is no absent.json"):
        results.read(tmp_path / "absent.json")
    results.write(tmp_path / "results.json", _ALL[2])
    monkeypatch.setattr(typed_json, "_MAX_BYTES", 10)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        results.read(tmp_path / "results.json")


def test_unknown_keys_are_left_out_and_later_fields_have_defaults(tmp_path):
    path = tmp_path / "results.json"
    content = typed_json.write(_ALL[2]) | {"new": 1}
    del content["workdir"], content["shards"]
    path.write_text(json.dumps(content))
    assert results.read(path) == _ALL[2]
