# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl, sounds and TensorBoard events."""

import importlib
import json

import numpy as np
import pytest
import soundfile

from f3tok_jax.runs import metric_writer
from f3tok_jax.signal import spectra
from tests.support import metrics


def _silent(message: str) -> None:
    del message


def _writer(workdir, **kwargs) -> metric_writer.MetricWriter:
    return metric_writer.MetricWriter(str(workdir), **{"say": _silent, **kwargs})


def test_every_line_is_on_disk_at_once(tmp_path):
    writer = _writer(tmp_path)
    writer.write(1, {"train/loss": 2.5})
    assert metrics.read(tmp_path) == [{"step": 1, "train/loss": 2.5}]
    writer.write(2, {"train/loss": float("nan"), "eval/mel": float("inf")})
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
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1.0}
    assert not list(tmp_path.glob("events*"))


def test_a_disk_without_room_for_sounds_is_said_once(tmp_path):
    (tmp_path / "samples").write_text("no folder")
    said = []
    writer = _writer(tmp_path, say=said.append)
    for step in (1, 2):
        writer.write_sounds(step, {"reference": np.zeros((2, 800))}, sample_rate=8000)
        writer.write(step, {"loss": 1.0})
    writer.close()
    assert len(said) == 1 and "0_reference.wav is not written: " in said[0]
    assert len(metrics.read(tmp_path)) == 2


def test_the_spectrogram_shows_a_tone_where_it_is():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    image = metric_writer._spectrogram_image(tone, 8000)
    loudest = image.shape[0] - 1 - np.argmax(image[:, image.shape[1] // 2])
    filters = spectra.mel_filterbank(8000, 320, image.shape[0])
    assert filters[1000 // 25, loudest] > 0  # a bin is 25 Hz
    assert image.max() > 240  # a tone at full scale is nearly white
    assert metric_writer._spectrogram_image(0 * tone, 8000).max() == 0
