# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The order of records: a permutation per epoch, exact proportions, from the position alone."""

import numpy as np
import pytest

from data_pipelines.reading import mixture


def _mixture(lengths, weights, *, seed=3, shuffle=True):
    return mixture.Mixture(lengths, weights, seed=seed, shuffle=shuffle)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 10, 97, 1000, 4096])
def test_every_epoch_has_every_record_once(length):
    order = _mixture([length], [1.0]).locate(np.arange(3 * length))[1].reshape(3, length)
    for epoch in order:
        assert sorted(epoch) == list(range(length))
    if length >= 97:
        assert len({tuple(epoch) for epoch in order}) == 3


def test_all_orders_of_four_records_are_equally_likely():
    order = _mixture([4], [1.0]).locate(np.arange(4 * 4800))[1].reshape(4800, 4)
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 24
    # 200 expected each; chi-squared of 23 degrees of freedom is below 50 with probability 0.999.
    assert ((counts - 200.0) ** 2 / 200.0).sum() < 50.0


def test_order_depends_on_the_seed_and_on_nothing_else():
    positions = np.arange(5000)
    order = _mixture([1000], [1.0]).locate(positions)[1]
    shuffled = np.random.default_rng(0).permutation(positions)
    np.testing.assert_array_equal(_mixture([1000], [1.0]).locate(shuffled)[1], order[shuffled])
    assert (_mixture([1000], [1.0], seed=4).locate(positions)[1] != order).mean() > 0.99


def test_order_is_frozen():
    # A run that resumes under another version of this code must see the same examples.
    order = _mixture([1000, 50], [0.7, 0.3], seed=7).locate(np.arange(10))
    assert order[0].tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 1, 0]
    assert order[1].tolist() == [50, 39, 191, 190, 525, 41, 528, 69, 23, 405]


@pytest.mark.parametrize(
    "weights, period", [([0.7, 0.3], 10), ([1, 2], 3), ([5.0], 1), ([0.25, 0.25, 0.5], 4)]
)
def test_proportions_are_exact_over_every_period(weights, period):
    sets, _ = _mixture([17] * len(weights), weights).locate(np.arange(period * 50))
    for start in range(0, period * 50, period):
        counts = np.bincount(sets[start : start + period], minlength=len(weights))
        np.testing.assert_allclose(counts / period, np.asarray(weights) / sum(weights))


def test_unwieldy_weights_are_met_closely_and_evenly():
    weights = np.asarray([0.123456789, 0.654321, 0.001])
    sets, _ = _mixture([10, 10, 10], list(weights)).locate(np.arange(200_000))
    shares = weights / weights.sum()
    np.testing.assert_allclose(np.bincount(sets) / 200_000, shares, atol=2e-5)
    # Evenly: no stretch of 1000 positions is off by more than two turns of a set.
    for start in range(0, 200_000, 1000):
        np.testing.assert_allclose(
            np.bincount(sets[start : start + 1000], minlength=3), 1000 * shares, atol=2.0
        )


def test_each_set_keeps_its_own_epochs():
    sets, records = _mixture([5, 70], [0.5, 0.5]).locate(np.arange(140))
    assert sorted(records[sets == 1]) == list(range(70))
    for epoch in records[sets == 0].reshape(14, 5):
        assert sorted(epoch) == list(range(5))


def test_without_shuffle_sets_go_round_in_order():
    sets, records = _mixture([3, 4], [1, 1], shuffle=False).locate(np.arange(12))
    assert records[sets == 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert records[sets == 1].tolist() == [0, 1, 2, 3, 0, 1]


def test_far_positions_are_as_good_as_near_ones():
    order = _mixture([1000], [1.0]).locate(10**12 + np.arange(1000))[1]
    assert sorted(order) == list(range(1000))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("DIR", (("DIR", 1.0),)),
        ("DIR=2", (("DIR", 2.0),)),
        (" a/b=0.7, c=0.3,", (("a/b", 0.7), ("c", 0.3))),
        ("x=y=0.5,c=1e-2", (("x=y", 0.5), ("c", 0.01))),
    ],
)
def test_mixtures_are_parsed(text, expected):
    assert mixture.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", " , ", "a,b", "a=0.5,b", "a=0,b=1", "a=-1,b=2", "a=nan,b=1", "=1"]
)
def test_bad_mixtures_are_refused(text):
    with pytest.raises(ValueError):
        mixture.parse(text)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Makes folders in the current one."""
    monkeypatch.chdir(tmp_path)
    return lambda *names: [(tmp_path / name).mkdir() for name in names]


@pytest.mark.parametrize(
    "there, text, expected",
    [
        (["lr", "lr=0.1"], "lr=0.1", {"lr=0.1": 1.0}),
        (["lr"], "lr=0.1", {"lr": 0.1}),
        (["a,b"], "a,b", {"a,b": 1.0}),
        (["a=1,b=2"], "a=1,b=2", {"a=1,b=2": 1.0}),
        (["lr=0.1", "c"], "lr=0.1=0.7, c=0.3", {"lr=0.1": 0.7, "c": 0.3}),
        (["lr", "lr=0.1", "c"], "lr/=0.1,c=0.3", {"lr/": 0.1, "c": 0.3}),
        (["a,b", "c"], "a,b=0.7,c=0.3", {"a,b": 0.7, "c": 0.3}),
        (["a", "a,b", "c"], "c=0.3,a,b=0.7", {"c": 0.3, "a,b": 0.7}),
        (["a, b=1,", "c"], "a, b=1,=0.7,c=0.3,", {"a, b=1,": 0.7, "c": 0.3}),
        ([], "runs/lr=fast", {"runs/lr=fast": 1.0}),
        ([], "2024", {"2024": 1.0}),
        (["2024", "2025"], "2024=0.7,2025=0.3", {"2024": 0.7, "2025": 0.3}),
    ],
)
def test_a_folder_that_is_there_is_meant_whatever_its_name_looks_like(
    there, text, expected, folders
):
    folders(*there)
    assert dict(mixture.parse(text)) == expected


@pytest.mark.parametrize(
    "there, text, words",
    [
        (["lr", "lr=0.1", "c"], "lr=0.1,c=0.3", "write lr=0.1=0.7, or lr/=0.1 for lr"),
        (["lr=0.1", "c"], "lr=0.1,c=0.3", "the folder 'lr=0.1' without one"),
        (["a", "b"], "a,b=0.3", "the folder 'a' without one in 'a,b=0.3': write a=0.7$"),
        (["a", "b", "a=1,b"], "a=1,b=2", "must have one meaning.*rename a folder"),
        (["2024", "b"], "2024,b=0.3", "the folder '2024' without one in .*: write 2024=0.7$"),
    ],
)
def test_a_list_with_two_meanings_is_refused(there, text, words, folders):
    folders(*there)
    with pytest.raises(ValueError, match=words):
        mixture.parse(text)
