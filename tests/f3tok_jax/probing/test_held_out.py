# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is held out: shared sources and sounds are refused, groups are found and left out whole."""

import numpy as np
import pytest

from f3tok_jax.probing import features as features_lib
from f3tok_jax.probing import held_out


def _examples(*speakers, sources=None, sounds=None, **labels):
    count = len(speakers)
    return features_lib.Examples(
        {"a": np.zeros((count, 2), np.float32)},
        [({"speaker": one} if one else {}) | labels for one in speakers],
        sources or [f"in:{one}{index}" for index, one in enumerate(speakers)],
        sounds or [f"{one}{index}" for index, one in enumerate(speakers)],
    )


def test_a_source_or_a_sound_on_both_sides_is_refused():
    train = _examples("ada", "bob", sounds=["x", ""])
    held_out.check(
        train, {"test": _examples("cyd", "dan", sounds=["y", ""])}
    )  # silences are no sound
    with pytest.raises(ValueError, match=r"1 of 2 records of test whose sound .* as 'dan1'"):
        held_out.check(train, {"test": _examples("cyd", "dan", sounds=["y", "x"])})
    with pytest.raises(ValueError, match=r"1 of 1 records of test whose source .* as 'bob1'"):
        held_out.check(train, {"test": _examples("cyd", sources=["in:bob1"], sounds=["z"])})
    # A file of another input may have the same name.
    held_out.check(train, {"test": _examples("cyd", sources=["other:bob1"], sounds=["z"])})


def test_clips_are_alike_by_what_serves_first():
    examples = _examples("ada", "bob", "ada", digit="1", room="r")
    named = dict(examples=examples, label="digit", group="")
    assert held_out.groups_of(**named)[0] == "speaker"
    # One room is no other room.
    name, groups = held_out.groups_of(**named, others=["room"])
    assert name == "speaker" and groups.tolist() == ["ada", "bob", "ada"]
    name, groups = held_out.groups_of(examples, "speaker", "")
    assert name == "source" and groups.tolist() == list(examples.sources)
    assert held_out.groups_of(examples, "digit", "source")[0] == "source"
    assert held_out.groups_of(_examples("ada", ""), "digit", "")[0] == "source"
    with pytest.raises(ValueError, match="--group must be another label than what is predicted"):
        held_out.groups_of(examples, "digit", "digit")
    with pytest.raises(ValueError, match="--group=speaker .* got 1 of 2 without it"):
        held_out.groups_of(_examples("ada", ""), "digit", "speaker")


def test_every_group_is_left_out_whole_and_tested_alone():
    train, test = _examples("ada", "bob", "ada", "cyd"), _examples("bob", "ada", "bob")
    found = list(held_out.left_out(train, {"test": test, "more": _examples("ada")}, "speaker"))
    assert [value for value, *_ in found] == ["ada", "bob"]
    for value, learnt, tested in found:
        assert value not in {labels["speaker"] for labels in learnt.labels}
        assert {labels["speaker"] for one in tested.values() for labels in one.labels} == {value}
    assert [len(learnt.labels) for _, learnt, _ in found] == [2, 3]
    assert [list(tested) for *_, tested in found] == [["test", "more"], ["test"]]
    with pytest.raises(ValueError, match="needs the label of every record, got 1 of 2"):
        list(held_out.left_out(train, {"test": _examples("ada", "")}, "speaker"))
    with pytest.raises(ValueError, match="at least two values to leave out in turn, got .'ada'."):
        list(held_out.left_out(train, {"test": _examples("ada")}, "speaker"))
