# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shards of a run against their checksums: by the program, before anything compiles."""

import shutil

import pytest

from f3tok_jax import train
from f3tok_jax.runs import saved_states
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import toy_run


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


def _flipped(shards, folder):
    """A copy with one bit of the last shard flipped, amid its samples; the shard's name."""
    shutil.copytree(shards, folder)
    path = sorted(folder.glob("*.array_record"))[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name


def _verified_run(shards, tmp_path, *overrides) -> int:
    config = toy_run.make_config(shards, *overrides)
    return session.run(config, str(tmp_path / "run"), stage=toy_run.STAGE, verify_data=True)


@pytest.mark.reliability("R23")
@pytest.mark.parametrize("key", ["train", "heldout"])
def test_a_flipped_bit_is_refused_before_compiling(shards, tmp_path, key):
    name = _flipped(shards, tmp_path / "damaged")
    other = f"--config.data.{key}={tmp_path / 'damaged'}"
    with pytest.raises(ValueError, match=f"shard .*damaged/{name} differs from its SHA-256"):
        _verified_run(shards, tmp_path, other)
    assert not (tmp_path / "run").exists()


@pytest.mark.reliability("R23")
def test_every_set_of_a_mixture_is_compared(shards, tmp_path):
    name = _flipped(shards, tmp_path / "damaged")
    mixture = f"--config.data.train={shards}=0.5,{tmp_path / 'damaged'}=0.5"
    with pytest.raises(ValueError, match=f"damaged/{name} differs"):
        _verified_run(shards, tmp_path, mixture)


@pytest.mark.reliability("R23")
def test_rows_that_were_replaced_are_said_and_kept(shards, tmp_path, capsys):
    _flipped(shards, tmp_path / "damaged")
    small = ("--config.num_steps=4", "--config.data.heldout=", "--config.loop.sample_every=99")
    config = toy_run.make_config(tmp_path / "damaged", *small)
    assert session.run(config, str(tmp_path / "run"), stage=toy_run.STAGE) == session.EXIT_DONE
    loader = toy_run.STAGE.make(config).open_data(
        str(tmp_path / "damaged"), train=True, process_index=0, process_count=1
    )
    list(loader.iterate(0, 4))
    wanted = loader.replaced_before(4)
    assert wanted.count and f"note: since the first step {wanted}" in capsys.readouterr().out
    kept = saved_states.read_meta(str(tmp_path / "run"))["seen"]["replaced"]
    assert kept == {"count": wanted.count, "digest": wanted.hexadecimal}


@pytest.mark.reliability("R23")
def test_a_run_that_was_interrupted_counts_replaced_rows_from_its_first_step(shards, tmp_path):
    _flipped(shards, tmp_path / "damaged")
    small = ("--config.data.heldout=", "--config.loop.sample_every=99")

    def train(name, num_steps):
        config = toy_run.make_config(
            tmp_path / "damaged", *small, f"--config.num_steps={num_steps}"
        )
        workdir = tmp_path / name
        assert session.run(config, str(workdir), stage=toy_run.STAGE) == session.EXIT_DONE
        counts = [line["data/replaced"] for line in metrics.read(workdir)]
        return counts, saved_states.read_meta(str(workdir))["seen"]["replaced"]

    whole = train("whole", 6)
    counts, _ = train("resumed", 3)
    assert 0 < counts[-1] < whole[0][-1]
    assert train("resumed", 6) == whole


def test_the_program_passes_the_flag_on(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(session, "run", lambda *args, **options: given.update(options) or 0)
    flags = ["--config=configs/autoencoder.py:tiny", f"--workdir={tmp_path}"]
    assert train.main([*flags, "--compilation_cache="]) == 0 and given["verify_data"] is False
    assert train.main([*flags, "--compilation_cache=", "--verify_data"]) == 0
    assert given["verify_data"] is True
