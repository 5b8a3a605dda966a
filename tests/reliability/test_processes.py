# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Real stages, trained on four devices by one, two and four processes, are the same."""

import os
import pathlib

import pytest

from tests.reliability import diary
from tests.reliability import processes


@pytest.mark.slow
@pytest.mark.reliability("R11", "R25")
@pytest.mark.parametrize("name", processes.ARMS)
def test_as_many_devices_train_alike_by_any_number_of_processes(name, tmp_path):
    """Below $F3TOK_RELIABILITY, where it is set, it goes on from where it stopped."""
    folder = pathlib.Path(os.environ.get("F3TOK_RELIABILITY", tmp_path)) / "processes"
    processes.Arm(folder, name).go_on()
    told, is_good = processes.summary(folder)
    assert is_good, told


def test_what_is_apart_is_told(tmp_path):
    assert processes.apart({"a": [1.0, -4.0], "b": 2.0}, {"a": [1.5, -4.0], "b": 2.0}) == 0.125
    assert processes.apart({"a": 1.0}, {"b": 1.0}) == float("inf")
    folder = tmp_path / "generation"
    folder.mkdir()
    entry = dict(processes=4, batches=9, equal_batches=9, figures_apart=1e-7, weights=10)
    entry |= dict(weights_equal=8, weights_apart=1e-6, as_two=True, problems=[])
    diary.Diary(folder).add(entry)
    told, is_good = processes.summary(tmp_path)
    assert is_good and "generation by 4: 9 of 9 batches bit-equal, 8 of 10 weights" in told
    assert "bit-equal to the run of two" in told
    diary.Diary(folder).add(entry | dict(problems=["not all batches are equal"]))
    assert not processes.summary(tmp_path)[1]
