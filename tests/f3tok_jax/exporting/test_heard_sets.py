# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of sound that weights may have heard in training."""

import types

import pytest

from f3tok_jax.exporting import heard_sets

_CLIPS = {"source": "embedded", "corpora": ["speech", "music"], "num_clips": [9, 9], "seed": 1}


def _manifest(settings: dict, fingerprint: str = "f", sound: str = "") -> types.SimpleNamespace:
    latents = types.SimpleNamespace(sound=sound) if sound else None
    return types.SimpleNamespace(settings=settings, fingerprint=fingerprint, latents=latents)


def _why(heard: types.SimpleNamespace, measured: types.SimpleNamespace) -> str:
    one = heard_sets.HeardSet(name="data/train", weight=1.0, manifest=heard)
    return heard_sets.why_heard([one], measured)


@pytest.mark.parametrize("sound", ["", "measured"])
def test_the_same_set_was_heard_as_sound_or_as_its_latents(sound):
    heard = _manifest({"source": "folder"}, "latents" if sound else "measured", sound)
    assert "what data/train holds" in _why(heard, _manifest({"source": "folder"}, "measured"))
    assert not _why(heard, _manifest({"source": "folder"}, "another"))


def test_clips_of_the_same_seed_may_be_the_same_but_in_parts_of_one_build():
    other = _CLIPS | {"num_clips": [4, 4]}
    assert "embedded corpora music with" in _why(
        _manifest(_CLIPS), _manifest(other | {"corpora": ["events", "music"]}, "test")
    )
    assert not _why(_manifest(_CLIPS), _manifest(_CLIPS, "test"))
    assert not _why(_manifest(_CLIPS), _manifest(other | {"seed": 2}, "test"))
    assert not _why(_manifest(_CLIPS), _manifest(other | {"corpora": ["events"]}, "test"))
    assert not _why(_manifest({"source": "folder"}), _manifest(other, "test"))
