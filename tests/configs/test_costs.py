# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""configs/README.md has the tables that are made of costs.jsonl, and those hold what is promised."""

import json

import pytest

from configs import autoencoder
from configs import costs
from configs import generation
from configs import language_model
from configs import representation
from configs import slices
from f3tok_jax.devices import slices as device_slices
from f3tok_jax.runs import results

_RECIPES = (autoencoder, language_model, representation, generation)


def test_every_preset_is_for_slices_that_exist():
    for recipe in _RECIPES:
        stage = recipe.get_config(recipe.PRESETS[0]).stage
        assert set(slices.ALL[stage]) == set(recipe.PRESETS)
    for presets in slices.ALL.values():
        for targets in presets.values():
            assert targets and all(device_slices.parse(*one) for one in targets)


def test_the_tables_are_those_of_the_results():
    text = costs.README.read_text(encoding="utf-8")
    assert costs.replaced(text, costs.make(costs.read())) == text, (
        "run python -m configs.costs: configs/README.md is not what it makes of configs/costs.jsonl"
    )


@pytest.mark.parametrize("recipe", costs.SCALED)
def test_a_chip_computes_the_same_however_many_there_are(recipe):
    first, *others = costs.scaled(costs.read(), recipe)
    assert first["num_chips"] == 8 and others[-1]["num_chips"] == 1024
    for one in others:
        assert one["work"] == first["work"]
        assert one["flops"] == pytest.approx(first["flops"], rel=0.01), one["topology"]


def _written(folder, **changes):
    figures = dict(
        config="configs/generation.py:base (all)",
        unit="audio_seconds",
        audio_seconds=640.0,
        num_chips=16,
        effort=-1,
        memory_bytes=dict(peak=2**30, limit=2**34),
        flops=3e12,
        bytes_accessed=4e9,
        roofline=dict(seconds=0.5),
        collectives=[dict(opcode="all-reduce", network="DCN", bytes=3.125e6)],
        compile_cpu_seconds=70.4,
    )
    path = folder / "cost.json"
    cost = results.Cost(topology="v5e:4x4", figures=figures | changes, **{"fits": True})
    results.write(path, cost)
    return path


def test_a_result_is_kept_in_place_of_one_of_the_same(tmp_path):
    kept = tmp_path / "costs.jsonl"
    costs.add([costs.row(_written(tmp_path))], kept)
    costs.add([costs.row(_written(tmp_path, flops=5e12))], kept)
    costs.add([costs.row(_written(tmp_path, num_chips=32, audio_seconds=320.0))], kept)
    rows = costs.read(kept)
    assert [one["flops"] for one in rows] == [3e12, 5e12] and rows[0]["work"] == 320.0
    assert "| `generation:base` | v5e:4x4 | 640.0 s | 1.00 of 16.00 GiB | 5.000 |" in costs.make(
        rows[1:]
    )
    assert "| `generation:large` | v5p:4x4x4 | not compiled yet |" in costs.make(rows)
    # What is reduced goes to and fro, at the pace of the network it takes.
    scaled = [one | {"effort": -0.5} for one in rows[1:]]
    assert "3 MB, 2.0 ms | all-reduce DCN | 500.0 ms | 100 % | 100 % |" in costs.make(scaled)


def test_what_is_no_cost_of_a_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be of a config of this folder"):
        costs.row(_written(tmp_path, config="other.py:base (all)"))
    path = tmp_path / "refused.json"
    results.write(path, results.Cost(topology="v5e:4x4", figures={}, fits=False, error="too much"))
    with pytest.raises(ValueError, match="of a step that fits"):
        costs.row(path)
    assert not json.loads(path.read_text())["fits"]
