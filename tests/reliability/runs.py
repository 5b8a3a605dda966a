# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The stages at their smallest: what they train on, their commands, and what they leave."""

from collections.abc import Mapping
import json
import os
import pathlib
import sys
from typing import Any

import ml_collections

from f3tok_jax.inference import latent_shards
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import saved_states
from tests.support import metrics
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs
from tests.support import toy_run

STAGES = ("autoencoder", "representation", "generation")
NUM_STEPS, EVERY = 12, 4
_ROOT = pathlib.Path(__file__).parents[2]
_RECIPES = {"toy": "autoencoder"}
_PLUGINS = pathlib.Path(__file__).parent / "plugins"
_TASKS = dict(transcription=0.0, caption=0.0, language=0.0, instrument=0.0, event=0.0, digit=1.0)
_SOUND = dict(batch_size=8, crop_frames=25)
# By which the stages, and the toy of tests/support, keep their best step.
_BEST = {"eval/mel", "eval/answer_loss", "eval/flow_loss", "eval/error"}
_COMMON = dict(
    num_steps=NUM_STEPS,
    mesh=dict(min_shard_size=64),
    checkpoint=dict(every_steps=EVERY),
    loop=dict(log_every=1, eval_every=EVERY, eval_batches=2, sample_every=NUM_STEPS),
)
_SMALL = dict(
    autoencoder=dict(
        model=dict(
            strides="((2,2),(2,2))",
            encoder_channels="(8,8)",
            decoder_channels="(8,8)",
            latent_dim=8,
        ),
        discriminators=dict(
            periods="(2,)", period_channels="(8,8)", stft_windows="(512,)", stft_channels=8
        ),
        losses=dict(mel_windows="(128,)", mel_bands="(10,)", adversarial_crop=0),
        data=dict(batch_size=8, crop_frames=4),
        optimizer=dict(generator=dict(warmup_steps=2), discriminator=dict(start=2, warmup_steps=2)),
    ),
    language_model=dict(
        model=dict(shape=tiny_models.LANGUAGE_MODEL | dict(vocab_size=260)),
        data=dict(batch_size=8, length=64, tasks=_TASKS),
        optimizer=dict(language_model=dict(warmup_steps=2)),
    ),
    representation=dict(
        model=tiny_models.SHAPE,
        rq=dict(codebook_size=8, num_codebooks=2, num_heads=2, statistics_frames=400),
        supervision=dict(max_tokens=24, tasks=_TASKS),
        data=_SOUND | dict(latents=True),
        packing=dict(examples=1, frames=0, positions=0),
        optimizer=dict(encoder=dict(warmup_steps=2, modules=dict(projector=dict(start=0.0)))),
    ),
    generation=dict(
        model=tiny_models.SHAPE,
        text=dict(max_tokens=24, tasks=_TASKS),
        data=_SOUND | dict(latents=True),
        packing=dict(examples=1, patches=0, positions=0),
        sampling=dict(num_steps=2),
        optimizer=dict(head=dict(warmup_steps=2)),
    ),
)


