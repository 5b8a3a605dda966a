# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A stage with two players that trains in milliseconds, its data, and train.main with it, for tests.

    python tests/support/toy_run.py --config=... --workdir=...       like python -m f3tok_jax.train

Environment, for the tests of what goes wrong:
    TOY_KILL_AT, TOY_TERM_AT, TOY_HANG_UP_AT step at whose log line the process gets the signal
    TOY_SIGNAL                               SIGTERM:evaluation:2, for the second time it evaluates;
                                             or in another of _PHASES
    TOY_STALL_AT                             step at whose log line it stalls
    TOY_FILL_AT, TOY_FILL                    step at whose log line a file fills its disk
    TOY_HASHES                               file that gets a line per batch: step, hash of every row
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys
import time
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import soundfile

from data_pipelines.building import builder
from data_pipelines.inputs import folders
from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import pipeline
from f3tok_jax import train as program
from f3tok_jax.devices import sharding
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import metric_writer
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from f3tok_jax.training import loop
from f3tok_jax.training import players
from f3tok_jax.training import programs
from f3tok_jax.training import reports as reports_lib
from f3tok_jax.training import session
from f3tok_jax.training import stage as stage_lib
from f3tok_jax.training import state as train_state
from f3tok_jax.training import watchdog
from tests.support import metrics
from tests.support import sounds

_ROOT = pathlib.Path(__file__).parents[2]
_RECIPE = f"{_ROOT / 'configs' / 'autoencoder.py'}:tiny"
SAMPLE_RATE, FRAME, WIDTH = 16_000, 80, 48
OVERRIDES = (
    "--config.num_steps=12",
    "--config.data.batch_size=8",
    "--config.data.crop_frames=2",
    "--config.losses.adversarial_crop=0",
    "--config.checkpoint.every_steps=4",
    "--config.loop.log_every=1",
    "--config.loop.eval_every=4",
    "--config.loop.eval_batches=2",
    "--config.loop.sample_every=12",
    "--config.mesh.min_shard_size=256",
    # Constant, so that a run of any length is the same program with the same numbers.
    *(
        f"--config.optimizer.{player}.{key}"
        for player in ("generator", "discriminator")
        for key in ("warmup_steps=2", "schedule=constant")
    ),
)


