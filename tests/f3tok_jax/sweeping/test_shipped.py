# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shipped sweeps train: the first and the last arm of each, two steps, small, on what they need.

Minutes: python -m pytest -m slow tests/f3tok_jax/sweeping/test_shipped.py
"""

import json
import pathlib

import pytest

from f3tok_jax import sweep
from f3tok_jax.sweeping import sweep_file
from tests.support import metrics
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_LOOP = dict(log_every=1, eval_every=1, eval_batches=1, sample_every=2)
_SHORT = tiny_models.overrides(num_steps=2, loop=_LOOP, data=dict(batch_size=8, crop_frames=10))


def _warmup(*players: str) -> dict:
    return {name: dict(warmup_steps=1) for name in players}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return str(sounds.labelled_set(tmp_path_factory.mktemp("sound"), num_files=12))


def _autoencoder(folder: pathlib.Path) -> list[str]:
    return tiny_models.overrides(
        losses=dict(adversarial_crop=0), optimizer=_warmup("generator", "discriminator")
    )


def _representation(folder: pathlib.Path) -> list[str]:
    tiny_models.write_run(folder / "autoencoder")
    return tiny_models.overrides(
        autoencoder=dict(workdir=folder / "autoencoder"),
        language_model=dict(folder=tiny_models.write_language_model(folder)),
        model=tiny_models.SHAPE,
        rq=dict(statistics_frames=400),
        optimizer=_warmup("encoder"),
        supervision=dict(
            max_tokens=32,
            tasks=dict(digit=1.0, transcription=0.0, caption=0.0, language=0.0)
            | dict(instrument=0.0, event=0.0),
        ),
    )


def _generation(folder: pathlib.Path) -> list[str]:
    made = tiny_runs.write_chain(folder)["representation"]  # of two latents per token
    shape = {key: value for key, value in tiny_models.SHAPE.items() if key != "num_layers"}
    tasks = dict(transcription=0.0, caption=0.0, digit=1.0)
    changes = tiny_models.overrides(
        model=shape,
        text=dict(max_tokens=24, tasks=tasks),
        optimizer=_warmup("head", "language_model", "encoder"),
    )
    return [*changes, *(f"--map=runs/patches/patch-{patch}_0={made}" for patch in (1, 2, 4))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, prepare",
    [
        ("bottleneck", _autoencoder),
        ("bottleneck_kinds", _autoencoder),
        ("learning_rates", _autoencoder),
        ("rq_mtp", _representation),
        ("patches", _representation),
        ("losses", _representation),
        ("targets", _representation),
        ("flow_head", _generation),
    ],
)
def test_two_arms_of_a_shipped_sweep_train(name, prepare, shards, tmp_path, capsys):
    file = f"{sweep_file.shipped()[name]}:tiny"
    found = sweep_file.read(file)
    # Its last arms whiten spectra, of which there is too little here.
    arms = [found.arms[0].folder, found.arms[3 if name == "targets" else -1].folder]
    data = tiny_models.overrides(data=dict(train=shards, heldout=shards))
    arguments = [f"--sweep={file}", f"--workdir={tmp_path / 's'}", f"--only={','.join(arms)}"]
    output = tmp_path / "table.json"
    arguments += [*_SHORT, *data, *prepare(tmp_path), "--max_parallel=2", f"--output={output}"]
    assert sweep.main(arguments) == 0, capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    for arm in arms:
        row = rows[f"{arm}_0"]
        assert (row["state"], row["step"], row["num_steps"]) == ("done", 2, 2)
        assert row["chip_hours"] > 0 and row["wall_seconds"] > 0
        assert metrics.read(tmp_path / "s" / f"{arm}_0")
    # The metric that ranks them is one that they have.
    assert rows[f"{arms[0]}_0"]["best"] is not None
    assert sum(row["state"] == "waiting" for row in rows.values()) == len(found.arms) - 2
