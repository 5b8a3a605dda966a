# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Calls that are timed in turn."""

from f3tok_jax.benchmarking import turns


def test_calls_are_timed_in_turn_without_the_first_and_compared_by_round(monkeypatch, capsys):
    clock, order = [0.0], []
    monkeypatch.setattr(turns.time, "perf_counter", lambda: clock[0])

    def call(name, *times):
        left = list(times)

        def one():
            order.append(name)
            clock[0] += left.pop(0)

        return one

    calls = {"one": call("one", 100, 1, 2, 4), "other": call("other", 200, 3, 4, 4)}
    rows = turns.measure(calls, rounds=3, amounts={"one": 10.0, "other": 20.0}, unit="tokens")
    one, other = rows
    assert order == ["one", "other"] * 4
    assert (one.seconds, one.best, one.times_the_first) == ((1.5, 2.0, 3.0), 1.0, (1.0, 1.0, 1.0))
    assert (other.seconds[1], other.best, other.times_the_first) == (4.0, 3.0, (1.5, 2.0, 2.5))
    assert (one.amount, other.amount, other.unit) == (10.0, 20.0, "tokens")
    turns.say("a title", rows)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("a title: ms (quartiles; best), tokens per second, times one")
    assert (
        said[1].split() == "one 2000.0 (1500.0 to 3000.0; 1000.0) 5.0 1.00 (1.00 to 1.00)".split()
    )