def build_data(
    folder: pathlib.Path, *, num_files: int = 24, sample_rate: int = SAMPLE_RATE
) -> pathlib.Path:
    """Writes noise-like sounds of different lengths and builds them into a shard set."""
    files = folder / "sounds"
    files.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(num_files):
        time_axis = np.arange(int(sample_rate * rng.uniform(0.1, 0.4))) / sample_rate
        waveform = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 1000) * time_axis) + 0.05 * rng.normal(
            size=time_axis.size
        )
        soundfile.write(files / f"{index:03d}.wav", waveform, sample_rate)
    conversion = sounds.conversion(sample_rate=sample_rate, segment_length=sample_rate // 2)
    source = folders.Folder(str(files))
    builder.build(source, folder / "shards", conversion, say=lambda message: None)
    return folder / "shards"


def arguments(shards: pathlib.Path, *more: str) -> list[str]:
    """The --config arguments of a toy run."""
    return [*OVERRIDES, f"--config.data.train={shards}", f"--config.data.heldout={shards}", *more]


def make_config(shards: pathlib.Path, *more: str):
    """The config of a toy run."""
    return config_lib.read(_RECIPE, arguments(shards, *more))


def train(
    shards: pathlib.Path,
    workdir: pathlib.Path,
    *more: str,
    num_devices: int = 2,
    stage: stage_lib.Definition | None = None,
    reports: reports_lib.Reports = reports_lib.Reports(),
) -> int:
    """Runs the toy stage, or another in its place, to its end in this process; the exit code."""
    return session.run(
        make_config(shards, *more),
        str(workdir),
        stage=stage or STAGE,
        devices=jax.devices()[:num_devices],
        reports=reports,
    )


def fingerprints(workdir: pathlib.Path, step: int = 12) -> dict[str, str]:
    """Fingerprint of every leaf of params, opt_state and ema_params: equal means bit-equal."""
    return saved_states.read_meta(str(workdir), step)["fingerprints"]


def losses(workdir: pathlib.Path) -> list[float]:
    """The training errors of a run, of each step that was finite."""
    return [line["train/error"] for line in metrics.read(workdir) if "train/error" in line]


def command(
    shards: pathlib.Path, workdir: pathlib.Path, cache: str, *more: str, num_devices: int
) -> dict[str, Any]:
    """Arguments of subprocess for this program in a process of its own.

    Args:
        shards: to train on.
        workdir: of the run.
        cache: folder of compiled programs.
        *more: further flags.
        num_devices: of the process.
    """
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(num_devices),
        "PYTHONPATH": str(_ROOT),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    flags = [f"--config={_RECIPE}", f"--workdir={workdir}", *arguments(shards), *more]
    return {"args": [sys.executable, __file__, *flags], "env": os.environ | environment}


def make_stage(config, run=None) -> stage_lib.Stage:
    """Two linear players on frames of samples; data, noise and skipping as in the real stages."""
    crop = config.data.crop_frames * 640
    shape = (config.data.batch_size, crop)
    optimizers = {
        name: _make_optimizer(config.optimizer[name], config.num_steps)
        for name in ("generator", "discriminator")
    }
    return stage_lib.Stage(
        batch_spec={
            "waveform": jax.ShapeDtypeStruct(shape, jnp.float32),
            "mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
            "begins": jax.ShapeDtypeStruct(shape[:1], jnp.bool_),
            "ends": jax.ShapeDtypeStruct(shape[:1], jnp.bool_),
        },
        init_state=functools.partial(_init_state, optimizers=optimizers),
        open_data=lambda names, **hosts: pipeline.Pipeline(
            names,
            mixture_pipeline.Options(
                batch_size=config.data.batch_size,
                seed=config.seed,
                max_replaced=config.data.max_replaced,
                **hosts,
            ),
            sample_rate=SAMPLE_RATE,
            crop_length=crop,
            gain_db=config.data.gain_db,
        ),
        abstract_frozen={"window": jax.ShapeDtypeStruct((FRAME,), jnp.float32)},
        load_frozen=lambda shardings, measured: _window(shardings),
        statistics=_statistics(config, crop),
        train_step=functools.partial(_train_step, optimizers=optimizers, config=config),
        eval_step=_eval_step,
        sample=_sample,
        watched=(
            stage_lib.Watched(metric="train/error", lever="lower the learning rate"),
            stage_lib.Watched(metric="train/grad_norm", lever="clip it", factor=5.0),
        ),
        best_metric="eval/error",
        sample_rate=SAMPLE_RATE,
        per_batch=shape[0] * crop / SAMPLE_RATE,
    )


def _make_optimizer(section, num_steps):
    return optax.chain(
        optax.clip_by_global_norm(section.clip_norm),
        optax.adamw(players.make_schedule(section, num_steps), b1=section.b1, b2=section.b2),
    )


def _window(shardings):
    return jax.device_put({"window": np.hanning(FRAME).astype(np.float32)}, shardings)


def _statistics(config, crop: int) -> stage_lib.Statistics:
    """Of 13 examples, which no mesh divides: the mean of each place in a window, and a count."""

    def sums(frozen, batch):
        frames = (
            _frames(jnp.where(batch["mask"], batch["waveform"], 0.0)) * frozen["window"][None, None]
        )
        return jnp.sum(frames, axis=(0, 1)), jnp.sum(batch["mask"], dtype=jnp.float32)

    shapes = dict(waveform=((crop,), jnp.float32), mask=((crop,), jnp.bool_))
    shapes |= dict(begins=((), jnp.bool_), ends=((), jnp.bool_))
    return stage_lib.Statistics(
        num_examples=13,
        example={name: jax.ShapeDtypeStruct(*pair) for name, pair in shapes.items()},
        open_data=lambda **rows: pipeline.Pipeline(
            config.data.train,
            mixture_pipeline.Options(seed=config.seed, **rows),
            sample_rate=SAMPLE_RATE,
            crop_length=crop,
            random_crop=False,
        ),
        reads=("window",),
        load=_window,
        sums=sums,
        finish=lambda found: {"mean": (found[0] / found[1]).tolist(), "count": float(found[1])},
    )


def _init_state(key, *, optimizers):
    normal = lambda name, *shape: 0.1 * jax.random.normal(train_state.step_key(key, 0, name), shape)
    params = {
        "generator": {
            "encoder": normal("encoder", FRAME, WIDTH),
            "decoder": normal("decoder", WIDTH, FRAME),
            "bias": jnp.zeros(FRAME),
        },
        "discriminator": {"kernel": normal("kernel", FRAME, 16), "out": normal("out", 16)},
    }
    return train_state.TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers.items()},
        ema_params={"generator": params["generator"]},
    )


def _frames(waveform):
    return waveform.reshape(waveform.shape[0], -1, FRAME)


def _reconstruct(params, frames, noise=0.0):
    return (frames @ params["encoder"] + noise) @ params["decoder"] + params["bias"][None, None]


