# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl, sounds and TensorBoard events."""

import errno
import importlib
import os
import pathlib
import threading
import time

import numpy as np
import pytest
import soundfile

from f3tok_jax.runs import appended_file
from f3tok_jax.runs import metric_writer
from f3tok_jax.runs import sealed_lines
from f3tok_jax.runs import summed_folder
from f3tok_jax.signal import spectra
from tests.support import disks
from tests.support import metrics


def _silent(message: str) -> None:
    del message


def _writer(workdir, **kwargs) -> metric_writer.MetricWriter:
    return metric_writer.MetricWriter(str(workdir), **{"say": _silent, **kwargs})


def test_every_line_is_on_disk_once_it_is_settled(tmp_path):
    writer = _writer(tmp_path)
    writer.write(1, {"train/loss": 2.5})
    writer.settle()
    assert metrics.read(tmp_path) == [{"step": 1, "train/loss": 2.5}]
    writer.write(2, {"train/loss": float("nan"), "eval/mel": float("inf")})
    writer.settle()
    assert metrics.read(tmp_path)[1] == {
        "step": 2,
        "train/loss": None,
        "eval/mel": None,
    }
    writer.close()
    writer.close()


def test_resume_drops_the_steps_that_are_taken_again_and_torn_lines(tmp_path):
    writer = _writer(tmp_path)
    for step in range(1, 6):
        writer.write(step, {"loss": float(step)})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    assert len(metrics.read(tmp_path)) == 5
    writer = _writer(tmp_path, resume_step=3)
    writer.write(4, {"loss": 40.0})
    writer.close()
    assert [line["loss"] for line in metrics.read(tmp_path)] == [
        1.0,
        2.0,
        3.0,
        40.0,
    ]
    # A fresh run in the same folder starts a fresh curve.
    _writer(tmp_path).close()
    assert metrics.read(tmp_path) == []


def test_other_processes_write_nothing(tmp_path):
    writer = _writer(tmp_path / "run", is_writer=False)
    writer.write(1, {"loss": 1.0})
    writer.write_sounds(1, {"reference": np.zeros((1, 8))}, sample_rate=8000)
    writer.flush()
    writer.close()
    assert not (tmp_path / "run").exists()


def test_sounds_are_cut_to_their_lengths_and_clipped(tmp_path):
    writer = _writer(tmp_path)
    waveforms = np.stack([np.full(800, 2.0), np.linspace(-1, 1, 800)]).astype(np.float32)
    writer.write_sounds(7, {"reference": waveforms}, sample_rate=8000, lengths=np.array([300, 800]))
    writer.close()
    first, rate = soundfile.read(tmp_path / "samples" / "00000007" / "0_reference.wav")
    assert rate == 8000 and first.shape == (300,) and first.max() <= 1.0
    second, _ = soundfile.read(tmp_path / "samples" / "00000007" / "1_reference.wav")
    np.testing.assert_allclose(second, waveforms[1], atol=1 / 32000)  # one step of PCM16


