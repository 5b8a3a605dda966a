# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is read of a run folder: curves with a value per step, and sounds that lie inside."""

import errno
import json

import numpy as np
import pytest
import soundfile

from data_pipelines.records import sealed
from data_pipelines.sound import audio_files
from f3tok_jax.runs import history
from f3tok_jax.runs import results
from f3tok_jax.runs import sealed_lines
from f3tok_jax.runs import summed_folder


def test_a_repeated_step_counts_the_second_time(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "train/mel": 3.0}\n{"step": 2, "train/mel": 9.0}\n'
        '{"step": 2, "train/mel": 2.0}\n'
    )
    curve = history.read(tmp_path, name="run").curves["train/mel"]
    assert curve == history.Curve((1.0, 2.0), (3.0, 2.0))


def test_a_line_that_is_not_as_it_was_written_is_left_out_and_said(tmp_path):
    lines = [sealed_lines.make({"step": step, "train/mel": 3.0}) for step in (1, 2, 3)]
    changed = lines[1].replace(b"3.0", b"2.0")
    (tmp_path / "metrics.jsonl").write_bytes(lines[0] + changed + lines[2])
    read = history.read(tmp_path, name="run")
    assert read.curves == {"train/mel": history.Curve((1.0, 3.0), (3.0, 3.0))}
    assert any(
        note.startswith("1 lines of metrics.jsonl are damaged or not") for note in read.notes
    )


def test_figures_of_a_model_that_lies_elsewhere_lack_nothing(tmp_path):
    empty = results.ClassifierSource(shards="", label="")
    options = dict(num_examples=0, classifier=empty, sampler={}, max_seconds=1.0, rows=(), texts={})
    for workdir, notes in ((tmp_path / "model", 0), (tmp_path, 2)):
        made = results.Generation(workdir=str(workdir), shards="", sounds=(), **options)
        results.write(tmp_path / "results.json", made)
        read = history.read(tmp_path, name="run")
        assert len(read.notes) == notes and read.results == {"results.json": made}


def test_metrics_that_may_not_be_read_are_a_note(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"num_steps": 3}')

    def locked(file):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sealed_lines, "read", locked)
    notes = history.read(tmp_path, name="run").notes
    assert "metrics.jsonl cannot be read: Permission denied." in notes


def test_a_sound_that_is_not_the_one_that_was_written_is_refused_by_name(tmp_path):
    folder = summed_folder.SummedFolder(tmp_path / "samples" / "00000001")
    folder.write("0_reference.wav", audio_files.wav(np.zeros(800), 8000))
    folder.close()
    path = tmp_path / "samples" / "00000001" / "0_reference.wav"
    history.read_sound(path, root=tmp_path, seconds=1.0)
    path.write_bytes(audio_files.wav(np.full(800, 0.1), 8000))
    with pytest.raises(ValueError, match="0_reference.wav is not as SHA256SUMS has it"):
        history.read_sound(path, root=tmp_path, seconds=1.0)


@pytest.mark.parametrize(
    "done, step, is_done", [(True, 4, True), (True, 3, False), (False, 4, False)]
)
def test_done_alone_is_not_believed(tmp_path, done, step, is_done):
    (tmp_path / "config.json").write_text('{"num_steps": 4}')
    (tmp_path / "metrics.jsonl").write_bytes(sealed_lines.make({"step": step, "train/mel": 3.0}))
    if done:
        (tmp_path / "DONE").write_text('{"step": 4}')
    assert history.read(tmp_path, name="run").is_done == is_done
    # A checkpoint that does not say what it holds is none of the last step.
    (tmp_path / "checkpoints" / "4" / "meta").mkdir(parents=True)
    assert not history.read(tmp_path, name="run").is_done


def test_a_config_that_was_changed_is_a_note(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(sealed.seal({"num_steps": 4})))
    (tmp_path / "metrics.jsonl").write_bytes(sealed_lines.make({"step": 1, "train/mel": 3.0}))
    assert history.read(tmp_path, name="run").config == {"num_steps": 4}
    path.write_text(path.read_text().replace("4", "5", 1))
    read = history.read(tmp_path, name="run")
    assert read.config == {} and any(
        "config.json must have the seal" in note for note in read.notes
    )


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
