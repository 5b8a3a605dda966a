# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What happens between steps: leaving, evaluations, steps that are not finite, spikes."""

import json

import jax
import numpy as np
import pytest

from data_pipelines.reading import pipeline
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import saved_states
from f3tok_jax.training import session
from tests.support import heeding
from tests.support import metrics
from tests.support import sounds
from tests.support import toy_run

pytestmark = pytest.mark.usefixtures("cache")


def _call_at(monkeypatch, step: int, action, *, training: bool = True, count: int = 1) -> None:
    """Calls action(batch) once, when the batch of `step` is made for the `count`-th time."""
    local_batch = pipeline.Pipeline.local_batch
    calls = []

    def faulty(self, asked):
        batch = local_batch(self, asked)
        if self.options.train == training and asked == step:
            calls.append(asked)
            if len(calls) == count:
                action(batch)
        return batch

    monkeypatch.setattr(pipeline.Pipeline, "local_batch", faulty)


def test_leaving_and_resuming_is_bit_exact(shards, whole, tmp_path, monkeypatch):
    _call_at(monkeypatch, 9, lambda batch: heeding.tell_self())
    assert toy_run.train(shards, tmp_path) == session.EXIT_PREEMPTED
    left_at = saved_states.latest_step(str(tmp_path))
    assert 0 < left_at < 12 and not (tmp_path / "DONE").exists()
    assert toy_run.train(shards, tmp_path) == session.EXIT_DONE
    assert toy_run.fingerprints(tmp_path) == toy_run.fingerprints(whole)
    assert toy_run.losses(tmp_path) == toy_run.losses(whole)


def test_leaving_says_whether_it_has_saved(shards, tmp_path, monkeypatch, capsys):
    of = fingerprint.of
    _call_at(monkeypatch, 4, lambda batch: heeding.tell_self(), count=2)
    monkeypatch.setattr(fingerprint, "of", lambda tree: (of(tree)[0], ["params/kernel"]))
    assert toy_run.train(shards, tmp_path) == session.EXIT_PREEMPTED
    said = capsys.readouterr().out
    assert "could not be saved; run the same command again" in said and "saved step" not in said


@pytest.mark.reliability("R20")
def test_a_nonfinite_batch_is_skipped_counted_and_named(shards, tmp_path, monkeypatch, capsys):
    def spoil(batch):
        batch["waveform"][0, 0] = np.nan
        batch["mask"][0, 0] = True

    _call_at(monkeypatch, 5, spoil, count=2)  # the first time for the statistics
    assert toy_run.train(shards, tmp_path) == session.EXIT_DONE
    entry = json.loads((tmp_path / "logs" / "nonfinite.jsonl").read_text())
    assert entry["step"] == 6
    config = toy_run.make_config(shards)
    data = sounds.open_pipeline(
        shards,
        sample_rate=toy_run.SAMPLE_RATE,
        crop_length=1280,
        batch_size=8,
        seed=config.seed,
        gain_db=config.data.gain_db,
    )
    assert entry["examples"] == data.example_keys(5)
    lines = {line["step"]: line for line in metrics.read(tmp_path) if "train/nonfinite" in line}
    assert [lines[step]["train/nonfinite"] for step in (5, 6, 7)] == [0, 1, 0]
    assert "train/error" not in lines[6] and np.isfinite(lines[12]["train/error"])
    assert "step 6 was not finite" in capsys.readouterr().out


@pytest.mark.reliability("R20")
def test_too_many_nonfinite_steps_stop_the_run(shards, tmp_path, monkeypatch, capsys):
    local_batch = pipeline.Pipeline.local_batch

    def spoiled(self, step):
        batch = local_batch(self, step)
        return (
            batch
            if step < 5
            else {**batch, "waveform": batch["waveform"] * np.nan, "mask": batch["mask"] | True}
        )

    monkeypatch.setattr(pipeline.Pipeline, "local_batch", spoiled)
    assert (
        toy_run.train(shards, tmp_path, "--config.loop.max_nonfinite=2", "--config.data.heldout=")
        == session.EXIT_NONFINITE
    )
    assert (
        "3 steps were not finite, more than config.loop.max_nonfinite=2" in capsys.readouterr().out
    )
    assert saved_states.latest_step(str(tmp_path)) in (4, 8)


# The error rises from the first evaluation on, which is the best.
_RISING = (
    "--config.optimizer.generator.learning_rate=0.3",
    "--config.checkpoint.keep_last=1",
    "--config.loop.sample_every=4",
)


