# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Clips of a report: which takes stand side by side, in which order, and on which scale."""

import pathlib

import numpy as np
import pytest
import soundfile

from f3tok_jax.reporting import charts
from f3tok_jax.reporting import sounds
from f3tok_jax.runs import history
from tests.support import reported_runs


def _runs(tmp_path, *names, **options) -> list[history.RunHistory]:
    folders = [reported_runs.write_autoencoder(tmp_path / name, **options) for name in names]
    return history.read_all(folders)


def _replace(run: history.RunHistory, take: str, waveform: np.ndarray, rate: int = 16_000) -> None:
    soundfile.write(run.folder / "listen" / "results" / f"0000_{take}.wav", waveform, rate)


def test_takes_stand_in_the_order_in_which_one_listens(tmp_path):
    (clip,) = sounds.heldout(_runs(tmp_path, "a"))
    assert clip.title == "digit <7>" and not clip.missing
    titles = ["original", "reconstruction", "pca", "mel griffin lim"]
    noisy = ["model alpha 0.5", "model alpha 1"]
    assert [take.title for take in clip.takes] == titles + noisy
    assert [take.is_noisy for take in clip.takes] == [False] * 4 + [True] * 2


def test_reconstructions_of_several_runs_share_a_clip(tmp_path):
    runs = _runs(tmp_path, "a", "b")
    other = reported_runs.write_representation(tmp_path / "c", 0.8)
    (clip,) = sounds.heldout([*runs, history.read(pathlib.Path(other), name="c")])
    titles = [take.title for take in clip.takes]
    assert titles[:4] == ["original", "reconstruction: a", "reconstruction: b", "pca"]
    assert len(titles) == 1 + 2 * 3 + 2


def test_all_takes_of_a_clip_have_one_scale(tmp_path, monkeypatch):
    (run,) = _runs(tmp_path, "a")
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    _replace(run, "original", 0.01 * tone)
    _replace(run, "model", 0.5 * tone[:8000])
    _replace(run, "pca", 0.1 * tone[::2], 8000)
    tops = []
    monkeypatch.setattr(charts, "spectrogram", lambda levels, top: tops.append((levels.max(), top)))
    original, model, pca, *_ = sounds.heldout([run])[0].takes
    levels, (top, *others) = zip(*tops)
    assert set(others) == {top} and top == max(levels) == levels[1]
    assert model.level - original.level == pytest.approx(20 * np.log10(50), abs=0.02)
    assert original.level == pytest.approx(-43.0, abs=0.1)
    assert (original.width, model.width, pca.width) == (1.0, 0.5, 1.0)
    # 4 kHz is not half of the way to 8 kHz, but all but an octave of it.
    assert original.height == 1.0 and 0.7 < pca.height < 0.85


@pytest.mark.parametrize("seconds", [1 / 16_000, 0.003, 0.25, 1.0, 4.3, 8.0])
def test_axes_are_marked_in_seconds_and_kilohertz(tmp_path, seconds):
    (run,) = _runs(tmp_path, "a")
    for take in ("original", "model", "pca", "mel_griffin_lim", "model_alpha_0.5", "model_alpha_1"):
        _replace(run, take, np.zeros(round(16_000 * seconds)))
    clip = sounds.heldout([run])[0]
    assert clip.times[0] == (0.0, "0") and len(clip.times) <= 10
    for tick in clip.times:
        assert float(tick.text) == pytest.approx(tick.place * seconds) and 0 <= tick.place <= 1
    assert [tick.text for tick in clip.pitches] == ["0.5", "1", "2", "4", "8"]
    places = [tick.place for tick in clip.pitches]
    assert places == sorted(places) and places[-1] == 1.0


def test_what_cannot_be_heard_is_said_and_the_rest_is_heard(tmp_path):
    (run,) = _runs(tmp_path, "a")
    (run.folder / "listen" / "results" / "0000_original.wav").write_bytes(b"RIFF")
    (clip,) = sounds.heldout([run])
    assert clip.takes[0].title == "reconstruction" and len(clip.takes) == 5
    (why,) = clip.missing
    assert why.startswith("original: 0000_original.wav cannot be read")
