# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is read of a run folder: curves with a value per step, and sounds that lie inside."""

import numpy as np
import pytest
import soundfile

from f3tok_jax.runs import history


def test_a_repeated_step_counts_the_second_time(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "train/mel": 3.0}\n{"step": 2, "train/mel": 9.0}\n'
        '{"step": 2, "train/mel": 2.0}\n'
    )
    curve = history.read(tmp_path, name="run").curves["train/mel"]
    assert curve == history.Curve((1.0, 2.0), (3.0, 2.0))


def test_the_start_of_a_sound_is_read_as_one_channel(tmp_path):
    waveform = np.linspace(-0.5, 0.5, 8000)[:, None] * [1.0, 0.5]
    soundfile.write(tmp_path / "a.flac", waveform, 8000)
    read, rate = history.read_sound(tmp_path / "a.flac", root=tmp_path, seconds=0.5)
    assert rate == 8000 and read.shape == (4000,)
    np.testing.assert_allclose(read, waveform[:4000].mean(axis=1), atol=1 / 32768)  # 16 bits


def test_what_is_not_finite_or_beyond_full_scale_is_limited(tmp_path):
    waveform = np.array([np.nan, np.inf, 3.0, -3.0, 0.25])
    soundfile.write(tmp_path / "a.wav", waveform, 8000, subtype="FLOAT")
    read, _ = history.read_sound(tmp_path / "a.wav", root=tmp_path, seconds=1.0)
    np.testing.assert_array_equal(read, [0.0, 1.0, 1.0, -1.0, 0.25])


def test_sounds_that_cannot_be_shown_are_one_sentence(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    soundfile.write(tmp_path / "secret.wav", np.zeros(9), 8000)
    (root / "link.wav").symlink_to(tmp_path / "secret.wav")
    soundfile.write(root / "fast.wav", np.zeros(9), 2**30)
    soundfile.write(root / "empty.wav", np.zeros(0), 8000)
    (root / "text.wav").write_text("no sound")
    for name, message in (
        ("../secret.wav", "leads out of"),
        ("link.wav", "leads out of"),
        ("fast.wav", "has a sample rate of 1073741824 Hz"),
        ("empty.wav", "empty.wav is empty"),
        ("text.wav", "text.wav cannot be read"),
        ("absent.wav", "absent.wav cannot be read"),
        ("a\0b.wav", "null"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            history.read_sound(root / name, root=root, seconds=1.0)
        assert "\n" not in str(error.value)
