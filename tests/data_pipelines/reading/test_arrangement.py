# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which examples share a row: each fits as a whole or is left out as a whole, and few are."""

import numpy as np
import pytest

from data_pipelines.reading import arrangement


def _rows(examples=4, **room):
    return arrangement.Rows(
        examples=examples,
        room=room or {"frames": 1280, "positions": 896},  # of the recipes
        needs=lambda frames, tokens: {
            "frames": frames,
            "positions": -(-frames // 2) + 2 + tokens if tokens else 0,
        },
        samples_per_frame=1,
    )


def _in_rows(rows, needs, places):
    """The examples of each row: lists of their needs."""
    held = [[] for _ in range(len(needs) // rows.examples)]
    for need, place in zip(needs, places):
        if place is not None:
            held[place // rows.examples].append(need)
    return held


def _drawn(seconds, count=256, seed=0):
    """Needs of speech of so many seconds, about three tokens for each."""
    seconds = np.clip(seconds(np.random.default_rng(seed), count), 0.5, 20.0)
    sizes = [(int(25 * length), int(3.9 * length) + 10) for length in seconds]
    return [_rows().needs(*size) for size in sizes]


@pytest.mark.parametrize(
    "seconds, most_lost",
    [
        (lambda rng, n: rng.uniform(2.0, 20.0, n), 0.0),
        (lambda rng, n: rng.uniform(1.0, 15.0, n), 0.0),
        (lambda rng, n: rng.normal(10.0, 5.0, n), 0.0),
        # 96 % of all room is asked for: one after another 4.2 % of the frames have none.
        (lambda rng, n: rng.normal(12.3, 3.8, n), 0.015),
        # Two of them fill a row: the others have no room, in whatever order they come.
        (lambda rng, n: np.full(n, 20.0), 0.5),
    ],
)
def test_rows_never_hold_more_than_they_have_room_for_and_lose_little(seconds, most_lost):
    rows = _rows()
    for seed in range(4):
        needs = _drawn(seconds, seed=seed)
        places = rows.arrange(needs)
        taken = [place for place in places if place is not None]
        assert len(set(taken)) == len(taken) and min(taken) >= 0 and max(taken) < len(needs)
        for held in _in_rows(rows, needs, places):
            assert len(held) <= 4
            for name, room in rows.room.items():
                assert sum(need[name] for need in held) <= room
        lost = sum(need["frames"] for need, place in zip(needs, places) if place is None)
        assert lost <= most_lost * sum(need["frames"] for need in needs)
        assert rows.arrange(needs) == places


def test_what_fits_nowhere_is_left_out_and_ties_go_to_the_first():
    rows = _rows(2, frames=10, positions=0)
    needs = [rows.needs(frames, 0) for frames in (4, 11, 4, 9, 10, 6)]
    # The 10 has a row, the 9 one, a 6 and a 4 one; no row has room for the other 4, or the 11.
    assert rows.arrange(needs) == [5, None, None, 2, 0, 4]


@pytest.mark.parametrize(
    "examples, batch_size, group", [(4, 512, 256), (4, 16, 16), (4, 400, 200), (2, 6, 6), (1, 8, 1)]
)
def test_groups_divide_the_batch(examples, batch_size, group):
    assert _rows(examples).group_size(batch_size) == group


def test_a_batch_is_of_whole_rows():
    with pytest.raises(ValueError, match="batch_size=6 must be a multiple of the 4 examples"):
        _rows().group_size(6)


def test_the_fingerprint_tells_what_decides_the_order():
    other = arrangement.Rows(
        examples=4,
        room=_rows().room,
        needs=lambda frames, tokens: {"frames": frames, "positions": frames + tokens},
        samples_per_frame=1,
    )
    variants = [_rows(), _rows(2), _rows(4, frames=1280, positions=897), other]
    assert len({str(rows.fingerprint(500, 80)) for rows in variants}) == 4
    assert _rows().fingerprint(500, 80) == _rows().fingerprint(500, 80)


def test_alone_each_example_has_its_row():
    rows = arrangement.alone(100)
    assert rows.group_size(7) == 1
    assert rows.arrange([rows.needs(100, 5)]) == [0] and rows.arrange([rows.needs(101, 0)]) == [
        None
    ]
