# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluation program on a tiny untrained model and a few seconds of sound."""

import contextlib
import io
import json
import types

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from data_pipelines.reading import sources
from data_pipelines.reading import staged
from data_pipelines.records import sound as sound_records
from f3tok_jax import evaluate
from f3tok_jax import export
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import generation as generation_evaluation
from f3tok_jax.evaluation import metrics
from f3tok_jax.evaluation import opus
from f3tok_jax.evaluation import reconstruction as reconstruction_evaluation
from f3tok_jax.evaluation import scores
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import places as places_lib
from f3tok_jax.runs import results as results_lib
from tests.support import judges
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs
from tests.support import tiny_semantic


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return str(sounds.shard_set(tmp_path_factory.mktemp("shards"), num_files=6))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, shards) -> str:
    """A run folder with one checkpoint of random weights, and a newer one that is damaged."""
    folder = str(tmp_path_factory.mktemp("run"))
    tiny_models.write_run(folder, train=shards)
    tiny_models.add_damaged_step(folder)
    return folder


@pytest.fixture(scope="module")
def said() -> io.StringIO:
    """What the evaluation of `run` printed."""
    return io.StringIO()


@pytest.fixture(scope="module")
def run(tmp_path_factory, workdir, shards, said):
    """Evaluates once; the JSON's path."""
    output = tmp_path_factory.mktemp("results") / "results.json"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        # Only one of the packages seems to be there: the others must be said to be absent.
        installed = metrics.importlib.util.find_spec
        patch.setattr(
            metrics.importlib.util,
            "find_spec",
            lambda name: installed(name) if name == "pystoi" else None,
        )
        patch.setattr(panel, "JUDGES", {one.name: one for one in (judges.Loudness, judges.Absent)})
        code = evaluate.main(
            [
                f"--workdir={workdir}",
                f"--shards={shards}",
                f"--output={output}",
                "--num_examples=5",
                "--batch_size=3",
                "--listen=2",
                "--judge_examples=3",
                "--levels=-40,0",
            ]
        )
    assert code == 0
    return output


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_evaluated(run, said):
    assert json.loads(run.read_text())["step"] == 3
    assert "checkpoint of step 5 is refused" in said.getvalue()
    assert "step 3" in said.getvalue().splitlines()[-1]


def test_an_exported_autoencoder_is_measured_as_its_run_was(workdir, shards, tmp_path, capsys):
    folder, output = tmp_path / "export", tmp_path / "results.json"
    assert export.main([f"--workdir={workdir}", f"--output={folder}", "--without=modules"]) == 0
    arguments = [f"--workdir={folder}", f"--shards={shards}", "--num_examples=2", "--judges=none"]
    assert evaluate.main([*arguments, f"--output={output}"]) == 1
    assert "which was exported, does not say what it was trained on" in capsys.readouterr().err
    arguments += [f"--fit_shards={shards}", "--listen=0", "--visqol_examples=0"]
    found = []
    for place in (workdir, folder):
        arguments[0] = f"--workdir={place}"
        assert evaluate.main([*arguments, f"--output={output}"]) == 0
        rows = {row["name"]: row["metrics"] for row in json.loads(output.read_text())["rows"]}
        found.append(rows["model"]["mel_distance"]["mean"])
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_semantic_autoencoder_says_through_whose_encoder_it_hears(tmp_path, shards, capsys):
    tiny_semantic.write_encoder(tmp_path / "semantic_encoder")
    workdir, output = str(tmp_path / "run"), tmp_path / "results.json"
    named = (*tiny_semantic.named("dasheng_tokenizer", tmp_path), f"data.train={shards}")
    tiny_runs.write(tiny_semantic.read("dasheng_tokenizer", *named), workdir)
    few = ["--num_examples=2", "--listen=0", "--judges=none", "--visqol_examples=0"]
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={output}"]
    assert evaluate.main([*arguments, *few]) == 0
    found = results_lib.read(output)
    assert found.semantic_encoder == "trained by this project, 3 steps"
    assert "semantic encoder: trained by this project, 3 steps" in capsys.readouterr().out
    assert found.flops_per_second.decode > found.flops_per_second.encode > 0
    assert len(found.latents.spectrum) == found.latents.dim == tiny_semantic.WIDTH


def test_a_stage_that_a_run_has_not_is_refused(workdir, shards, tmp_path, capsys):
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={tmp_path / 'r.json'}"]
    assert evaluate.main([*arguments, "--stage=generation"]) == 1
    assert (
        "must be a run of the generation stage, got stage 'autoencoder'" in capsys.readouterr().err
    )


def test_what_was_heard_in_training_is_said(run, workdir, shards, said):
    words = f"{shards} is not held out from {workdir}: this is what {shards} holds, on which it was trained"
    assert words in said.getvalue()


