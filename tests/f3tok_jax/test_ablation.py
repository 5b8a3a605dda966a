# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The ablation: its arms, that finished runs are left alone, its table, and what is refused."""

import json
import pathlib
import types

import numpy as np
import pytest

from f3tok_jax import ablation
from f3tok_jax.evaluation import transcription
from f3tok_jax.inference import codec
from f3tok_jax.probing import ablation as ablation_lib
from f3tok_jax.probing import arms as arms_lib
from f3tok_jax.reporting import tables
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib
from f3tok_jax.sweeping import finishing
from f3tok_jax.sweeping import job
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_RECIPE = str(pathlib.Path(__file__).parents[2] / "configs" / "representation.py") + ":tiny"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(sounds.labelled_set(tmp_path_factory.mktemp("sound"), num_files=12))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Other sounds, to be tested."""
    return str(sounds.labelled_set(tmp_path_factory.mktemp("others"), num_files=6, first=12))


@pytest.fixture(scope="module")
def overrides(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("frozen")
    tiny_models.write_run(folder / "autoencoder")
    return tiny_models.overrides(
        num_steps=4,
        autoencoder=dict(workdir=folder / "autoencoder"),
        language_model=dict(folder=tiny_models.write_language_model(folder)),
        model=tiny_models.SHAPE,
        rq=dict(num_codebooks=2, codebook_size=8, num_heads=2, statistics_frames=400),
        supervision=dict(
            max_tokens=32,
            tasks=dict(digit=1.0, transcription=0.0, caption=0.0, language=0.0)
            | dict(instrument=0.0, event=0.0),
        ),
        data=dict(train=shards, batch_size=8, crop_frames=10),
        optimizer=dict(encoder=dict(warmup_steps=1)),
        loop=dict(log_every=1),
    )


def _encode(self, waveforms, **options):
    """In place of the autoencoder, which takes long to compile: frames of log magnitudes."""
    padded = [np.pad(w, (0, -len(w) % 640)).reshape(-1, 640) for w in waveforms]
    return [np.abs(np.fft.rfft(w))[:, 4:12].astype(np.float32) for w in padded]


def _ended(code: int) -> types.SimpleNamespace:
    """A process that has ended."""
    return types.SimpleNamespace(poll=lambda: code, pid=1)


@pytest.fixture
def trained(monkeypatch):
    """Runs that are done at once, with random weights; what was asked for."""
    commands = []

    def run(command, workdir, environment):
        assert command[1:3] == ["-m", "f3tok_jax.train"] and environment["PYTHONPATH"]
        commands.append(command[3:])
        recipe, *overrides, given = command[3:]
        assert given == f"--workdir={workdir}"
        _write_run(config_lib.read(recipe.removeprefix("--config="), overrides), workdir)
        return _ended(0)

    monkeypatch.setattr(job, "start", run)
    return commands


def _write_run(config, workdir: str) -> None:
    tiny_runs.write(config, workdir, step=config.num_steps)
    run_folder.mark_done(workdir, config.num_steps)


def _plan(overrides, tmp_path, **changes):
    arguments = dict(seeds=(0, 1), workdir=str(tmp_path / "runs")) | changes
    arguments.setdefault("arms", arms_lib.named(["losses"]))
    return ablation_lib.plan(_RECIPE, overrides, **arguments)


def _train(runs):
    finishing.finish(runs, str(pathlib.Path(runs[0].workdir).parent), say=print)


def test_arms_differ_in_their_losses_alone(overrides, tmp_path):
    runs = _plan(overrides, tmp_path)
    assert [run.name for run in runs] == [
        *("full_0", "full_1", "without_rq_mtp_0", "without_rq_mtp_1"),
        *("without_language_model_0", "without_language_model_1"),
    ]
    flat = {run.name: config_lib.flatten(run.config) for run in runs}

    def differing(first, second):
        return {key for key in flat[first] if flat[first][key] != flat[second][key]}

    assert differing("full_0", "full_1") == {"seed"}
    assert differing("full_0", "without_rq_mtp_0") == {
        "rq.weight",
        "optimizer.encoder.modules.projector.start",
    }
    assert differing("full_1", "without_language_model_1") == {"supervision.weight"}
    assert flat["full_1"]["seed"] == 1 and flat["full_1"]["num_steps"] == 4


def test_targets_differ_in_what_is_quantized_alone(overrides, tmp_path):
    runs = _plan(overrides, tmp_path, arms=arms_lib.named(["targets"]), seeds=(0,))
    assert [run.name for run in runs] == [
        *("whitened_0", "leading_0", "standardised_0"),
        *("log_mel_standardised_0", "log_mel_whitened_0", "log_mel_leading_0"),
    ]
    flat = [config_lib.flatten(run.config) for run in runs]
    differing = {key for one in flat for key in one if one[key] != flat[0][key]}
    assert differing == {"rq.target", "rq.normalization"}
    kinds = {(one["rq.target"], one["rq.normalization"]) for one in flat}
    assert len(kinds) == 6 and {one["supervision.weight"] for one in flat} == {0.0}
    chosen = arms_lib.named(["leading", "full", "targets"])
    assert [arm.name for arm in chosen[:3]] == ["leading", "full", "whitened"]


@pytest.mark.slow
def test_the_program_trains_every_arm_once_and_writes_a_table(
    overrides, shards, others, trained, tmp_path, capsys, monkeypatch
):
    def transcribe(workdir, folder, *, moved, num_examples, say):
        assert moved == {}
        rate = len(pathlib.PurePath(workdir).name) / 100
        return results_lib.Transcripts(
            num_examples=num_examples - 1, characters=rate, words=0.5, examples=()
        )

    monkeypatch.setattr(transcription, "evaluate", transcribe)
    monkeypatch.setattr(codec.Codec, "encode", _encode)
    output = tmp_path / "ablation.json"
    arguments = [
        *(f"--config={_RECIPE}", *overrides, f"--workdir={tmp_path / 'runs'}", "--seeds=0"),
        *(f"--shards={shards}", f"--test_shards=again={others}", "--label=speaker"),
        *("--num_seeds=2", "--pooling=mean,mean_std", f"--output={output}"),
        *(f"--transcribe=test={shards}", "--num_transcripts=4"),
        "--config.supervision.tasks.transcription=0.5",
    ]
    assert ablation.main(arguments) == 0
    assert [command[-1].rsplit("/")[-1] for command in trained] == [
        *("full_0", "without_rq_mtp_0", "without_language_model_0")
    ]
    results = json.loads(output.read_text())
    assert results["format"] == probe_results.Ablation.FORMAT and list(results["labels"]) == [
        "speaker"
    ]
    test = results["labels"]["speaker"]["tests"]["again"]
    losses = arms_lib.named(["losses"])
    names = ["log_mel", "mfcc", "latents", *(arm.name for arm in losses)]
    names = [f"{name}:{how}" for name in names for how in ("mean", "mean_std")]
    assert [row["name"] for row in test["rows"]] == names
    assert {np.shape(row["linear"]["values"]) for row in test["rows"]} == {(1, 1)}
    assert {np.shape(row["shuffled"]["values"]) for row in test["rows"]} == {(1, 2)}
    # Other weights, other accuracies; the arm without a language model transcribes nothing.
    heard = results["transcripts"]["test"]
    assert heard["num_examples"] == 3
    assert {row["name"]: row["characters"]["mean"] for row in heard["rows"]} == {
        "full": 0.06,
        "without RQ-MTP": 0.16,
    }
    rows = [name for _, rows in tables.columns(results_lib.read(output)) for name in rows]
    own = [probe_results.COMMONEST, probe_results.SHUFFLED]
    assert list(dict.fromkeys(rows)) == [*own, *names]
    said = capsys.readouterr().out
    assert "raw latents" in said and "without RQ-MTP" in said and "neighbours mean_std" in said
    assert "labels shuffled mean " in said and "chance 0.500, ± " in said
    # The same command again leaves the runs alone.
    overrides = [*overrides, "--config.supervision.tasks.transcription=0.5"]
    _train(_plan(overrides, tmp_path, seeds=(0,)))
    assert len(trained) == 3


def test_runs_whose_autoencoder_moved_are_probed_where_it_lies_now(
    overrides, shards, others, trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(codec.Codec, "encode", _encode)
    old, new = tmp_path / "old=1", tmp_path / "new=1"
    tiny_models.write_run(old)
    overrides = [*overrides, f"--config.autoencoder.workdir={old}"]
    arguments = [
        *(f"--config={_RECIPE}", *overrides, f"--workdir={tmp_path / 'runs'}"),
        *(f"--shards={shards}", f"--test_shards=again={others}", "--label=speaker"),
        *("--num_seeds=1", f"--output={tmp_path / 'a.json'}"),
    ]
    _train(_plan(overrides, tmp_path, seeds=[0]))
    old.rename(new)
    assert ablation.main(arguments) == 1
    assert f"{old} must be the work folder of a run" in capsys.readouterr().err
    assert ablation.main([*arguments, f"--map={old}={new}"]) == 0
    (tmp_path / "runs" / "full_0" / "DONE").unlink()
    commands = []
    monkeypatch.setattr(job, "start", lambda given, *_, **__: commands.append(given) or _ended(3))
    assert ablation.main([*arguments, f"--map={old}={new}"]) == 3
    assert commands[0][-1] == f"--map={old}={new}"


def test_values_of_all_seeds_are_in_one_row(overrides, tmp_path):
    runs = _plan(overrides, tmp_path)

    def found(first, second, neighbours):
        linear = probe_results.Spread(mean=0.0, std=0.0, values=[first, second])
        return probe_results.FeatureAccuracy(linear=linear, neighbours=neighbours)

    features = {run.name: found(0.5, 0.5, 0.5) for run in runs}
    features |= {"latents": found(0.2, 0.4, 0.1), "full_0": found(0.6, 0.8, 0.5)}
    features["full_1"] = found(0.8, 1.0, 0.7)
    test = probe_results.Tested(num_examples=10, num_unseen=0, majority=0.1, features=features)
    measured = probe_results.ProbedLabel(classes=["a", "b"], tests={"test": test})
    summary = ablation_lib.summarize(measured, runs)
    latents, full, *others = summary.tests["test"].rows
    assert (latents.title, full.title, len(others)) == ("raw latents", "full", 2)
    assert full.linear.values == [[0.6, 0.8], [0.8, 1.0]]
    assert full.linear.mean == pytest.approx(0.8)
    assert full.linear.std == pytest.approx(np.std([0.6, 0.8, 0.8, 1.0]))
    assert full.neighbours.mean == pytest.approx(0.6)
    assert latents.linear.mean == pytest.approx(0.3)
    assert summary.classes == ["a", "b"] and summary.tests["test"].num_examples == 10


def test_groups_that_are_left_out_are_spread_over_and_not_runs(overrides, tmp_path):
    runs = _plan(overrides, tmp_path)

    def found(*values):
        linear = probe_results.Spread(mean=float(np.mean(values)), std=0.0, values=values)
        return probe_results.FeatureAccuracy(linear=linear)

    def tested(first, second, groups=None):
        features = {"full_0:mean": found(first), "full_1:mean": found(second)}
        counts = dict(num_examples=10, num_unseen=0, majority=0.1)
        return probe_results.Tested(**counts, features=features, groups=groups)

    groups = {"ada": tested(0.2, 0.4), "bob": tested(0.8, 0.6)}
    both = probe_results.Tested(
        num_examples=20,
        num_unseen=0,
        majority=0.1,
        features={"full_0:mean": found([0.2], [0.8]), "full_1:mean": found([0.4], [0.6])},
        groups=groups,
    )
    measured = probe_results.ProbedLabel(classes=["a", "b"], tests={"test": both})
    test = ablation_lib.summarize(measured, runs).tests["test"]
    (row,) = test.rows
    assert (row.name, row.title) == ("full:mean", "full, mean") and row.neighbours is None
    assert row.linear.mean == pytest.approx(0.5)
    assert row.linear.std == pytest.approx(np.std([0.3, 0.7]))
    assert [one.rows[0].linear.mean for one in test.groups.values()] == pytest.approx([0.3, 0.7])


def test_an_arm_of_ones_own_changes_the_full_one(overrides, tmp_path):
    arm = arms_lib.parse("two layers: model.num_layers=2 rq.num_heads=3")
    *_, run = _plan(overrides, tmp_path, arms=(*arms_lib.named(["losses"]), arm))
    assert run.name == "two_layers_1"
    assert (run.config.model.num_layers, run.config.rq.num_heads) == (2, 3)
    for text in ("two layers", ": a=1", "two: layers", "a: seed=3", "a: autoencoder.workdir=b"):
        with pytest.raises(ValueError, match="--arm"):
            arms_lib.parse(text)


def test_a_run_that_stops_stops_the_program_with_its_code(
    overrides, shards, others, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(job, "start", lambda *_, **__: _ended(42))
    assert ablation.main(_arguments(overrides, shards, others, tmp_path)) == 42
    assert "full_0 was told to leave: run the same command again" in capsys.readouterr().err


def _arguments(overrides, shards, others, tmp_path) -> list[str]:
    return [
        *(f"--config={_RECIPE}", *overrides, f"--workdir={tmp_path / 'runs'}", "--seeds=0"),
        *(f"--shards={shards}", f"--test_shards=all={others}", "--label=digit"),
        f"--output={tmp_path / 'ablation.json'}",
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        ("--seeds=0,0", "--seeds must be different numbers, got [0, 0]"),
        ("--seeds=one", "--seeds must be whole numbers with commas between, got 'one'"),
        ("--config.seed=3", "--seeds says which seeds are trained"),
        ("--config.rq.weight=0.0", "the full arm must have both losses"),
        ("--config.rq.wieght=0.0", "did you mean --config.rq.weight?"),
        ("--arms=target", "--arms must be of full, without RQ-MTP, without language model, whit"),
        ("--arms=target.py", "there is no file 'target.py'"),
        ("--arms=targets,leading", "arms must have different names"),
        ("--arm=log_mel: rq.target=log_mel", "--arm must have a name of its own, got that of a"),
        ("--arm=full: rq.weight=0.5", "arms must have different names"),
        ("--test_shards=DIR", "--test_shards must be NAME=DIR[,NAME=DIR]"),
        ("--test_shards=a=/nowhere", "/nowhere is not a finished shard set"),
        ("--label=digit,colour", "the label 'colour' must have at least two values"),
        ("--label=", "--label must name a label"),
        ("--only=digit", "--only must be label=value, got 'digit'"),
        ("--test_shards=again=SHARDS", "whose source is among those learnt from"),
        ("--group=room", "--group=room must be a label of every record"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_training(
    change, message, overrides, shards, others, trained, tmp_path, capsys
):
    change = change.replace("SHARDS", shards)
    assert ablation.main([*_arguments(overrides, shards, others, tmp_path), change]) == 1
    error = capsys.readouterr().err
    assert error.startswith("f3tok_jax.ablation: ") and error.count("\n") == 1 and message in error
    assert not trained


def test_a_folder_with_a_run_of_another_config_is_refused(overrides, trained, tmp_path):
    (run, *_) = _plan(overrides, tmp_path, seeds=(0,))
    _write_run(run.config, run.workdir)
    with pytest.raises(ValueError, match="full_0 holds a run of another config: model.width"):
        _plan([*overrides, "--config.model.width=32"], tmp_path, seeds=(0,))
    with pytest.raises(ValueError, match="must have config.num_steps=3 steps, got 4 in .*full_0"):
        _plan([*overrides, "--config.num_steps=3"], tmp_path, seeds=(0,))


def test_an_arm_that_is_done_is_held_to_data_that_lies_elsewhere(overrides, trained, tmp_path):
    (run, *_) = _plan(overrides, tmp_path, seeds=(0,))
    _train([run])
    assert len(trained) == 1
    (again, *_) = _plan([*overrides, "--config.data.train=/other"], tmp_path, seeds=(0,))
    _train([again])
    assert len(trained) == 2 and "--config.data.train=/other" in trained[-1]


def test_transcripts_of_arms_that_transcribe_nothing_are_refused(
    overrides, shards, others, trained, tmp_path, capsys
):
    arguments = [
        *_arguments(overrides, shards, others, tmp_path),
        "--arms=targets",
        f"--transcribe=a={shards}",
    ]
    assert ablation.main(arguments) == 1
    assert "--transcribe needs an arm that is trained to transcribe" in capsys.readouterr().err
    assert not trained
