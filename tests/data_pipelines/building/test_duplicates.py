# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds that are there more than once, by their results: which copy stays, and how many are counted."""

from data_pipelines.building import duplicates


def _results(*groups: dict[str, str]) -> list[dict]:
    return [{"digests": group} for group in groups]


def test_samples_stay_where_the_first_of_their_keys_lies():
    train = _results({"b": "1", "c": "2", "x": "3"}, {"d": "4", "f": "1"})
    test = _results({"a": "1", "g": "2", "y": "5"}, {"e": "4", "h": "1"})
    left_out = duplicates.across({"train": train, "test": test})
    assert left_out == {
        "b": "the same sound as a in test, in another file",
        "f": "the same sound as a in test, in another file",
        "g": "the same sound as c in train, in another file",
        "e": "the same sound as d in train, in another file",
    }
    # Those that were left out have no digest any more, and nothing follows from that.
    kept = {
        part: _results(
            *(
                {key: one for key, one in result["digests"].items() if key not in left_out}
                for result in results
            )
        )
        for part, results in (("train", train), ("test", test))
    }
    assert duplicates.across(kept) == {}
    assert duplicates.across({"train": train, "test": kept["test"]}) == {
        key: why for key, why in left_out.items() if key in "bf"
    }


def test_an_undivided_set_leaves_nothing_out_and_copies_are_counted():
    results = _results({"a": "1", "b": "1"}, {"c": "1", "d": "2"})
    assert duplicates.across({"": results}) == {}
    assert duplicates.num_within(results) == 2