def test_table_has_every_row_and_column(run):
    results = json.loads(run.read_text())
    assert [row["name"] for row in results["rows"]] == [
        "model",
        "model_alpha_0.25",
        "model_alpha_0.5",
        "model_alpha_1",
        "model_peak_-40",
        "model_peak_0",
        "pca",
        "mel_griffin_lim",
        *([] if opus.missing() else ["opus_6", "opus_12", "opus_24"]),
    ]
    assert set(results["metrics"]) == set(metrics.METRICS)
    for row in results["rows"]:
        for name in set(metrics.METRICS) - set(results["missing"]):
            cell = row["metrics"][name]
            assert cell["count"] + sum(cell["undefined"].values()) == 5
            assert (cell["mean"] is None) == (cell["count"] == 0)
    assert results["step"] == 3 and results["num_examples"] == 5 and results["unreadable"] == []
    assert results["config"]["model"]["latent_dim"] == 8


def test_absent_packages_are_in_the_results(run):
    results = json.loads(run.read_text())
    assert set(results["missing"]) == {"pesq", "visqol"} | (
        {"stoi", "estoi"} if "stoi" in metrics.missing() else set()
    ) | ({"opus"} if opus.missing() else set())
    assert ".[eval]" in results["missing"]["pesq"]


def test_judges_hear_recordings_and_every_row(run, said):
    results = json.loads(run.read_text())
    judged, names = results["judged"], [row["name"] for row in results["rows"]]
    assert [row["name"] for row in judged["rows"]] == ["recording", *names]
    assert judged["num_examples"] == 3 and set(judged["judges"]) == {"loudness"}
    assert judged["judges"]["loudness"]["version"] == np.__version__
    for row in judged["rows"]:
        assert row["metrics"]["loudness/peak"]["count"] == 3
        assert ("loudness/distance" in row["metrics"]) == (row["name"] != "recording")
    assert set(judged["absent"]) == {"absent"}
    assert "absent judges: absent (no no-such-package" in said.getvalue().splitlines()[-3]


def test_latents_are_measured(run):
    latents = json.loads(run.read_text())["latents"]
    assert latents["dim"] == len(latents["channel_mean"]) == len(latents["channel_rms"]) == 8
    assert latents["rate"] == 25.0
    # The bottleneck holds every frame at rms 1.
    assert latents["rms"] == pytest.approx(1.0, abs=1e-3)
    assert 0.0 <= latents["effective_rank"] <= 8.0


def test_what_silence_becomes_is_measured(run, said):
    silence = json.loads(run.read_text())["silence_db"]
    assert silence >= -200 and f"silence comes out at {silence:.0f} dBFS" in said.getvalue()


def test_spectra_of_every_row_are_compared_with_the_originals(run):
    results = json.loads(run.read_text())
    distances = results["spectral_frechet_distance"]
    assert set(distances) == {row["name"] for row in results["rows"]}
    # Griffin-Lim keeps the spectrum; an untrained model does not.
    assert 0.0 < distances["mel_griffin_lim"] < distances["model"]


def test_sounds_are_beside_the_results(run):
    results = json.loads(run.read_text())
    assert len(results["listen"]) == 2
    for entry in results["listen"]:
        assert set(entry["files"]) == {"original", *(row["name"] for row in results["rows"])}
        lengths = set()
        for path in entry["files"].values():
            waveform, sample_rate = soundfile.read(run.parent / path)
            lengths.add(len(waveform))
            assert sample_rate == 16_000
        assert len(lengths) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--shards={other_rate}"], "hold sound at 24000 Hz, the model needs 16000 Hz"),
        (["--shards={nowhere}"], "is not a finished shard set"),
        (["--workdir={nowhere}"], "nowhere"),
        (["--fit_shards={other_rate}"], "hold sound at 24000 Hz, the model needs 16000 Hz"),
        (["--step=4"], "step 4"),
        (["--step=5"], "no checkpoint asked for"),
        (["--batch_size=0"], "--batch_size must be at least 1, got 0"),
        (["--levels=-20,3"], "--levels must be dBFS of a peak, -120 to 0, got 3"),
        (["--judges=nobody"], "--judges must be all, none or some of pocketsphinx"),
        (["--seed=1", "--steps=4,8"], "--seed, --num_steps cannot be given for"),
        (["--renormalize=perhaps"], "must be values with commas between, got 'perhaps'"),
        (["--output={nowhere}/run/r.json", "--output=/dev/null/r.json"], "/dev/null"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    workdir, shards, tmp_path, capsys, changes, message
):
    places = {"nowhere": tmp_path / "nowhere", "other_rate": tmp_path / "other"}
    if "other_rate" in changes[0]:
        places["other_rate"] = sounds.shard_set(
            places["other_rate"], num_files=2, sample_rate=24_000
        )
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={tmp_path / 'r.json'}"]
    assert evaluate.main(arguments + [change.format(**places) for change in changes]) == 1
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not (tmp_path / "r.json").exists()


