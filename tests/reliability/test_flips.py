# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Flipped bits in every file of a run: what is learnt and said from it is never silently another."""

import os
import pathlib

import numpy as np
import pytest

from tests.reliability import flips


@pytest.mark.slow
@pytest.mark.reliability("R06", "R07")
@pytest.mark.parametrize("run", flips.KINDS)
def test_no_flipped_bit_is_silent(run, tmp_path):
    """Below $F3TOK_RELIABILITY, where it is set, it goes on from where it stopped."""
    folder = pathlib.Path(os.environ.get("F3TOK_RELIABILITY", tmp_path)) / "flips"
    flips.Flips(folder, run).go_on(70)
    told, is_good = flips.summary(folder)
    assert is_good, told


@pytest.mark.reliability("R06", "R07")
def test_flipped_bits_in_an_unfinished_run_are_harmless_or_said(tmp_path):
    tried = flips.Flips(tmp_path, "toy")
    small = {"config.json", "frozen.json", "metrics.jsonl", "checkpoints/8/meta/metadata"}
    drawn = tried.draw(200)
    chosen = [flip for flip in drawn if flip[0] in small][:8]
    chosen += [flip for flip in drawn if flip[0] not in small][::20][:6]
    found = [tried.flip(*flip) for flip in chosen]
    assert {flip[0] for flip in chosen} >= small
    assert not [entry for entry in found if entry["kind"] in ("silent", "crash")]
    assert sum(entry["kind"] == "detected" for entry in found) >= 4


def test_every_file_is_hit_and_small_ones_more_often(tmp_path):
    (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "small").write_bytes(bytes(10))
    (tmp_path / "empty").write_bytes(b"")
    drawn = [flip[0] for flip in flips.draw(tmp_path, 100, np.random.default_rng(0))]
    assert len(drawn) == 100 and drawn[:2] == ["large", "small"]
    assert 10 < drawn.count("small") < 45


@pytest.mark.parametrize(
    "changes, kind",
    [
        (dict(), "harmless"),
        (dict(said={"a", "step 4 is refused"}), "detected"),
        (dict(said={"a", "b"}, code=1, left={}), "detected"),
        (dict(left={"state": 2}), "silent"),
        (dict(code=1, left={}), "silent"),
        (dict(trace="KeyError: 3\n"), "crash"),
    ],
)
def test_what_a_flip_is(changes, kind):
    whole = dict(code=0, said={"a"}, left={"state": 1})
    after = flips.Outcome(**(whole | changes))
    assert flips.classify(flips.Outcome(**whole), after)["kind"] == kind
