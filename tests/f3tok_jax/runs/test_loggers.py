# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""W&B, by a stand-in for its package, and loggers of the user's own, good and bad."""

import json
import shutil
import sys
import threading
import types

import numpy as np
import pytest

from f3tok_jax.runs import loggers
from f3tok_jax.runs import metric_writer

_OWN = '''
class Kept:
    """Keeps what it hears."""

    def __init__(self, workdir, config):
        self.file = open(f"{workdir}/heard.txt", "w")
        self.write(-1, {"width": config["model"]["width"]})

    def write(self, step, values):
        print(step, values, file=self.file, flush=True)

    def close(self):
        self.write(99, {})
        self.file.close()


class Raising:
    def __init__(self, workdir, config):
        pass

    def write(self, step, values):
        raise RuntimeError("no such project")

    def close(self):
        pass


class Unborn:
    def __init__(self, workdir, config):
        raise PermissionError("no key")
'''
_CONFIG = {"model": {"width": 8}}


def _write(workdir, name: str, make: loggers.Maker | None = None) -> list[str]:
    """Two lines and two sounds of a run with one logger; what was said."""
    said = []
    outlet = loggers.Outlet(name, make or loggers.find(name), str(workdir), _CONFIG, said.append)
    writer = metric_writer.MetricWriter(str(workdir), loggers=[outlet], say=said.append)
    for step in (1, 2):
        writer.write(step, {"train/loss": 2.0 / step, "train/is_fine": True})
    sounds = {"made": np.array([[0.0, 2.0, 0.5], [0.1, 0.1, 0.1]], np.float32)}
    writer.write_sounds(2, sounds, sample_rate=8000, lengths=np.array([3, 2]))
    writer.close()
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    return said


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, named `own_loggers`."""
    (tmp_path / "own_loggers.py").write_text(_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_loggers", None)


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package, with what was asked of it in `calls`."""
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )
    fake = types.ModuleType("wandb")
    fake.calls = calls
    fake.init = lambda **options: calls.append(options) or run
    fake.Settings = dict
    fake.Audio = lambda sound, sample_rate: (len(sound), float(np.max(sound)), sample_rate)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def test_wandb_is_offline_and_hears_all_values_and_sounds(tmp_path, wandb):
    assert _write(tmp_path, "wandb") == []
    made, *heard = wandb.calls
    assert made["mode"] == "offline" and made["dir"] == str(tmp_path)
    assert made["config"] == _CONFIG and made["name"] == tmp_path.name
    audio = {"samples/0_made": (3, 1.0, 8000), "samples/1_made": (2, pytest.approx(0.1), 8000)}
    assert heard == [(1, {"train/loss": 2.0}), (2, {"train/loss": 1.0}), (2, audio), "finish"]


def test_wandb_goes_on_with_the_run_of_a_folder_and_goes_online_where_it_is_told(
    tmp_path, wandb, monkeypatch
):
    for mode in ("offline", "online"):
        monkeypatch.setenv("WANDB_MODE", mode)
        _write(tmp_path, "wandb")
    first, second = (call for call in wandb.calls if isinstance(call, dict))
    assert first["id"] == second["id"] and first["resume"] == second["resume"] == "allow"
    assert (first["mode"], second["mode"]) == ("offline", "online")


def test_a_folder_that_is_begun_anew_is_another_run_of_wandb(tmp_path, wandb):
    for _ in range(2):
        (tmp_path / "run").mkdir()
        _write(tmp_path / "run", "wandb")
        shutil.rmtree(tmp_path / "run")
    first, second = (call for call in wandb.calls if isinstance(call, dict))
    assert first["name"] == second["name"] and first["id"] != second["id"]


def test_a_class_of_the_users_own_hears_all_values(tmp_path, own):
    assert _write(tmp_path, "own_loggers:Kept") == []
    assert (tmp_path / "heard.txt").read_text().splitlines() == [
        "-1 {'width': 8}",
        "1 {'train/loss': 2.0}",
        "2 {'train/loss': 1.0}",
        "99 {}",
    ]


@pytest.mark.parametrize(
    ("kind", "reason", "count"), [("Raising", "no such project", 2), ("Unborn", "no key", 5)]
)
def test_one_that_raises_is_said_once_and_counted(tmp_path, own, kind, reason, count):
    said = _write(tmp_path, f"own_loggers:{kind}")
    what = f"calls of --logger=own_loggers:{kind}"
    assert len([line for line in said if line.startswith(f"{what} are being lost: ")]) == 1
    assert said[-1].startswith(f"{count} {what} were lost: ") and reason in said[-1]


@pytest.mark.reliability("R08")
@pytest.mark.parametrize("hangs_in", ["__init__", "write"])
def test_one_that_hangs_holds_nobody_up(tmp_path, hangs_in, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(loggers, "_CLOSE_SECONDS", 0.1)
    hang = lambda *arguments: free.wait(300) and None
    made = types.SimpleNamespace(write=hang, close=hang)
    said = _write(tmp_path, "slow", hang if hangs_in == "__init__" else lambda *_: made)
    free.set()
    assert said == [
        f"{5 if hangs_in == '__init__' else 4} calls of --logger=slow were lost: the logger "
        "stands still"
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wandb", "needs the module 'wandb', which cannot be imported (ModuleNotFoundError"),
        ("nowhere_at_all:Logger", "needs the module 'nowhere_at_all'"),
        ("json:Logger", "must be wandb or MODULE:CLASS"),
        ("json", "must be wandb or MODULE:CLASS"),
        ("", "must be wandb or MODULE:CLASS"),
    ],
)
def test_a_logger_that_is_not_there_is_refused(name, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError) as refused:
        loggers.find(name)
    assert expected in str(refused.value)
