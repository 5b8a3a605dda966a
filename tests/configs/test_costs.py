# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""configs/README.md has the tables that are made of costs.jsonl, and those hold what is promised."""

import json

import pytest

from configs import autoencoder
from configs import costs
from configs import diffusion_transformer
from configs import generation
from configs import language_model
from configs import representation
from configs import semantic_autoencoder
from configs import semantic_bottleneck
from configs import semantic_encoder
from configs import slices
from f3tok_jax.devices import slices as device_slices
from f3tok_jax.runs import results

_RECIPES = (
    *(autoencoder, language_model, representation, generation, diffusion_transformer),
    *(semantic_encoder, semantic_bottleneck, semantic_autoencoder),
)


def test_every_preset_is_for_slices_that_exist():
    for recipe in _RECIPES:
        name = recipe.__name__.removeprefix("configs.")
        assert set(slices.ALL[name]) == set(recipe.PRESETS)
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
    fewest, most = (64, 4096) if recipe.endswith("large") else (8, 1024)
    assert first["num_chips"] == fewest and others[-1]["num_chips"] == most
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
        model_flops=2.4e12,
        bytes_accessed=4e9,
        estimated=dict(seconds=1.0),
        kernels=dict(unpriced=[]),
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
    made = costs.make(rows[1:])
    assert "| `generation:base` | v5e:4x4 | 640.0 s | 1.00 of 16.00 GiB | 5.000 | 48 % |" in made
    assert "| `generation:large` | v5p:4x4x4 | not compiled yet |" in costs.make(rows)
    # What is reduced goes to and fro, at the pace of the network it takes.
    scaled = [one | {"effort": -0.5} for one in rows[1:]]
    wanted = "| 500.0 ms | 0.0 ms | 2.0 ms | 100 % | 100 % | all-reduce DCN, 0 % of the roofline |"
    assert wanted in costs.make(scaled)


def test_more_chips_for_one_batch_are_compared_by_what_a_chip_second_does(tmp_path):
    first = costs.row(_written(tmp_path))
    # Twice the chips, half the share of each, 0.3 s instead of 0.25, and 0.2 s of gathers.
    more = first | dict(topology="v5e:4x8", num_chips=32, work=320.0, roofline_seconds=0.3)
    more["collectives"] = {"all-gather ICI": 0.2 * 200e9}
    slower = more | dict(topology="v5e:8x8", num_chips=64, work=160.0)
    made = costs.make([first, more | {"topology": "2 slices of v5e:4x4"}, slower])
    line = "| 300.0 ms | 200.0 ms | 0.0 ms | 83 % | 50 % | all-gather ICI, 67 % of the roofline |"
    assert line in made
    # 640 s on each of 16 chips in half a second, and 12.5 ms to reduce; 1.2 dollars an hour each.
    assert "| v5e:4x4 | 16 | 491,520 h |" in made and "| 461 |" in made


def test_a_program_that_training_uses_is_planned_by_its_cycles(tmp_path):
    rows = [costs.row(_written(tmp_path, effort=effort)) for effort in (-1, 0)]
    assert [one["estimated_seconds"] for one in rows] == [None, 1.0]
    unpriced = costs.row(_written(tmp_path, effort=0, kernels=dict(unpriced=["kernel.1"])))
    assert unpriced["estimated_seconds"] is None
    assert "| 491,520 h | 489,562 h | 245,760 h | 245,269 h |" in costs.make(rows)
    # Cycles of half the share are not those of the whole.
    halved = rows[1] | dict(work=320.0)
    assert "| 491,520 h | 489,562 h |  |  |" in costs.make([rows[0], halved])


def test_rows_of_before_are_not_told_beside_those_that_count_otherwise(tmp_path):
    one = costs.row(_written(tmp_path))
    del one["own"]
    made = costs.make([one, one | {"effort": -0.5}])
    assert "| 640.0 s | 1.00 of 16.00 GiB | not measured again yet |" in made
    assert "500.0 ms" not in made


def test_every_row_has_its_command():
    said = list(costs.commands("kept"))
    rows = sum(len(targets) for presets in slices.ALL.values() for targets in presets.values())
    assert len({*said}) == len(said) == rows + 2 * len(costs.SCALED)
    assert len({line.split("--kept=")[1] for line in said}) == len(said)
    of_latents = ("representation.py", "generation.py", "diffusion_transformer.py")
    assert all(
        ("--config.data.latents=True" in line) == any(name in line for name in of_latents)
        for line in said
    )


def test_what_is_no_cost_of_a_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be of a config of this folder"):
        costs.row(_written(tmp_path, config="other.py:base (all)"))
    path = tmp_path / "refused.json"
    results.write(path, results.Cost(topology="v5e:4x4", figures={}, fits=False, error="too much"))
    with pytest.raises(ValueError, match="of a step that fits"):
        costs.row(path)
    assert not json.loads(path.read_text())["fits"]
