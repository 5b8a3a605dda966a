# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who of a run does not start like the others."""

import pytest

from f3tok_jax.devices import agreement


def _check(*facts: dict[str, str]) -> agreement.Differing:
    starts = {at: agreement.Start(f"host-{at}", told) for at, told in enumerate(facts)}
    with pytest.raises(agreement.Differing) as caught:
        agreement.check(starts)
    return caught.value


def test_equal_starts_pass():
    agreement.check({at: agreement.Start(f"host-{at}", {"jax": "1"}) for at in range(3)})


def test_the_few_are_named_and_a_table_says_who_has_what():
    most = {"jax": "1", "code": "a", "python": "3.11"}
    error = _check(*[most] * 5, most | {"jax": "2"}, most, {"jax": "1", "python": "3.11"})
    assert str(error) == (
        "all processes of a run must start alike, got others in 5 (host-5), 7 (host-7) of 8: code, "
        "jax; install the same lock file and give the same command everywhere"
    )
    assert error.table.splitlines() == [
        "fact  value  processes",
        "code  a      0 (host-0), 1 (host-1), 2 (host-2), 3 (host-3), 4 (host-4), 5 (host-5), "
        "6 (host-6)",
        "code  None   7 (host-7)",
        "jax   1      0 (host-0), 1 (host-1), 2 (host-2), 3 (host-3), 4 (host-4), 6 (host-6), "
        "7 (host-7)",
        "jax   2      5 (host-5)",
    ]


def test_of_two_halves_that_of_process_0_is_taken_for_right_and_long_values_stay_short():
    error = _check({"a": "x" * 999}, {"a": "y\n" * 999})
    assert "got others in 1 (host-1) of 2: a;" in str(error)
    assert all(len(line) < 100 for line in error.table.splitlines())
    assert "and 12 more" in _check(*[{"a": "1"}] * 21, *[{"a": "2"}] * 20).table
