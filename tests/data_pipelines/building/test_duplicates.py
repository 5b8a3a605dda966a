# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds that are there more than once: which copy stays, how many are counted, what tells them."""

import numpy as np
import pytest

from data_pipelines.building import duplicates
from data_pipelines.sound import levels


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


def _digest(*segments) -> str:
    digest = duplicates.Digest()
    for segment in segments:
        sums, pcm = levels.Sums(), np.asarray(segment, np.int16)
        sums.add_record(pcm, 16_000)
        digest.add(pcm, sums)
    return digest.hexdigest()


@pytest.mark.parametrize("length", [2, 3, 100_000, 300_003])
def test_equal_samples_alone_have_equal_digests(length):
    samples = np.random.default_rng(0).integers(-9_000, 9_000, length, np.int16)
    found = {_digest(samples)}
    assert _digest(samples.copy()) in found and len(_digest(samples)) == 32
    for place in {0, length // 3, length // 2, length - 1}:
        for change in (1, -1, 16_384):
            other = samples.copy()
            other[place] += change
            found.add(_digest(other))
    found |= {_digest(samples[:-1]), _digest([*samples, 0]), _digest(-samples)}
    assert len(found) == 4 + 3 * len({0, length // 3, length // 2, length - 1})


def test_a_click_has_a_place():
    clicks = []
    for place in range(0, 140_000, 97):
        samples = np.zeros(140_000, np.int16)
        samples[place] = -32768
        clicks.append(_digest(samples))
    assert len(set(clicks)) == len(clicks)
    first, second = np.arange(10), np.arange(10, 20)
    assert _digest(first, second) != _digest(second, first)
