# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint keeps of the steps before it."""

from f3tok_jax.training import tally as tally_lib


def test_a_fresh_run_and_what_is_read_again():
    assert tally_lib.Tally.read({}) == tally_lib.Tally()
    tally = tally_lib.Tally(nonfinite=3, owed=["evaluation", "samples"])
    tally = tally.with_rows([(2, 2**63), (1, 2**63 + 5)])
    assert tally.replaced == (3, 5) and tally.with_rows([(0, 0)]) == tally
    meta = {"step": 4, "seen": tally.as_json(), "metrics": {}}
    said = []
    assert tally_lib.Tally.read(meta, say=said.append) == tally
    assert len(said) == 1 and said[0].startswith("note: before step 4 3 records could not be read")
    # Taken again, and its sounds not written yet.
    taken = meta | {"metrics": {"eval/error": 1.0}}
    assert tally_lib.Tally.read(taken).owed == ["samples"]


def test_a_checkpoint_of_before_has_none_and_it_is_said():
    said = []
    assert tally_lib.Tally.read({"step": 4, "metrics": {}}, say=said.append) == tally_lib.Tally()
    assert len(said) == 1 and "checkpoint of step 4 does not say how many steps" in said[0]