def _train_step(state, frozen, batch, *, optimizers, config):
    params = sharding.gather(state.params)
    frames = _frames(jnp.where(batch["mask"], batch["waveform"], 0.0))
    key = train_state.step_key(config.seed, state.step, "noise")
    noise = 0.05 * jax.random.normal(key, (*frames.shape[:2], WIDTH))

    def discriminate(p, sound):
        return jnp.tanh((sound * frozen["window"][None, None]) @ p["kernel"]) @ p["out"]

    def generator_loss(p):
        fake = _reconstruct(p, frames, noise)
        error = jnp.mean(jnp.square(fake - frames))
        return error + 0.01 * jnp.mean(
            jnp.square(discriminate(params["discriminator"], fake) - 1.0)
        ), (
            error,
            fake,
        )

    grads = {}
    (_, (error, fake)), grads["generator"] = jax.value_and_grad(generator_loss, has_aux=True)(
        params["generator"]
    )
    grads["discriminator"] = jax.grad(
        lambda p: jnp.mean(
            jnp.square(discriminate(p, frames) - 1.0) + jnp.square(discriminate(p, fake))
        )
    )(params["discriminator"])
    finite = jnp.isfinite(optax.tree.norm(grads))
    changed = {"params": {}, "opt_state": {}}
    for name, tx in optimizers.items():
        updates, changed["opt_state"][name] = tx.update(
            grads[name], state.opt_state[name], state.params[name]
        )
        changed["params"][name] = optax.apply_updates(state.params[name], updates)
    changed["ema_params"] = train_state.update_ema(
        state.ema_params, {"generator": changed["params"]["generator"]}, decay=0.9
    )
    new = train_state.select_finite(finite, state.replace(**changed), state)
    one = jnp.float32(1.0)
    metrics = {
        "train/error": (error, one),
        "train/grad_norm": (optax.tree.norm(grads), one),
        "train/nonfinite": (jnp.float32(~finite), one),
    }
    return new.replace(step=state.step + 1), metrics


def _eval_step(state, frozen, batch):
    del frozen
    frames = _frames(batch["waveform"])
    error = jnp.square(
        _reconstruct(sharding.gather(state.ema_params["generator"]), frames) - frames
    )
    return {"eval/error": (jnp.sum(error), jnp.float32(error.size))}


def _sample(state, frozen, batch):
    del frozen
    made = _reconstruct(state.ema_params["generator"], _frames(batch["waveform"]))
    return {"reference": batch["waveform"], "reconstruction": made.reshape(batch["waveform"].shape)}


# Where a run may be when it is told to leave, in this order.
_PHASES = {
    "flags": (program, "_train"),
    "open": (session, "_open_inputs"),
    "folder": (session, "_open_folder"),
    "statistics": (watchdog.Watchdog, "beat"),  # of the first examples
    "restore": (checkpoint.Checkpointer, "restore_latest"),
    "compile": (programs.CompiledStage, "compile"),
    "step": (loop, "_read"),
    "evaluation": (loop, "_evaluate"),
    "samples": (loop, "_write_samples"),
    "save": (checkpoint.Checkpointer, "save"),
    "end": (loop, "_finish"),
    "done": (run_folder, "mark_done"),
}


def _inject_faults() -> None:
    """Makes the run slow, or misbehave at the steps that the environment names."""
    write, local_batch = metric_writer.MetricWriter.write, pipeline.Pipeline.local_batch

    def faulty_write(self, step, values):
        write(self, step, values)
        time.sleep(float(os.environ.get("TOY_STEP_SECONDS", "0")) * ("train/error" in values))
        at = lambda name: "train/error" in values and step == int(os.environ.get(name, "-1"))
        if at("TOY_KILL_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        if at("TOY_TERM_AT"):
            os.kill(os.getpid(), signal.SIGTERM)
        if at("TOY_HANG_UP_AT"):
            os.kill(os.getpid(), signal.SIGHUP)
        if at("TOY_FILL_AT"):
            with contextlib.suppress(OSError), open(os.environ["TOY_FILL"], "wb", 0) as file:
                while True:
                    file.write(bytes(4096))
        if at("TOY_STALL_AT"):
            time.sleep(1000)

    def hashed_batch(self, step):
        batch = local_batch(self, step)
        if self.options.train and "TOY_HASHES" in os.environ:
            rows = [zlib.crc32(row.tobytes()) for row in batch["waveform"]]
            with open(os.environ["TOY_HASHES"], "a", encoding="utf-8") as file:
                file.write(json.dumps([step, rows]) + "\n")
        return batch

    metric_writer.MetricWriter.write = faulty_write
    pipeline.Pipeline.local_batch = hashed_batch
    if "TOY_SIGNAL" in os.environ:
        name, phase, count = os.environ["TOY_SIGNAL"].split(":")
        _signal_in(phase, signal.Signals[name], int(count))


def _signal_in(phase: str, number: int, count: int) -> None:
    """Sends this process a signal when it enters a phase for the `count`-th time."""
    owner, name = _PHASES[phase]
    original, calls = getattr(owner, name), []

    def interrupted(*arguments, **options):
        calls.append(phase)
        if len(calls) == count and phase != "save":
            os.kill(os.getpid(), number)
        result = original(*arguments, **options)
        if len(calls) == count and phase == "save":
            os.kill(os.getpid(), number)  # while it is written in the background
        return result

    setattr(owner, name, interrupted)


# In the place of the stage whose recipe it has.
STAGE = dataclasses.replace(registry.of("autoencoder"), make=make_stage)


if __name__ == "__main__":
    _inject_faults()
    registry.STAGES[STAGE.name] = STAGE
    sys.exit(program.main())
