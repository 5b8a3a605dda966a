# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded corpora as a whole: same clip everywhere, clean sound, complete annotation."""

import concurrent.futures
import functools
import hashlib
import json
import multiprocessing

import numpy as np
import pytest

from data_pipelines.embedded import corpora
from data_pipelines.embedded.speech import espeak

_RATE = 16_000  # Hz


@functools.cache
def _clips(name: str) -> list[corpora.Clip]:
    return [corpora.generate(name, index, seed=3, sample_rate=_RATE) for index in range(60)]


@pytest.mark.parametrize("name", corpora.CORPORA)
def test_sound_is_clean_and_levels_vary(name):
    peaks = []
    for clip in _clips(name):
        assert clip.waveform.dtype == np.float32 and clip.waveform.ndim == 1
        assert np.isfinite(clip.waveform).all()
        assert 0.25 <= len(clip.waveform) / _RATE <= 8.0
        peaks.append(20.0 * np.log10(np.abs(clip.waveform).max()))
        # Nowhere digital silence: every 50 ms has a sound above one step of 16 bits.
        frames = clip.waveform[: len(clip.waveform) // 800 * 800].reshape(-1, 800)
        assert (np.abs(frames).max(axis=1) > 2.0**-15).all(), clip.key
    # The noise floor may add a tenth of a decibel to the lowest peak.
    assert -20.5 < min(peaks) and max(peaks) < -0.1
    assert np.std(peaks) > 3.0


@pytest.mark.parametrize("name", corpora.CORPORA)
def test_annotation_is_complete(name):
    clips = _clips(name)
    assert len({clip.key for clip in clips}) == len(clips)
    names = set(clips[0].labels)
    for clip in clips:
        assert set(clip.labels) == names
        assert all(isinstance(value, str) and value for value in clip.labels.values())
        assert set(corpora.says(name)) == {*clip.labels, clip.text_kind}
        assert clip.text_kind == ("transcript" if name in ("speech", "digits") else "caption")
        assert clip.text == " ".join(clip.text.lower().split()) and clip.text
        index = int(clip.key.rpartition("-")[2])
        language = f" {clip.labels['language']}" if name == "speech" else ""
        assert corpora.stratum(name, index, seed=3) == f"{name}{language}"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("speech", "48c991a1be7d939a"),
        ("digits", "38b0d2843fa97682"),
        ("music", "74daa76581a6c85b"),
        ("events", "72f8ed96f0cdab09"),
    ],
)
def test_what_is_said_of_clips_does_not_change_between_versions(name, expected):
    """Corpora are rebuilt from their seed: other words there would be other data under one name."""
    said = json.dumps([[clip.text, clip.labels] for clip in _clips(name)])
    assert hashlib.sha256(said.encode()).hexdigest().startswith(expected)


@pytest.mark.parametrize("name", corpora.CORPORA)
def test_clips_differ_by_index_and_seed(name):
    other = corpora.generate(name, 0, seed=4, sample_rate=_RATE)
    waveforms = [clip.waveform.tobytes() for clip in _clips(name)[:10]] + [other.waveform.tobytes()]
    assert len(set(waveforms)) == len(waveforms)


def test_same_clip_alone_after_others_and_in_another_process():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for name in corpora.CORPORA:
            for index in (41, 7, 7):  # another order than here
                there = pool.submit(
                    corpora.generate, name, index, seed=3, sample_rate=_RATE
                ).result()
                here = _clips(name)[index]
                np.testing.assert_array_equal(there.waveform, here.waveform)
                assert (there.key, there.text, there.labels) == (here.key, here.text, here.labels)


@pytest.mark.parametrize("sample_rate", [8_000, 24_000, 48_000])
@pytest.mark.parametrize("name", corpora.CORPORA)
def test_other_rates_keep_the_labels(name, sample_rate):
    for index in range(4):
        clip = corpora.generate(name, index, seed=3, sample_rate=sample_rate)
        assert clip.labels == _clips(name)[index].labels
        assert 0.25 <= len(clip.waveform) / sample_rate <= 8.0


def test_wrong_requests_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="must be one of .*'speech'.*got 'song'"):
        corpora.generate("song", 0, seed=0, sample_rate=_RATE)
    with pytest.raises(ValueError, match="got -1"):
        corpora.generate("music", -1, seed=0, sample_rate=_RATE)
    with pytest.raises(ValueError, match="8000 to 192000 Hz, got 100"):
        corpora.generate("music", 0, seed=0, sample_rate=100)


def test_without_the_synthesiser_the_rest_works_and_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(espeak.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e '.[demo]'" in corpora.available("speech")
    with pytest.raises(ModuleNotFoundError, match=r"\.\[demo\]"):
        corpora.generate("speech", 0, seed=0, sample_rate=_RATE)
    for name in ("music", "events"):
        assert corpora.available(name) is None
        assert len(corpora.generate(name, 0, seed=0, sample_rate=_RATE).waveform)
