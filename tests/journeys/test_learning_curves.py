# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Fifty steps of every stage learn what they learnt when their curves were kept."""

import dataclasses
import json
import os
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.inference import latent_shards
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
_GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "learning_curves.json"
_ADVICE = f"""A change of the model, of a loss, of the data or of the random streams changes the
curves, and then they are to be written anew: REWRITE_GOLDEN=1 pytest {__file__}
A change that only rearranges code must not."""

# What is kept of each stage: its main loss, another, and one of the held-out data by the averages.
_KEPT = {
    "autoencoder": ("train/mel", "train/discriminator", "eval/mel"),
    "language_model": ("train/loss", "train/context_loss", "eval/loss"),
    "representation": ("train/rq_loss/k1", "train/answer_loss", "eval/rq_loss/k1"),
    "generation": ("train/flow_loss", "train/stop_loss", "eval/flow_loss"),
    "diffusion_transformer": ("train/flow_loss", "eval/flow_loss"),
}
# Of every value, relative. Two devices instead of one, SSE4.2 instead of AVX-512 and other emitters of
# XLA's move one by 5e-6 at most, another library for convolutions one of the autoencoder's by 3e-3; the
# faults below move some value of every stage by 2.4e-2 at least.
_BAND = 1e-3

_COMMON = dict(
    num_steps=50,
    checkpoint=dict(every_steps=1000),
    loop=dict(log_every=5, eval_every=25, eval_batches=2, sample_every=1000),
    mesh=dict(min_shard_size=64),
)
_SHAPE = tiny_models.SHAPE | dict(width=32, hidden_width=64, head_dim=16)
_OTHER_TASKS = dict(transcription=0.0, caption=0.0, language=0.0, instrument=0.0, event=0.0)
_TASKS = _OTHER_TASKS | dict(digit=1.0, voice=1.0)
# What makes each stage small.
_SMALL = {
    "autoencoder": dict(
        model=dict(
            strides=((2, 2), (2, 2)),
            encoder_channels=(8, 8),
            decoder_channels=(8, 8),
            latent_dim=8,
        ),
        losses=dict(mel_windows=(256,), mel_bands=(20,), adversarial_crop=0),
        discriminators=dict(
            periods=(2,),
            period_fold=9,
            period_channels=(8, 8),
            stft_windows=(256,),
            stft_channels=8,
        ),
        data=dict(batch_size=8, crop_frames=8),
        optimizer=dict(
            generator=dict(warmup_steps=5), discriminator=dict(start=25, warmup_steps=5)
        ),
    ),
    "language_model": dict(
        data=dict(batch_size=8, length=64, documents_per_row=4, tasks=_TASKS),
        model=dict(
            shape=dict(
                hidden_size=32,
                intermediate_size=64,
                head_dim=8,
                vocab_size=260,
                max_position_embeddings=64,
            )
        ),
        optimizer=dict(language_model=dict(warmup_steps=5)),
    ),
    "representation": dict(
        model=_SHAPE,
        rq=dict(codebook_size=8, num_codebooks=2, num_heads=2, statistics_frames=400),
        supervision=dict(max_tokens=24, tasks=_OTHER_TASKS | dict(digit=1.0)),
        data=dict(latents=True, batch_size=8, crop_frames=25, max_lost=1.0),
        packing=dict(examples=2, frames=0, positions=0),
        optimizer=dict(encoder=dict(warmup_steps=5, modules=dict(projector=dict(start=0.2)))),
    ),
    "generation": dict(
        model=_SHAPE,
        language_model=dict(train="low_rank", rank=4),
        sampling=dict(num_steps=2),
        text=dict(max_tokens=24, tasks=_OTHER_TASKS | dict(digit=1.0)),
        data=dict(latents=True, batch_size=8, crop_frames=25, max_lost=1.0),
        packing=dict(examples=2, patches=0, positions=0),
        optimizer=dict(head=dict(warmup_steps=5), language_model=dict(warmup_steps=5)),
    ),
    "diffusion_transformer": dict(
        model=_SHAPE,
        text=dict(max_tokens=24, tasks=_OTHER_TASKS | dict(digit=1.0)),
        data=dict(latents=True, batch_size=8, crop_frames=25, max_lost=1.0),
        optimizer=dict(diffusion_transformer=dict(learning_rate=2e-3, warmup_steps=5)),
    ),
}
# Stages that learn from latents.
_OF_LATENTS = ("representation", "generation", "diffusion_transformer")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """What each stage learns from: sound, its latents, and models of random weights."""
    root = tmp_path_factory.mktemp("curves")
    shards = sounds.labelled_set(root / "sound", num_files=12)
    tiny_models.write_run(root / "autoencoder", train=str(shards))
    latents = root / "latents"
    latent_shards.encode_shards(str(root / "autoencoder"), shards, latents, say=lambda line: None)
    found = {
        "shards": str(shards),
        "latents": str(latents),
        "autoencoder": str(root / "autoencoder"),
        "model": tiny_models.write_language_model(root / "text", scale=0.5),
        "tokenizer": str(root / "text" / "tokenizer" / "tokenizer.json"),
        "representation": str(root / "representation"),
    }
    tiny_runs.write(_config("representation", found), found["representation"])
    return found