@pytest.fixture(scope="module")
def rising(shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("rising")
    assert toy_run.train(shards, workdir, *_RISING) == session.EXIT_DONE
    return workdir


def _left(workdir) -> dict:
    """All that a run leaves and time does not change."""
    times = ("time/", "memory/")
    return {
        "steps": sorted(path.name for path in (workdir / "checkpoints").iterdir()),
        "metrics": [
            {name: value for name, value in line.items() if not name.startswith(times)}
            for line in metrics.read(workdir)
        ],
        "samples": sorted(path.name for path in (workdir / "samples").iterdir()),
        "fingerprints": toy_run.fingerprints(workdir),
        "done": json.loads((workdir / "DONE").read_text()),
    }


@pytest.mark.reliability("R02", "R13")
@pytest.mark.parametrize("evaluation", [1, 3])
def test_an_interrupted_evaluation_is_taken_again(
    evaluation, shards, rising, tmp_path, monkeypatch, capsys
):
    _call_at(
        monkeypatch,
        1,
        lambda batch: heeding.tell_self(),
        training=False,
        count=evaluation,
    )
    assert toy_run.train(shards, tmp_path, *_RISING) == session.EXIT_PREEMPTED
    assert f"told to leave: saved step {4 * evaluation}" in capsys.readouterr().out
    assert not (tmp_path / "DONE").exists()
    assert toy_run.train(shards, tmp_path, *_RISING) == session.EXIT_DONE
    assert _left(tmp_path) == _left(rising) and _left(rising)["steps"] == ["12", "4"]


@pytest.mark.reliability("R20")
def test_the_budget_of_steps_that_are_not_finite_outlives_a_restart(
    shards, tmp_path, monkeypatch, capsys
):
    local_batch = pipeline.Pipeline.local_batch

    def spoiled(self, step):
        batch = local_batch(self, step)
        if self.options.train and step in (1, 2, 6):
            batch["waveform"] = np.full_like(batch["waveform"], np.nan)
            batch["mask"] = np.ones_like(batch["mask"])
        return batch

    monkeypatch.setattr(pipeline.Pipeline, "local_batch", spoiled)
    flags = ("--config.loop.max_nonfinite=2", "--config.data.heldout=")
    assert toy_run.train(shards, tmp_path, *flags, "--config.num_steps=4") == session.EXIT_DONE
    for _ in range(2):  # The same command again changes nothing.
        assert toy_run.train(shards, tmp_path, *flags) == session.EXIT_NONFINITE
        said = capsys.readouterr().out
        assert "step 7 was not finite and is skipped (3 so far)" in said
        assert "3 steps were not finite, more than config.loop.max_nonfinite=2" in said
    more = ("--config.loop.max_nonfinite=3", "--config.data.heldout=")
    assert toy_run.train(shards, tmp_path, *more) == session.EXIT_DONE
    assert saved_states.read_meta(str(tmp_path), 12)["seen"]["nonfinite"] == 3


@pytest.mark.reliability("R21")
def test_a_spike_is_named_with_its_examples_and_the_average_hardly_moves(
    shards, tmp_path, monkeypatch, capsys
):
    flags = (
        *("--config.num_steps=70", "--config.data.heldout=", "--config.loop.log_every=10"),
        *("--config.checkpoint.every_steps=70", "--config.loop.sample_every=70"),
    )
    well, ill = tmp_path / "well", tmp_path / "ill"
    assert toy_run.train(shards, well, *flags) == session.EXIT_DONE
    assert "warning" not in capsys.readouterr().out
    assert not (well / "logs" / "spikes.jsonl").exists()

    def spoil(batch):
        batch["waveform"] *= 1000.0

    _call_at(monkeypatch, 68, spoil)
    assert toy_run.train(shards, ill, *flags) == session.EXIT_DONE
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert said[0].startswith("warning: train/error of step 69 is ")
    assert said[0].endswith("and if it comes again lower the learning rate")
    entry = json.loads((ill / "logs" / "spikes.jsonl").read_text().splitlines()[0])
    assert entry["step"] == 69 and len(entry["examples"]) == 8
    spike = entry["spikes"]["train/error"]
    assert spike["value"] > 1e5 * spike["median"]
    # Clipped, two steps of Adam can move a weight by a few learning rates, its average by a tenth.
    averages = [_averages(shards, workdir) for workdir in (well, ill)]
    rate = toy_run.make_config(shards).optimizer.generator.learning_rate
    for leaf, other in zip(*map(jax.tree.leaves, averages)):
        assert np.max(np.abs(leaf - other)) < 2 * 0.1 * 3.2 * rate


def _averages(shards, workdir):
    abstract = jax.eval_shape(
        toy_run.make_stage(toy_run.make_config(shards)).init_state, jax.random.key(0)
    )
    return jax.device_get(saved_states.restore_params(str(workdir), abstract.ema_params)[0])
