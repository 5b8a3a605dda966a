# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A generation run from the training program to a sound file, on an untrained chain of models."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import soundfile

from f3tok_jax import benchmark
from f3tok_jax import cli
from f3tok_jax import evaluate
from f3tok_jax import export
from f3tok_jax import train
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.inference import latent_shards
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import pins
from f3tok_jax.runs import places as places_lib
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from tests.support import judges
from tests.support import run_checks
from tests.support import seals
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
_RECIPE = f"{_CONFIGS}/generation.py:tiny"
_SMALL = tiny_models.overrides(model=tiny_models.SHAPE)
_NO_EVALUATION = "--config.data.heldout="  # a program less to compile
_TASKS = ("transcription", "caption", "language", "instrument", "event")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Labelled sound and its latents, and an autoencoder, a language model and a representation run
    of random weights."""
    root = tmp_path_factory.mktemp("generation")
    shards = sounds.labelled_set(root / "sound", num_files=8)
    tiny_models.write_run(root / "autoencoder", train=str(shards))
    latents = root / "latents"
    latent_shards.encode_shards(str(root / "autoencoder"), shards, latents, say=lambda line: None)
    model = tiny_models.write_language_model(root / "text")
    config = config_lib.read(
        f"{_CONFIGS}/representation.py:tiny",
        [
            *_SMALL,
            f"--config.autoencoder.workdir={root / 'autoencoder'}",
            f"--config.language_model.folder={model}",
            "--config.supervision.tasks.digit=1.0",
        ],
    )
    tiny_runs.write(config, str(root / "representation"))
    names = ("autoencoder", "representation")
    return {name: str(root / name) for name in names} | {
        "shards": str(shards),
        "latents": str(latents),
    }


def _flags(folders, *more: str) -> list[str]:
    return [
        *_SMALL,
        f"--config.representation.workdir={folders['representation']}",
        "--config.data.latents=True",
        f"--config.data.train={folders['latents']}",
        f"--config.data.heldout={folders['latents']}",
        "--config.num_steps=6",
        "--config.data.batch_size=8",
        "--config.data.crop_frames=25",
        "--config.data.max_lost=1.0",
        "--config.packing.examples=1",
        "--config.packing.patches=0",
        "--config.packing.positions=0",
        "--config.sampling.num_steps=2",
        "--config.text.max_tokens=24",
        *(f"--config.text.tasks.{name}=0.0" for name in _TASKS),
        "--config.text.tasks.digit=1.0",
        "--config.optimizer.head.warmup_steps=2",
        # A run of any length is the same program.
        "--config.optimizer.head.schedule=constant",
        "--config.mesh.min_shard_size=64",
        "--config.checkpoint.every_steps=3",
        "--config.loop.log_every=1",
        "--config.loop.eval_every=6",
        *more,
    ]


def _config(folders, *more: str):
    return config_lib.read(_RECIPE, _flags(folders, *more))


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory) -> str:
    """A run of six steps on one device."""
    workdir = str(tmp_path_factory.mktemp("run"))
    assert (
        run_checks.train(_config(folders), workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    )
    return workdir


def _losses(workdir) -> list[float]:
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [values["train/flow_loss"] for values in found if "train/flow_loss" in values]


@pytest.mark.slow
def test_the_language_model_is_trained_after_the_head(folders, run, tmp_path, capsys):
    config = _config(
        folders,
        _NO_EVALUATION,
        f"--config.init_from.workdir={run}",
        "--config.language_model.train=low_rank",
        "--config.optimizer.language_model.warmup_steps=2",
        "--config.num_steps=3",
    )
    workdir = str(tmp_path / "whole")
    assert run_checks.train(config, workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    printed = capsys.readouterr().out
    assert f"head from step 6 of {run}" in printed
    assert f"language_model from scratch: {run} did not train it" in printed
    # The same batch and draws, and a fresh difference is zero: the average head of six steps alone.
    assert _losses(workdir)[0] < _losses(run)[0]


@pytest.mark.slow  # a minute: one more stage of training
def test_the_encoder_is_trained_after_the_head_and_makes_the_sound(folders, run, tmp_path, capsys):
    config = _config(
        folders,
        _NO_EVALUATION,
        f"--config.init_from.workdir={run}",
        "--config.representation.train=encoder",
        "--config.optimizer.encoder.warmup_steps=2",
        "--config.optimizer.encoder.schedule=constant",
    )
    workdir = str(tmp_path / "task")
    assert run_checks.train(config, workdir, devices=jax.devices()[:1]) == session.EXIT_DONE
    assert f"encoder from scratch: {run} did not train it" in capsys.readouterr().out
    # The same batch and draws, and a fresh difference is zero: the average head of six steps alone.
    assert _losses(workdir)[0] < _losses(run)[0]
    task = lineage.Lineage.read(workdir)
    task.check(language_model=True)
    prints = saved_states.read_meta(workdir)["fingerprints"]
    assert any(path.startswith("ema_params/encoder/encoder/") for path in prints)
    _, moved, _ = pretrained_generation.load(task)
    _, given, _ = pretrained_generation.load(lineage.Lineage.read(run))
    for name in ("encoder", "projector"):
        gaps = jax.tree.map(lambda a, b: float(abs(a - b).max()), moved[name], given[name])
        assert max(jax.tree.leaves(gaps)) > 0, name
    jax.tree.map(np.testing.assert_array_equal, moved["language_model"], given["language_model"])
    run_checks.check_that_it_resumes_bit_equal(workdir, config, tmp_path / "resumed")
    output = tmp_path / "out.wav"
    flags = ["--text=seven", f"--output={output}", "--max_seconds=0.4", "--seed=1"]
    assert cli.main(["generate", f"--model={workdir}", *flags]) == 0
    assert soundfile.info(output).frames > 0


def test_a_resumed_run_ends_bit_equal(run, folders, tmp_path):
    run_checks.check_that_it_resumes_bit_equal(run, _config(folders), tmp_path / "resumed")


@pytest.mark.slow
def test_eight_devices_see_the_losses_of_one(run, folders, tmp_path):
    config = _config(folders, _NO_EVALUATION)
    assert run_checks.train(config, str(tmp_path), devices=jax.devices()) == session.EXIT_DONE
    # float32 sums in another order.
    np.testing.assert_allclose(_losses(tmp_path), _losses(run), rtol=1e-4)


def test_text_becomes_a_sound_file(run, tmp_path, capsys):
    output = tmp_path / "out.wav"
    arguments = [f"--model={run}", "--text=three", f"--output={output}", "--max_seconds=0.5"]
    assert cli.main(["generate", *arguments]) == 0
    whole, rate = soundfile.read(output)
    assert rate == 16_000 and 0 < len(whole) <= 8960  # 7 patches of 0.08 s
    assert f"{len(whole) / rate:.2f} s at 16000 Hz" in capsys.readouterr().out
    assert cli.main(["generate", *arguments, "--stream", "--force"]) == 0
    streamed, _ = soundfile.read(output)
    np.testing.assert_array_equal(streamed, whole)


def test_a_recording_is_continued_without_text(run, tmp_path):
    prompt, output = tmp_path / "prompt.wav", tmp_path / "out.flac"
    soundfile.write(prompt, 0.1 * np.random.default_rng(0).normal(size=6000), 22_050)
    arguments = [f"--model={run}", f"--prompt={prompt}", f"--output={output}"]
    assert cli.main(["generate", *arguments, "--max_seconds=0.3"]) == 0
    assert soundfile.info(output).frames > 0


def test_the_window_decides_where_more_is_asked_for(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("f3tok_jax.inference.generate._ROOM", 8)
    arguments = [f"--model={run}", "--text=three", f"--output={tmp_path / 'out.wav'}"]
    assert cli.main(["generate", *arguments, "--max_seconds=1000"]) == 0
    # 256 positions, less 24 for text and one for the start: 231 patches of 0.08 s.
    assert "at most 18.48 s will be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--text="], "text must say something"),
        (["--text=a", "--max_seconds=0"], "seconds of sound must be above 0, got 0"),
        (["--text=a", "--max_seconds=-1"], "seconds of sound must be above 0, got -1"),
        (["--text=a", "--guidance=-0.5"], "guidance must be at least 0"),
        (["--text=a", "--steps=0"], "sampling steps must be at least 1"),
        (["--text=a", "--task=caption"], "task must be one of digit"),
        (["--text=" + "a" * 40], "more than max_tokens=24"),
        (["--text=a", "--prompt=/nowhere.wav"], "nowhere.wav"),
        (["--text=a", "--model={autoencoder}"], "must be a run of the generation stage"),
    ],
)
def test_what_cannot_be_generated_is_one_sentence(
    run, folders, tmp_path, capsys, arguments, message
):
    output = tmp_path / "out.wav"
    arguments = [argument.format(**folders) for argument in arguments]
    assert cli.main(["generate", f"--model={run}", f"--output={output}", *arguments]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and not list(tmp_path.iterdir())


def test_another_representation_run_is_refused(run, folders, tmp_path, capsys):
    folder, other = tmp_path / "run", tmp_path / "representation"
    shutil.copytree(run, folder)
    config = config_lib.load(folders["representation"])
    config.seed = 1
    tiny_runs.write(config, str(other))
    seals.replace(folder / "frozen.json", _fingerprint(run), "5eed")
    metadata = folder / "checkpoints" / "6" / "meta" / "metadata"
    seals.change(metadata, files=run_folder.digests(str(folder)))
    arguments = [f"--model={folder}", "--text=a", f"--output={tmp_path / 'out.wav'}"]
    assert cli.main(["generate", *arguments]) == 1
    assert "was trained on representation 5eed, got" in capsys.readouterr().err


def _fingerprint(run: str) -> str:
    return run_folder.frozen(run)["fingerprints"]["representation"]


def test_generated_sound_is_measured(run, folders, tmp_path, capsys):
    output = tmp_path / "results.json"
    arguments = [f"--workdir={run}", f"--shards={folders['shards']}", f"--output={output}"]
    code = evaluate.main(
        [*arguments, "--num_examples=3", "--guidance=1,2", "--listen=1", "--transcribe"]
        + ["--judges=none"]
    )
    assert code == 0, capsys.readouterr().err
    results = json.loads(output.read_text())
    titles = [row["title"] for row in results["rows"]]
    assert titles == [
        "recording",
        "reconstruction",
        "patches after true ones",
        "generated, guidance 1.0",
        "generated, guidance 2.0",
    ]
    assert all(row["character_error_rate"] >= 0 for row in results["rows"])
    for row in results["rows"][3:]:
        assert 0 <= row["never_stopped"] <= 1 and row["frechet_distance"] > 0
    files = results["listen"][0]["files"]
    assert set(files) == {"original", *(row["name"] for row in results["rows"][1:])}
    assert all((tmp_path / path).is_file() for path in files.values())


@pytest.mark.slow  # evaluation/test_zero_shot.py stands for it
def test_speech_after_prompts_is_measured(run, folders, tmp_path, capsys, monkeypatch):
    output = tmp_path / "results.json"
    arguments = [f"--workdir={run}", f"--shards={folders['shards']}", f"--output={output}"]
    monkeypatch.setattr(panel, "JUDGES", {one.name: one for one in (judges.Loudness, judges.Voice)})
    code = evaluate.main([*arguments, "--num_examples=2", "--zero_shot", "--listen=1"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    results = json.loads(output.read_text())
    assert results["zero_shot"]["words"].startswith("none: whether the right words")
    assert len(results["zero_shot"]["prompts"]) == results["num_examples"] == 2
    assert all(one != other for one, other in results["zero_shot"]["prompts"].items())
    rows = {row["name"]: row for row in results["rows"]}
    assert {"recording", "reconstruction", "generated_0"} <= set(rows)
    assert all(-1 <= row["speaker_similarity"] <= 1 for row in rows.values())
    assert 0 <= rows["generated_0"]["never_stopped"] <= 1
    judged = {row["name"]: row["metrics"] for row in results["judged"]["rows"]}
    assert judged.keys() == rows.keys() - {"others"}
    assert all("voice/distance" in metrics for metrics in judged.values())  # to the prompts
    assert "loudness/distance" in judged["reconstruction"].keys() - judged["generated_0"].keys()
    assert all(metrics["voice/words"]["count"] == 2 for metrics in judged.values())
    assert "each after a prompt of its speaker; words: none" in printed.out


def test_texts_and_noise_are_exchanged(run, folders, tmp_path, capsys):
    output = tmp_path / "results.json"
    arguments = [f"--workdir={run}", f"--shards={folders['shards']}", f"--output={output}"]
    arguments += ["--text_sensitivity", "--judges=none"]
    assert evaluate.main([*arguments, "--zero_shot"]) == 1
    assert "--text_sensitivity is of texts without prompts" in capsys.readouterr().err
    assert evaluate.main([*arguments, "--num_examples=3", "--listen=0"]) == 0
    assert "text / noise" in capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    made = rows["generated_0"]
    assert made["distance_other_seed"] > 0 and made["distance_other_text"] > 0
    ratio = made["distance_other_text"] / made["distance_other_seed"]
    assert made["text_sensitivity"] == pytest.approx(ratio)
    assert "text_sensitivity" not in rows["reconstruction"]


def test_a_classifier_needs_recordings_and_a_label(run, folders, tmp_path, capsys):
    arguments = [f"--workdir={run}", f"--shards={folders['shards']}", "--judge_label=digit"]
    assert evaluate.main([*arguments, f"--output={tmp_path / 'results.json'}"]) == 1
    assert "--classifier_shards and --classifier_label go together" in capsys.readouterr().err


def test_time_is_measured_by_length(run, tmp_path):
    output = tmp_path / "benchmark.json"
    arguments = [f"--workdir={run}", "--text=three", "--seconds=0.5,1", f"--output={output}"]
    assert benchmark.main(["generation", *arguments]) == 0
    first, whole = json.loads(output.read_text())["tables"].values()
    assert [row["amount"] for row in first] == [0, 0]
    assert [row["amount"] for row in whole] == [7 / 12.5, 13 / 12.5]
    assert all(row["best"] > 0 for row in [*first, *whole])


@pytest.fixture
def moved(run, folders, tmp_path) -> pathlib.Path:
    """Where the run and all that it was trained on lie now; where they were is nothing."""
    old = [pathlib.Path(run), _root(folders)]
    for path in old:
        shutil.copytree(path, tmp_path / "moved" / path.name)
    hidden = [path.rename(path.with_name(f"hidden_{path.name}")) for path in old]
    yield tmp_path / "moved"
    for path, place in zip(hidden, old):
        path.rename(place)


def _root(folders) -> pathlib.Path:
    return pathlib.Path(folders["representation"]).parent


def _train(config, workdir, **options) -> dict[str, str]:
    """Path -> fingerprint of each array, after the last step."""
    stage, devices = registry.of(config.stage), jax.devices()[:1]
    code = session.run(config, str(workdir), stage=stage, devices=devices, **options)
    assert code == session.EXIT_DONE
    return saved_states.read_meta(str(workdir), config.num_steps)["fingerprints"]


def test_a_lineage_that_moved_is_used_and_resumed(
    moved, run, folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    workdir = moved / pathlib.Path(run).name
    soundfile.write("sound.wav", 0.1 * np.random.default_rng(0).normal(size=8_000), 16_000)
    for arguments in (
        ["represent", "sound.wav", "sound.npz"],
        ["transcribe", "sound.wav", "--task=digit"],
        ["generate", "--text=three", "--output=out.wav", "--max_seconds=0.3"],
    ):
        assert cli.main([*arguments, f"--model={workdir}"]) == 0, capsys.readouterr().err
    assert pathlib.Path("sound.npz").is_file() and soundfile.info("out.wav").frames > 0
    # The command that began it, in which every place is one that is gone.
    command = [f"--config={_RECIPE}", *_flags(folders), f"--workdir={workdir}", "--print_config"]
    assert train.main(command) == 0, capsys.readouterr().err
    begins = [flag for flag in command if not flag.startswith("--workdir")]
    assert train.main(begins) == 1
    assert train.main([*begins, f"--map={_root(folders)}={moved / _root(folders).name}"]) == 0
    before = saved_states.read_meta(str(workdir), 6)["fingerprints"]
    shutil.rmtree(workdir / "checkpoints" / "6")
    new = moved / _root(folders).name
    places = places_lib.Places({str(_root(folders)): str(new)}, ())
    assert _train(_config(folders), workdir, places=places) == before


@pytest.mark.slow
def test_a_lineage_that_moved_is_extended_and_built_on_and_so_is_its_bundle(
    moved, run, folders, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    workdir, new = moved / pathlib.Path(run).name, moved / _root(folders).name
    there = {name: str(new / pathlib.Path(path).name) for name, path in folders.items()}
    # A run that begins on what moved is the one that began on what was there.
    before = saved_states.read_meta(str(workdir), 6)["fingerprints"]
    assert _train(_config(there), tmp_path / "begun") == before
    assert pins.of(there["representation"]) == pins.of(there["autoencoder"]) == {3}
    _train(_config(there, "--config.num_steps=7"), workdir)
    assert export.main([f"--workdir={workdir}", "--bundle", "--output=bundle"]) == 0
    shutil.move("bundle", "other")
    config, bundled = _config(there, "--config.num_steps=8"), "other/generation"
    assert _train(config, workdir) == _train(config, bundled)
    assert places_lib.kept(bundled) == {"representation": "../representation"}
    assert lineage.Lineage.read(bundled).ancestor("autoencoder").workdir == "other/autoencoder"
