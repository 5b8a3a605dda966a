# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is measured before the first step: bit-equal on every mesh, of bounded reading and memory."""

import pathlib

import jax
import numpy as np
import pytest

from data_pipelines.reading import sources
from f3tok_jax.devices import sharding
from f3tok_jax.inference import latent_shards
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import representation
from f3tok_jax.training import programs
from f3tok_jax.training import statistics
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models

_RECIPE = str(pathlib.Path(__file__).parents[3] / "configs" / "representation.py") + ":tiny"
_CROP = 25  # latents of an example
_EXAMPLES = 14  # of the data's 16: no multiple of any mesh's rows but of 1 and 2
_SMALL = tiny_models.overrides(
    model=tiny_models.SHAPE,
    rq=dict(codebook_size=8, num_codebooks=2, num_heads=2, statistics_frames=_EXAMPLES * _CROP),
    supervision=dict(weight=0.0),
    data=dict(batch_size=8, crop_frames=_CROP),
    packing=dict(examples=1, frames=0, positions=0),
    mesh=dict(min_shard_size=64),  # the autoencoder's weights are split where they can be
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Sound, an autoencoder, and its latents of the sound."""
    root = tmp_path_factory.mktemp("statistics")
    shards = sounds.labelled_set(root / "sound", num_files=16)
    tiny_models.write_run(root / "autoencoder", train=str(shards))
    latent_shards.encode_shards(
        str(root / "autoencoder"), shards, root / "latents", say=lambda line: None
    )
    return {name: str(root / name) for name in ("autoencoder", "latents")} | {"sound": str(shards)}


def _config(folders, *more: str, of: str = "sound"):
    return config_lib.read(
        _RECIPE,
        [
            *_SMALL,
            f"--config.autoencoder.workdir={folders['autoencoder']}",
            f"--config.data.latents={of == 'latents'}",
            f"--config.data.train={folders[of]}",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def alone(folders):
    """What one device measures of sound."""
    return run_checks.measured(_config(folders))


@pytest.mark.parametrize(
    "num_devices, mesh",
    [(2, {}), (4, dict(replica=2)), (8, {}), (8, dict(tensor=2)), (8, dict(fsdp=1, tensor=8))],
    ids=["2", "4 in replicas", "8", "8, some alike", "8, all alike"],
)
def test_every_mesh_finds_the_same_numbers_to_the_last_bit(folders, alone, num_devices, mesh):
    config = _config(folders, *tiny_models.overrides(mesh=mesh))
    assert run_checks.measured(config, num_devices=num_devices) == alone


def test_they_are_those_of_the_frames_themselves(folders, alone):
    """Of the data's first examples, in float64, from latents that were made elsewhere."""
    config = _config(folders, of="latents")
    data = representation.make_stage(config).open_data(
        config.data.train, train=True, process_index=0, process_count=1
    )
    batches = [data.local_batch(step) for step in range(2)]
    latents, mask = (np.concatenate([b[name] for b in batches]) for name in ("latents", "mask"))
    frames = latents[:_EXAMPLES][mask[:_EXAMPLES]].astype(np.float64)
    measured = run_checks.measured(config, num_devices=4)
    np.testing.assert_allclose(measured["mean"], frames.mean(axis=0), rtol=1e-4, atol=1e-6)
    white = (frames - measured["mean"]) @ np.asarray(measured["matrix"])
    spread = np.linalg.eigvalsh(np.cov(white.T))
    assert 0.98 < spread[-1] < 1.02  # the smallest directions lie under the floor
    np.testing.assert_allclose(measured["mean"], alone["mean"], rtol=1e-3, atol=1e-4)


def test_each_process_reads_its_share_and_no_more_than_was_asked(folders, monkeypatch):
    read = []
    get = sources.LatentSet.__getitem__
    monkeypatch.setattr(
        sources.LatentSet, "__getitem__", lambda self, i: read.append(i) or get(self, i)
    )
    config = _config(folders, of="latents")
    wanted = representation.make_stage(config).statistics
    shares = []
    for process in range(4):
        data = wanted.open_data(batch_size=8, process_index=process, process_count=4)
        read.clear()
        assert len(list(data.iterate(0, 2))) == 2
        shares.append(list(read))
    assert [len(share) for share in shares] == [4, 4, 4, 4]
    assert len(set(sum(shares, []))) == 16
    read.clear()
    lines, beats = [], []
    heard = statistics.Heard(say=lines.append, enter=beats.append)
    run_checks.measured(config, num_devices=8, heard=heard)
    assert len(read) == 16  # of two batches of 8 devices, for 14 examples
    assert beats == ["compile", "start", "statistics", "statistics"]
    assert "statistics of 14 examples" in lines[-1]


def test_memory_is_that_of_one_example_whatever_the_batch(folders):
    temporary = {}
    for batch_size in (8, 512):
        config = _config(folders, f"--config.data.batch_size={batch_size}")
        mesh = programs.make_mesh(config, jax.devices())
        with sharding.use(mesh):
            compiled = programs.CompiledStage(representation.make_stage(config), config, mesh)
            compiled.compile("statistics")
        temporary[batch_size] = compiled.statistics.memory_analysis().temp_size_in_bytes
    assert temporary[8] == temporary[512]
    one_example = 4 * compiled.stage.statistics.example["waveform"].size
    assert temporary[512] < 100 * one_example  # 4.1 MB: maps of its layers


def test_few_frames_are_refused_in_a_sentence(folders):
    config = _config(folders, f"--config.rq.statistics_frames={2 * _CROP}", of="latents")
    with pytest.raises(ValueError, match="whitening 8 channels needs at least 80 valid frames"):
        run_checks.measured(config)
    plain = "--config.rq.normalization=standardize"
    plain = run_checks.measured(_config(folders, plain, of="latents"))
    assert set(plain) == {"mean", "std"} and len(plain["std"]) == 8


def test_damaged_sound_takes_its_place_alike(folders, monkeypatch):
    """What cannot be read is replaced by the next record, on every mesh by the same."""
    get = sources.LatentSet.__getitem__

    def damaged(self, index):
        if index % 5 == 0:
            raise sources.Unreadable(f"record {index}")
        return get(self, index)

    monkeypatch.setattr(sources.LatentSet, "__getitem__", damaged)
    config = _config(folders, of="latents")
    assert run_checks.measured(config) == run_checks.measured(config, num_devices=8)