def _config(stage: str, folders: dict[str, str], *more: str):
    data = folders["latents" if stage in _OF_LATENTS else "shards"]
    below = {
        "autoencoder": dict(),
        "language_model": dict(tokenizer=folders["tokenizer"]),
        "representation": dict(
            autoencoder=dict(workdir=folders["autoencoder"]),
            language_model=dict(folder=folders["model"]),
        ),
        "generation": dict(representation=dict(workdir=folders["representation"])),
        "diffusion_transformer": dict(
            autoencoder=dict(workdir=folders["autoencoder"]),
            language_model=dict(folder=folders["model"]),
        ),
    }[stage]
    sections = (_COMMON, _SMALL[stage], below, dict(data=dict(train=data, heldout=data)))
    given = [argument for section in sections for argument in tiny_models.overrides(**section)]
    return config_lib.read(f"{_CONFIGS}/{stage}.py:tiny", [*given, *more])


def _curves(config, workdir: pathlib.Path) -> dict[str, list[float]]:
    """Trains to the end; name -> its values, means of five steps, or of the held-out data."""
    definition = registry.of(config.stage)
    silent = lambda *given: dataclasses.replace(definition.make(*given), sample=None)
    stage = dataclasses.replace(definition, make=silent)  # sounds are a program more to compile
    ended = session.run(config, str(workdir), stage=stage, devices=jax.devices()[:1])
    assert ended == session.EXIT_DONE
    lines = metrics.read(workdir)
    return {name: [line[name] for line in lines if name in line] for name in _KEPT[config.stage]}


def _differences(found, expected) -> dict[str, float]:
    """Name -> the largest difference of a value from what it was, relative to it."""
    return {
        name: max(
            abs(value / before - 1) for value, before in zip(found[name], values, strict=True)
        )
        for name, values in expected.items()
    }


_LONG = ("autoencoder", *_OF_LATENTS)


@pytest.mark.reliability("R32")
@pytest.mark.parametrize(
    "stage",
    [pytest.param(name, marks=pytest.mark.slow if name in _LONG else ()) for name in _SMALL],
)
def test_a_stage_learns_what_it_learnt(stage, folders, tmp_path):
    found = _curves(_config(stage, folders), tmp_path)
    if os.environ.get("REWRITE_GOLDEN"):
        kept = json.loads(_GOLDEN.read_text()) if _GOLDEN.exists() else {}
        rounded = {name: [float(f"{x:.6g}") for x in values] for name, values in found.items()}
        _GOLDEN.write_text(json.dumps(kept | {stage: rounded}, indent=1) + "\n")
    differences = _differences(found, json.loads(_GOLDEN.read_text())[stage])
    assert max(differences.values()) < _BAND, f"{differences}\n{found}\n{_ADVICE}"


def test_a_stage_learns_at_all():
    for stage, curves in json.loads(_GOLDEN.read_text()).items():
        for name, values in curves.items():
            assert values[-1] < 0.95 * values[0], (stage, name)


def _a_tenth_faster(config, monkeypatch):
    for section in config.optimizer.values():
        if isinstance(section, ml_collections.ConfigDict):
            section.learning_rate *= 1.1


def _no_averages(config, monkeypatch):
    config.optimizer.ema_decay = 0.0


def _padding_counts(config, monkeypatch):
    """As if every sample, latent and token of a batch were there."""
    place = sharding.host_to_global

    def unmasked(batch, mesh):
        names = {"mask", "scored"} & batch.keys()
        there = {name: np.maximum(batch[name], np.ones_like(batch[name])) for name in names}
        return place(batch | there, mesh)

    monkeypatch.setattr(sharding, "host_to_global", unmasked)


@pytest.mark.slow
@pytest.mark.reliability("R32")
@pytest.mark.parametrize("stage", _SMALL)
@pytest.mark.parametrize("fault", [_a_tenth_faster, _no_averages, _padding_counts])
def test_a_fault_is_seen(fault, stage, folders, tmp_path, monkeypatch):
    config = _config(stage, folders)
    with config.unlocked():
        fault(config, monkeypatch)
    found, expected = _curves(config, tmp_path), json.loads(_GOLDEN.read_text())[stage]
    assert max(_differences(found, expected).values()) > 10 * _BAND