def test_tensorboard_has_scalars_sounds_and_spectrograms(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = _writer(tmp_path)
    writer.write(3, {"train/loss": 1.0})
    writer.write_sounds(3, {"reference": np.zeros((1, 4000), np.float32)}, sample_rate=8000)
    writer.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    data = events.read_bytes()
    for tag in (b"train/loss", b"samples/0_reference", b"samples/0_reference_spectrogram"):
        assert tag in data


def test_an_absent_tensorboard_is_said_once_and_metrics_are_written(tmp_path, monkeypatch):
    import_module = importlib.import_module

    def absent(name, *arguments):
        if name.startswith("tensorboardX"):
            raise ImportError("No module named 'tensorboardX'")
        return import_module(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", absent)
    said = []
    writer = _writer(tmp_path, say=said.append)
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert len(said) == 1 and ".[tensorboard]" in said[0]
    assert metrics.read(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert not list(tmp_path.glob("events*"))


def test_a_disk_without_room_for_sounds_is_said_once(tmp_path):
    (tmp_path / "samples").write_text("no folder")
    said = []
    writer = _writer(tmp_path, say=said.append)
    for step in (1, 2):
        writer.write_sounds(step, {"reference": np.zeros((2, 800))}, sample_rate=8000)
        writer.write(step, {"loss": 1.0})
    writer.close()
    assert len(said) == 2
    assert said[0].startswith("sounds of samples/ are being lost: ") and "Not a dir" in said[0]
    assert said[1].startswith("4 sounds of samples/ were lost: ")
    assert len(metrics.read(tmp_path)) == 2


def test_sounds_have_checksums_beside_them(tmp_path):
    writer = _writer(tmp_path)
    writer.write_sounds(7, {"reference": np.zeros((3, 800))}, sample_rate=8000)
    writer.close()
    paths = sorted((tmp_path / "samples" / "00000007").iterdir())
    assert [path.name for path in paths[3:]] == ["SHA256SUMS"]
    for path in paths[:3]:
        summed_folder.check(path)


def test_logs_are_appended_as_sealed_lines(tmp_path):
    for step in (1, 2):
        writer = _writer(tmp_path)
        writer.log("nonfinite.jsonl", {"step": step, "examples": ["a"]})
        writer.close()
    with open(tmp_path / "logs" / "nonfinite.jsonl", "rb") as file:
        assert [line.content["step"] for line in sealed_lines.read(file)] == [1, 2]


def _fill(path) -> None:
    writer = _writer(path)
    for step in range(1, 7):
        writer.write(step, {"loss": float(step)})
    writer.close()


@pytest.mark.parametrize(
    "damage, num_damaged",
    [
        (lambda data: data.replace(b'"step": 2', b'"step": \xff'), 1),
        (lambda data: data.replace(b'"loss": 3.0', b'"loss": 3.\0'), 1),
        (lambda data: data.replace(b'"loss": 3.0', b'"loss": 7.0'), 1),
        (lambda data: data[:50] + data[60:], 1),
        (lambda data: data.replace(b"\n", b"\x0b", 1), 1),
        (lambda data: b"\0" * 10_000_000 + b"\n" + data, 1),
        (lambda data: data + b'{"step": 5, "loss": 1', 1),
        (lambda data: b"\n\n" + data, 2),
    ],
)
def test_damaged_lines_never_stop_a_run_and_take_no_whole_ones_along(tmp_path, damage, num_damaged):
    _fill(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    whole = [line for line in metrics.read(tmp_path) if line["step"] <= 4]
    assert len(whole) >= 2
    said = []
    writer = _writer(tmp_path, resume_step=4, say=said.append)
    writer.write(5, {"loss": 50.0})
    writer.close()
    assert metrics.read(tmp_path) == [*whole, {"step": 5, "loss": 50.0}]
    assert said == [f"{num_damaged} lines of metrics.jsonl were not whole, and are left out"]


def test_no_flipped_bit_of_metrics_stops_a_run(tmp_path):
    _fill(tmp_path)
    path = tmp_path / "metrics.jsonl"
    whole, lines = path.read_bytes(), metrics.read(tmp_path)[:4]
    for bit in range(0, 8 * len(whole), 37):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        writer = _writer(tmp_path, resume_step=4)
        writer.write(5, {"loss": 5.0})
        writer.close()
        read = metrics.read(tmp_path)
        assert read[-1] == {"step": 5, "loss": 5.0} and len(read) >= 3
        assert all({name: line[name] for name in ("step", "loss")} in lines for line in read[:-1])


def _make_link(path) -> None:
    path.symlink_to(path.parent / "nowhere" / "else")


@pytest.mark.parametrize("make", [pathlib.Path.mkdir, os.mkfifo, _make_link])
def test_what_is_no_file_is_set_aside(tmp_path, make, monkeypatch):
    make(tmp_path / "metrics.jsonl")
    said = []
    writer = _writer(tmp_path, resume_step=4, say=said.append)
    writer.write(5, {"loss": 5.0})
    writer.close()
    assert metrics.read(tmp_path) == [{"step": 5, "loss": 5.0}]
    assert (tmp_path / "metrics.jsonl.0").exists() == bool(said)
    assert all("is begun anew, beside metrics.jsonl.0 that stood there" in line for line in said)


def test_what_may_not_be_read_is_kept(tmp_path, monkeypatch):
    _fill(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def locked(file):
        raise PermissionError(errno.EACCES, "Permission denied", "metrics.jsonl")

    monkeypatch.setattr(metric_writer.sealed_lines, "read", locked)
    said = []
    writer = _writer(tmp_path, resume_step=4, say=said.append)
    writer.write(5, {"loss": 5.0})
    writer.close()
    monkeypatch.undo()
    assert len(said) == 1 and "Permission denied" in said[0]
    assert (tmp_path / "metrics.jsonl.0").read_bytes() == before
    assert metrics.read(tmp_path) == [{"step": 5, "loss": 5.0}]


@pytest.mark.reliability("R08")
def test_a_disk_that_is_full_for_a_while_costs_what_is_counted(tmp_path):
    said = []
    writer = _writer(tmp_path, say=said.append)
    writer.write(1, {"loss": 1.0})
    writer.settle()
    with disks.room(60):  # a line and a piece of the next
        for step in (2, 3, 4):
            writer.write(step, {"loss": 1.0})
        writer.write_sounds(4, {"reference": np.zeros((2, 800))}, sample_rate=8000)
        writer.settle()
    writer.write(5, {"loss": 1.0})
    writer.close()
    assert [line["step"] for line in metrics.read(tmp_path)] == [1, 5]
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2
    assert not list((tmp_path / "samples").rglob("*.*"))
    assert {line.split(" are")[0] for line in said[:3]} == {
        *("lines of metrics.jsonl", "sounds of samples/", "TensorBoard events")
    }
    assert said[3].startswith("3 lines of metrics.jsonl were lost: ") and "too large" in said[3]
    assert len(said) == 6


@pytest.mark.reliability("R08")
def test_a_full_disk_does_not_keep_a_run_from_resuming(tmp_path):
    _fill(tmp_path)
    said = []
    with disks.room(10):
        writer = _writer(tmp_path, resume_step=4, say=said.append)
        writer.settle()
    writer.write(5, {"loss": 50.0})
    writer.close()
    assert [line["loss"] for line in metrics.read(tmp_path)] == [1, 2, 3, 4, 5, 6, 50]
    assert len(said) == 1 and "keeps the lines of steps that are taken again: " in said[0]


@pytest.mark.reliability("R08")
def test_a_disk_that_stands_still_holds_a_run_up_once_and_is_said(tmp_path, monkeypatch):
    free, said = threading.Event(), []
    monkeypatch.setattr(metric_writer, "_SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(metric_writer, "_CLOSE_SECONDS", 0.1)
    writer = _writer(tmp_path, say=said.append)
    writer.settle()
    monkeypatch.setattr(
        appended_file.AppendedFile, "append", lambda self, piece: free.wait(100) and None
    )
    started = time.monotonic()
    for step in range(300):
        writer.write(step, {"loss": 1.0})
        writer.write_sounds(step, {"reference": np.zeros((1, 80))}, sample_rate=8000)
        writer.log("nonfinite.jsonl", {"step": step})
        writer.flush()
        writer.settle()
    writer.close()
    assert time.monotonic() - started < 20
    free.set()
    assert "300 lines of metrics.jsonl were lost: their disk stands still" in said
    assert "300 lines of logs/nonfinite.jsonl were lost: their disk stands still" in said


def test_a_folder_that_vanishes_is_said_and_the_run_goes_on(tmp_path):
    said = []
    writer = _writer(tmp_path / "run", say=said.append)
    writer.write(1, {"loss": 1.0})
    writer.settle()
    (tmp_path / "run").rename(tmp_path / "gone")
    writer.write(2, {"loss": 1.0})
    writer.log("nonfinite.jsonl", {"step": 2})
    writer.close()
    assert [line["step"] for line in metrics.read(tmp_path / "gone")] == [1]
    assert not (tmp_path / "run").exists()
    assert any(line.startswith("1 lines of metrics.jsonl were lost: ") for line in said)


def test_what_is_no_json_is_lost_and_said(tmp_path):
    said = []
    writer = _writer(tmp_path, say=said.append)
    writer.write(1, {"loss": object()})
    writer.write(2, {"loss": 1.0})
    writer.close()
    assert [line["step"] for line in metrics.read(tmp_path)] == [2]
    assert said[0].startswith("lines of metrics.jsonl are being lost: Object of type object")


def test_the_spectrogram_shows_a_tone_where_it_is():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    image = metric_writer._spectrogram_image(tone, 8000)
    loudest = image.shape[0] - 1 - np.argmax(image[:, image.shape[1] // 2])
    filters = spectra.mel_filterbank(8000, 320, image.shape[0])
    assert filters[1000 // 25, loudest] > 0  # a bin is 25 Hz
    assert image.max() > 240  # a tone at full scale is nearly white
    assert metric_writer._spectrogram_image(0 * tone, 8000).max() == 0
