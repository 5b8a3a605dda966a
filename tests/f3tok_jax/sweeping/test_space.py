# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps as data: names, combinations, draws, and the shipped ones, every run of which is valid."""

import itertools

import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.sweeping import plan
from f3tok_jax.sweeping import space
from f3tok_jax.sweeping import sweep_file
from tests.support import swept


def test_an_arm_is_named_by_what_it_changes():
    arms = space.grid(
        {
            "optimizer.generator.learning_rate": (1e-4, 0.001),
            "optimizer.discriminator.learning_rate": (1e-05,),
            "bottleneck.normalize": (True,),
            "width": {"64": {"model.encoder_channels": (32, 64), "model.decoder_channels": (64,)}},
        }
    )
    assert [arm.folder for arm in arms] == [
        "generator_learning_rate-0.0001_discriminator_learning_rate-1e-05_normalize-true_width-64",
        "generator_learning_rate-0.001_discriminator_learning_rate-1e-05_normalize-true_width-64",
    ]
    assert arms[0].changes == (
        "optimizer.generator.learning_rate=0.0001",
        "optimizer.discriminator.learning_rate=1e-05",
        "bottleneck.normalize=True",
        "model.encoder_channels=(32, 64)",
        "model.decoder_channels=(64,)",
    )
    assert space.Arm("without RQ-MTP").folder == "without_rq_mtp"


def test_combinations_can_be_left_out():
    axes = {"a.x": (1, 2, 3), "b.y": (1, 2, 3)}
    arms = space.grid(axes, skip=lambda values: values["a.x"] * values["b.y"] > 4)
    pairs = [pair for pair in itertools.product((1, 2, 3), repeat=2) if pair[0] * pair[1] <= 4]
    assert [arm.changes for arm in arms] == [(f"a.x={x}", f"b.y={y}") for x, y in pairs]


def test_a_draw_is_the_same_again_and_keeps_its_first_arms():
    axes = {
        "optimizer.rate": space.log_uniform(1e-5, 1e-2),
        "model.gamma": space.uniform(0.5, 2.0),
        "model.layers": space.choice(2, 4),
    }
    arms = space.draw(40, axes, seed=3)
    assert space.draw(7, axes, seed=3) == arms[:7] and space.draw(7, axes, seed=4) != arms[:7]
    values = [dict(change.split("=") for change in arm.changes) for arm in arms]
    rates = [float(one["optimizer.rate"]) for one in values]
    assert 1e-5 <= min(rates) < 1e-4 and 1e-3 < max(rates) <= 1e-2
    assert 10 < sum(rate < 10**-3.5 for rate in rates) < 30  # its logarithm is uniform
    assert all(0.5 <= float(one["model.gamma"]) <= 2.0 for one in values)
    assert {one["model.layers"] for one in values} == {"2", "4"}
    # The name says the whole value, so that two arms of one name are one arm.
    assert all(f"rate-{rate:g}" in arm.folder for rate, arm in zip(rates, arms))
    few = {"model.layers": space.choice(2, 4)}
    assert len(space.draw(2, few)) == 2
    with pytest.raises(ValueError, match="num must be of arms that can be drawn, got 3: 2"):
        space.draw(3, few)
    assert len(space.draw(1, few, skip=lambda values: values["model.layers"] == 2)) == 1


@pytest.mark.parametrize("preset", ["tiny", "base"])
@pytest.mark.parametrize("name", sweep_file.shipped())
def test_every_run_of_a_shipped_sweep_is_valid(name, preset, tmp_path):
    sweep = sweep_file.read(f"{sweep_file.shipped()[name]}:{preset}")
    planned = plan.of(sweep, [])
    options = dict(arms=sweep.arms, seeds=sweep.seeds, workdir=str(tmp_path))
    runs = plan.runs(sweep.recipe, planned.overrides, **options)
    assert len(runs) >= 3 and [run.name for run in runs] == list(planned.runs)
    assert {run.config.preset for run in runs} == {preset}
    assert not list(tmp_path.iterdir())
    # What it says that it varies is what its runs differ in.
    flat = [config_lib.flatten(run.config) for run in runs]
    differing = {key for key in flat[0] if len({str(one[key]) for one in flat}) > 1}
    assert differing == {change.split("=")[0] for arm in sweep.arms for change in arm.changes} - {
        key for key in ("supervision.weight",) if name == "targets"
    }


def test_the_table_of_shipped_sweeps_has_their_sizes():
    said = (swept.ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    for name, path in sweep_file.shipped().items():
        made = [sweep_file.read(f"{path}:{preset}") for preset in ("tiny", "base")]
        first, second = (len(one.arms) * len(one.seeds) for one in made)
        (row,) = [line for line in said.splitlines() if line.startswith(f"| `{name}` | ")]
        assert f" | {first}, {second} | " in row
        assert row.split("|")[-2].strip(" `") in (made[0].metric, "f3tok_jax.ablation")


def test_what_is_no_sweep_is_one_sentence(tmp_path):
    def refusal(text: str) -> str:
        # Another name each: of files of one second and size Python takes the first for both.
        path = tmp_path / f"sweep_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        with pytest.raises(ValueError) as error:
            sweep_file.read(f"{path}:tiny")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no function get_sweep(preset)" in refusal("")
    assert "must return a space.Sweep, got int" in refusal("def get_sweep(preset): return 1")
    assert "cannot be made: 'tiny'" in refusal("def get_sweep(preset): return {}[preset]")
    assert ".py, line 1)" in refusal("def get_sweep:")
    make = "from f3tok_jax.sweeping import space\ndef get_sweep(preset):\n    return space.Sweep("
    assert "must have arms" in refusal(make + "recipe='', metric='', arms=())")
    arms = "recipe='', metric='', arms=(space.Arm('a'),)"
    assert "seeds must be different numbers, got [1, 1]" in refusal(f"{make}{arms}, seeds=(1, 1))")
    assert "goal must be" in refusal(f"{make}{arms}, goal='least')")
    with pytest.raises(ValueError, match="there is no file 'nowhere.py'"):
        sweep_file.read("nowhere.py:tiny")
    assert sweep_file.read(swept.write_sweep(tmp_path, 2)).recipe == "configs/autoencoder.py:tiny"