class Inputs:
    """What the stages train on, built once below a folder: sound, latents, models of before.

    Attributes:
        folder: of all of it.
        shards: of the sound.
    """

    def __init__(self, folder: str | os.PathLike):
        """Builds what is not there yet; the ancestors have random weights."""
        self.folder = pathlib.Path(folder).absolute()
        self.shards = self.folder / "sound" / "shards"
        self._latents = self.folder / "latents"
        self._autoencoder = self.folder / "autoencoder"
        self._representation = self.folder / "representation"
        self._text = self.folder / "text"
        if not (self.folder / "BUILT").exists():
            self._build()
            (self.folder / "BUILT").write_text("")

    def _build(self) -> None:
        sounds.labelled_set(self.folder / "sound", num_files=12)
        tiny_models.write_run(self._autoencoder, train=str(self.shards))
        latent_shards.encode_shards(
            str(self._autoencoder), self.shards, self._latents, say=lambda line: None
        )
        tiny_models.write_language_model(self._text)
        tiny_runs.write(self.config("representation"), str(self._representation))

    @staticmethod
    def recipe(stage: str) -> str:
        """The recipe and preset of a stage."""
        return f"{_ROOT / 'configs' / _RECIPES.get(stage, stage)}.py:tiny"

    def overrides(self, stage: str, *more: str) -> list[str]:
        """The --config arguments of a stage, or of the toy."""
        if stage == "toy":
            return toy_run.arguments(self.shards, *more)
        data = self.shards if stage in ("autoencoder", "language_model") else self._latents
        places = {
            "autoencoder": {},
            "language_model": dict(tokenizer=self._text / "tokenizer" / "tokenizer.json"),
            "representation": dict(
                autoencoder=dict(workdir=self._autoencoder),
                language_model=dict(folder=self._text / "model"),
            ),
            "generation": dict(representation=dict(workdir=self._representation)),
        }
        changes = (_COMMON, _SMALL[stage], dict(data=dict(train=data, heldout=data)), places[stage])
        return [flag for part in changes for flag in tiny_models.overrides(**part)] + list(more)

    def config(self, stage: str, *more: str) -> ml_collections.ConfigDict:
        """The config of a stage."""
        return config_lib.read(self.recipe(stage), self.overrides(stage, *more))

    def command(
        self,
        stage: str,
        workdir: str | os.PathLike,
        cache: str | os.PathLike,
        *more: str,
        num_devices: int = 1,
    ) -> dict[str, Any]:
        """Arguments of subprocess for the training program, on so many devices."""
        if stage == "toy":
            return toy_run.command(self.shards, workdir, str(cache), *more, num_devices=num_devices)
        flags = [f"--config={self.recipe(stage)}", f"--workdir={workdir}"]
        environment = {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(num_devices),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "PYTHONPATH": f"{_ROOT}{os.pathsep}{_PLUGINS}",
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        program = [sys.executable, "-m", "f3tok_jax.train", *flags]
        return {
            "args": [*program, *self.overrides(stage, *more)],
            "env": os.environ | environment,
        }


def left_by(workdir: str | os.PathLike, *, last: int = NUM_STEPS) -> dict[str, Any]:
    """What a finished run leaves: name -> value, of all that must not depend on what befell it.

    A fingerprint of every leaf of its state, every figure of every step and evaluation, and
    how good the best step is that is kept.
    """
    left = {f"state {path}": text for path, text in fingerprints(workdir, last).items()}
    for line in metrics.read(workdir):
        for name, value in line.items():
            if name.startswith(("train/", "eval/")):
                left[f"step {line['step']} {name}"] = value
    scores = {}
    for step in saved_states.steps(str(workdir)):
        values = saved_states.read_meta(str(workdir), step)["metrics"]
        scores |= {
            name: min(values[name], scores.get(name, values[name]))
            for name in _BEST & values.keys()
        }
    left |= {f"best kept {name}": score for name, score in scores.items()}
    left["done"] = json.loads((pathlib.Path(workdir) / "DONE").read_text())["step"]
    return left


def fingerprints(workdir: str | os.PathLike, step: int = NUM_STEPS) -> dict[str, str]:
    """Path -> fingerprint of every leaf of a saved state; equal means bit-equal."""
    return saved_states.read_meta(str(workdir), step)["fingerprints"]


def differences(workdir: str | os.PathLike, reference: str | os.PathLike) -> list[str]:
    """What a finished run leaves otherwise than one that was not disturbed; none if it is equal."""
    return compare(left_by(workdir), left_by(reference))


def compare(one: Mapping[str, Any], undisturbed: Mapping[str, Any]) -> list[str]:
    """What differs between what two runs left."""
    return [
        f"{name} is {one.get(name)}, undisturbed {undisturbed.get(name)}"
        for name in sorted(one.keys() | undisturbed.keys())
        if one.get(name) != undisturbed.get(name)
    ]
