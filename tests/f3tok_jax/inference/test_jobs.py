# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of which input, and that one refusal stops nobody else."""

import errno
import os
import pathlib

import numpy as np
import pytest
import soundfile

from data_pipelines import command
from f3tok_jax.inference import jobs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with two speakers who have recordings of the same name."""
    monkeypatch.chdir(tmp_path)
    for name in ("ann/001.wav", "ben/001.wav", "ben/deep/002.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, np.zeros(100), 16_000)
    pathlib.Path("ann/notes.txt").write_text("none")
    return tmp_path


def _many(*sources, **options):
    plan = jobs.many(sources, "out", "latents", ending=".npz", **options)
    return {job.source: job.target for job in plan.jobs}


def test_outputs_stand_as_inputs_do_below_the_folder_that_they_share(folder):
    both = {"ann/001.wav": "out/ann/001.npz", "ben/001.wav": "out/ben/001.npz"}
    assert _many("ann/001.wav", "ben/001.wav") == both
    everything = both | {"ben/deep/002.flac": "out/ben/deep/002.npz"}
    assert _many("ann", "ben") == everything
    assert _many("ann/001.wav", "ben") == everything
    assert _many("ben") == {"ben/001.wav": "out/001.npz", "ben/deep/002.flac": "out/deep/002.npz"}
    absolute = _many(str(folder / "ann"), str(folder / "ben"))
    assert list(absolute.values()) == list(everything.values())
    assert list(_many(".").values()) == list(everything.values())
    # A folder's way up is no way out.
    os.chdir("ann")
    assert list(_many("../ben/001.wav", "001.wav").values()) == [
        "out/ben/001.npz",
        "out/ann/001.npz",
    ]


def test_an_input_that_is_given_twice_is_one(folder):
    assert len(_many("ann", "ann/001.wav", str(folder / "ann" / "001.wav"))) == 1


def test_inputs_of_one_output_are_refused_before_the_work(folder):
    soundfile.write("ann/001.flac", np.zeros(100), 16_000)
    with pytest.raises(ValueError, match="ann/001.flac and ann/001.wav would both become out/001"):
        _many("ann")


def test_a_folder_without_sound_is_refused(folder):
    pathlib.Path("empty").mkdir()
    with pytest.raises(ValueError, match="empty must hold sound, got nothing"):
        _many("ann", "empty")
    pathlib.Path("empty/a.txt").touch()
    with pytest.raises(ValueError, match="empty must hold sound, got 1 .txt"):
        _many("empty")
    with pytest.raises(ValueError, match=r"ann must hold .npz, got 1 .txt, 1 .wav"):
        _many("ann", endings=(".npz",))


def test_a_pipe_is_the_only_input(folder):
    with pytest.raises(ValueError, match="- must be the only input, got 2"):
        _many("ann", "-")
    assert jobs.one("-", "a.npz", "latents").jobs[0].name == "standard input"


def test_one_input_is_a_file_that_is_there(folder):
    with pytest.raises(ValueError, match="ann must be a file, got a folder: give --output_dir"):
        jobs.one("ann", "a.npz", "latents")
    with pytest.raises(ValueError, match="nowhere.wav cannot be used: No such file"):
        jobs.one("nowhere.wav", "a.npz", "latents")
    with pytest.raises(ValueError, match="must be none of the files that are read"):
        jobs.one("ann/001.wav", "ann/001.wav", "sound", force=True)


def _run(plan, work):
    said, loaded = [], []
    code = plan.run(work, load=lambda: loaded.append(1), say=said.append)
    return code, said, len(loaded)


def test_a_refusal_is_said_by_name_and_the_others_go_on(folder):
    pathlib.Path("out").mkdir()
    pathlib.Path("out/ann").mkdir()
    np.savez("out/ann/001.npz", latents=0, fingerprint="")
    plan = jobs.many(["ann", "nowhere.wav", "ben"], "out", "latents", ending=".npz")
    done = []

    def work(job):
        if "deep" in job.source:
            raise ValueError("of other weights")
        done.append(job.source)

    code, said, num_loaded = _run(plan, work)
    assert code == command.EXIT_REFUSED and done == ["ben/001.wav"] and num_loaded == 1
    assert said[-1] == "1 of 4 inputs done, 3 refused; passed over: 1 .txt"
    exists, missing, other = said[:-1]
    assert "ann/001.wav" in exists and "out/ann/001.npz must be a new file" in exists
    assert missing == "nowhere.wav cannot be used: No such file or directory"
    assert other == "ben/deep/002.flac: of other weights"


def test_no_model_is_loaded_for_nothing(folder):
    code, said, num_loaded = _run(jobs.many(["nowhere.wav"]), lambda job: None)
    assert code == command.EXIT_REFUSED and num_loaded == 0 and len(said) == 2


def test_without_refusals_the_code_is_0(folder):
    pathlib.Path("ann/lost.wav").symlink_to("nowhere")
    plan = jobs.many(["ann", "ben"])
    assert [job.target for job in plan.jobs] == ["", "", ""]
    code, said, num_loaded = _run(plan, lambda job: None)
    assert (code, said, num_loaded) == (
        0,
        ["3 of 3 inputs done, 0 refused; passed over: 1 .txt, 1 broken link"],
        1,
    )


def test_a_full_disk_ends_it_and_what_was_done_is_said(folder):
    def work(job):
        raise OSError(errno.ENOSPC, "No space left on device")

    said = []
    with pytest.raises(OSError):
        jobs.many(["ann", "ben"]).run(work, load=lambda: None, say=said.append)
    assert said == ["0 of 3 inputs done, 0 refused; passed over: 1 .txt"]


def test_what_came_into_being_since_is_not_replaced(folder):
    plan = jobs.many(["ann", "ben"], "out", "latents", ending=".npz")
    pathlib.Path("out/ben").mkdir(parents=True)
    pathlib.Path("out/ben/001.npz").write_text("somebody else's")
    done = []
    code, said, _ = _run(plan, lambda job: done.append(job.source))
    assert code == 1 and "ben/001.wav: out/ben/001.npz must be a new file" in said[0]
    assert done == ["ann/001.wav", "ben/deep/002.flac"]
