# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run whose reports find no disk: it trains, saves and leaves as it would, and says what it lost."""

import dataclasses
import errno
import threading
import time
import types

import jax
import pytest

from f3tok_jax.devices import slices
from f3tok_jax.runs import appended_file
from f3tok_jax.runs import event_file
from f3tok_jax.runs import metric_writer
from f3tok_jax.runs import saved_states
from f3tok_jax.runs import summed_folder
from f3tok_jax.training import progress
from f3tok_jax.training import reports
from f3tok_jax.training import session
from tests.support import heeding
from tests.support import metrics
from tests.support import toy_run


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


def _train(shards, workdir, *more: str) -> int:
    config = toy_run.make_config(shards, "--config.loop.sample_every=4", *more)
    return session.run(config, str(workdir), stage=toy_run.STAGE, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """Fingerprints of the last state of an undisturbed run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert _train(shards, workdir) == session.EXIT_DONE
    return saved_states.read_meta(str(workdir), 12)["fingerprints"]


def _said_lost(said: str) -> dict[str, int]:
    """What was lost -> how many."""
    lines = [
        line.partition(" were lost: ")[0] for line in said.splitlines() if " were lost" in line
    ]
    return {what: int(count) for count, _, what in (line.partition(" ") for line in lines)}


@pytest.mark.reliability("R08")
def test_reports_without_room_are_counted_and_the_run_is_the_same(
    shards, whole, tmp_path, monkeypatch, capsys
):
    def full(self, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    for kind, method in (
        (appended_file.AppendedFile, "append"),
        (appended_file.AppendedFile, "replace"),
        (summed_folder.SummedFolder, "write"),
    ):
        monkeypatch.setattr(kind, method, full)
    assert _train(shards, tmp_path) == session.EXIT_DONE
    assert saved_states.read_meta(str(tmp_path), 12)["fingerprints"] == whole
    said = capsys.readouterr().out
    # Twelve steps and three evaluations; the points of each in TensorBoard, of 24 sounds two.
    assert _said_lost(said) == {
        "lines of metrics.jsonl": 15,
        "sounds of samples/": 24,
        "TensorBoard events": 15 + 48,
    }
    assert said.count("lines of metrics.jsonl are being lost: ") == 1
    assert said.count("No space left on device") == 1 + 3 + 3


@pytest.mark.reliability("R08", "R02")
def test_a_run_whose_reports_stand_still_trains_and_leaves_when_told(
    shards, whole, tmp_path, monkeypatch, capsys
):
    free, line = threading.Event(), progress.Progress.line
    monkeypatch.setattr(metric_writer, "_SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(metric_writer, "_CLOSE_SECONDS", 0.2)

    def line_and_leave(self, step, values):
        if step == 9:
            told.append(time.monotonic())
            heeding.tell_self()
        return line(self, step, values)

    told = []
    with monkeypatch.context() as patch:
        still = lambda self, *arguments, **options: free.wait(300) and None
        for method in ("append", "replace"):
            patch.setattr(appended_file.AppendedFile, method, still)
        patch.setattr(event_file.EventFile, "add", still)
        patch.setattr(progress.Progress, "line", line_and_leave)
        assert _train(shards, tmp_path) == session.EXIT_PREEMPTED
        assert time.monotonic() - told[0] < 20
        free.set()
    lost = _said_lost(capsys.readouterr().out)
    assert lost["lines of metrics.jsonl"] == 12 and not (tmp_path / "metrics.jsonl").exists()
    assert _train(shards, tmp_path) == session.EXIT_DONE
    assert saved_states.read_meta(str(tmp_path), 12)["fingerprints"] == whole
    assert [line["step"] for line in metrics.read(tmp_path) if "train/error" in line] == [11, 12]


def test_nothing_that_lies_in_the_place_of_reports_stops_a_run(shards, whole, tmp_path, capsys):
    for name in ("metrics.jsonl", "logs/stacks_0000.txt", "samples/00000012/0_reference.wav"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "logs" / "nonfinite.jsonl").symlink_to("/nowhere/at/all")
    (tmp_path / "samples" / "00000008").write_text("no folder")
    assert _train(shards, tmp_path) == session.EXIT_DONE
    assert saved_states.read_meta(str(tmp_path), 12)["fingerprints"] == whole
    assert len(metrics.read(tmp_path)) == 15
    said = capsys.readouterr().out
    assert "metrics.jsonl is begun anew, beside metrics.jsonl.0" in said
    assert _said_lost(said) == {"sounds of samples/": 9}


@pytest.mark.parametrize("byte", [b"\xff", b"\0", b"\n"])
def test_a_byte_in_metrics_never_stops_a_run_that_is_resumed(shards, tmp_path, byte, capsys):
    assert _train(shards, tmp_path, "--config.num_steps=4") == session.EXIT_DONE
    path = tmp_path / "metrics.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:50] + byte + data[51:])
    capsys.readouterr()
    assert _train(shards, tmp_path, "--config.num_steps=8") == session.EXIT_DONE
    assert "of metrics.jsonl were not whole, and are left out" in capsys.readouterr().out
    steps = [line["step"] for line in metrics.read(tmp_path) if "train/error" in line]
    assert steps == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_chip_whose_peak_is_known_tells_the_share_that_was_used(
    shards, tmp_path, monkeypatch, is_counted
):
    # Two devices that have 4 TFLOP/s together, and need 2 GFLOP for a step.
    chip = types.SimpleNamespace(peak_flops=2e12)
    monkeypatch.setattr(slices, "chip_of", lambda device_kind: chip)
    flags = ("--config.num_steps=4", "--config.data.heldout=")

    def make(config, run=None):
        own = 2e9 if is_counted else 0.0
        return dataclasses.replace(toy_run.make_stage(config, run), model_flops=own)

    options = dict(stage=dataclasses.replace(toy_run.STAGE, make=make))
    options["reports"] = reports.Reports(price=3.0)
    assert toy_run.train(shards, tmp_path, *flags, **options) == session.EXIT_DONE
    lines = metrics.read(tmp_path)
    assert len(lines) == 4 and all(("time/mfu" in line) == is_counted for line in lines)
    if is_counted:
        # A step per line: the share is that of the step's own time.
        for line in lines:
            assert line["time/mfu"] == pytest.approx(5e-4 / line["time/step_seconds"])