def test_a_stage_that_nothing_measures_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"stage": "fifth"}')
    arguments = [f"--workdir={tmp_path}", "--shards=DIR", f"--output={tmp_path / 'r.json'}"]
    assert evaluate.main(arguments) == 1
    said = capsys.readouterr().err
    measured = "autoencoder, language_model, representation, generation, diffusion_transformer"
    assert f"{measured}, got" in said
    assert f"{tmp_path} of the stage 'fifth': its losses on held-out data are in" in said
    assert said.count("\n") == 1


def test_values_of_the_sampler_are_combined(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text('{"stage": "generation"}')
    seen = {}

    def measure(workdir, shards, output, *, classifier_label="", changes=({},), say):
        seen.update(changes=changes, label=classifier_label)
        return types.SimpleNamespace(step=3)

    monkeypatch.setattr(generation_evaluation, "evaluate", measure)
    monkeypatch.setattr(generation_evaluation, "format_table", lambda results: "")
    arguments = [f"--workdir={tmp_path}", "--shards=DIR", f"--output={tmp_path / 'r.json'}"]
    more = ["--guidance=1,2", "--steps=4", "--renormalize=true", "--judge_label=digit"]
    assert evaluate.main([*arguments, *more]) == 0
    assert seen["label"] == "digit"
    assert seen["changes"] == [
        {"guidance": 1.0, "num_steps": 4, "renormalize": True},
        {"guidance": 2.0, "num_steps": 4, "renormalize": True},
    ]


def test_training_data_that_is_gone_is_named(workdir, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(staged, "is_set", lambda name: name != shards)
    arguments = [f"--workdir={workdir}", f"--shards={shards}", f"--output={tmp_path / 'r.json'}"]
    assert evaluate.main(arguments) == 1
    assert "give --fit_shards=DIR" in capsys.readouterr().err


def test_unreadable_records_are_counted_and_said():
    class Shards:
        name = "SET"

        def __len__(self):
            return 4

        def is_whole(self, record):
            return True

        def __getitem__(self, index):
            if index == 1:
                raise sources.Unreadable("record 1 of SET cannot be read")
            return sound_records.Record(
                key=str(index), waveform=np.full(8, 16384, np.int16), sample_rate=16_000
            )

    examples, unreadable = examples_lib.read_examples(Shards(), 0)
    assert [example.key for example in examples] == ["0", "2", "3"]
    assert unreadable == ["record 1 of SET cannot be read"]
    assert examples[0].waveform[0] == 0.5
    assert [example.key for example in examples_lib.read_examples(Shards(), 2)[0]] == ["0", "2"]


class EvaluatedTones(tfds.core.GeneratorBasedBuilder):
    """Four tones at the model's rate, of two pitches."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        audio = tfds.features.Tensor(shape=(None,), dtype=np.int16)
        metadata = tfds.core.MetadataDict(sample_rate=16_000)
        features = tfds.features.FeaturesDict({"audio": audio})
        return tfds.core.DatasetInfo(builder=self, features=features, metadata=metadata)

    def _split_generators(self, download_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for index in range(4):
            tone = sounds.tone(1.0, hertz=300.0 * (1 + index % 2))
            yield str(index), {"audio": (tone * 32767).astype(np.int16)}


def test_tfds_names_take_the_place_of_shards(workdir, tmp_path, monkeypatch):
    EvaluatedTones(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    name = f"tfds:{tmp_path}/evaluated_tones@test#audio"
    coded = []

    def score(rows, examples, **others):  # the model is not what is tested here
        coded.extend(next(row for row in rows if row.name == "pca").reconstruct(examples))
        table = [scores.Scores().scored(row.name, row.title, figures=()) for row in rows]
        return dict(latents={}, rows=table, spectral_frechet_distance={})

    monkeypatch.setattr(reconstruction_evaluation, "score", score)
    results = reconstruction_evaluation.evaluate(
        workdir,
        name,
        tmp_path / "results.json",
        fit_shards=name,
        judges=panel.Choice(names=["none"]),
        say=lambda message: None,
    )
    assert results.num_examples == 4 and results.seconds == 4.0
    assert results.shards.path == name and results.shards.seconds == 4.0
    assert results.shards.num_records == 4 and results.shards.sample_rate == 16_000
    # Two tones need four components, and the model's width is eight: the PCA codes all of it.
    tones = [sounds.tone(1.0, hertz=hertz) for hertz in (300.0, 600.0)]  # TFDS changes the order
    errors = [min(np.abs(sound - tone).max() for tone in tones) for sound in coded]
    assert len(errors) == 4 and max(errors) < 1e-3


def test_tfds_training_data_is_no_folder_that_is_gone(workdir):
    config = config_lib.load(workdir)
    config.data.train = "tfds:speech@train#audio"
    found = reconstruction_evaluation._training_data(config, workdir, places_lib.Places())
    assert found == config.data.train
