# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder in all forms of an export beside codecs of transformers, on a CPU.

All with random weights and in float32: JAX, PyTorch, ONNX Runtime and StableHLO, and DAC, EnCodec and
Mimi at 24 kHz. Each codes as many seconds, at its own sample rate.
"""

import argparse
from collections.abc import Iterator, Sequence
import functools
import os
from typing import Any

from data_pipelines import command
from data_pipelines.records import atomic
from f3tok_jax.runs import results

OTHERS = ("dac", "encodec", "mimi")


def add_flags(parser: command.Parser) -> None:
    """Those of this benchmark."""
    parser.add_config()
    add = functools.partial(parser.add_argument, type=command.at_least(1))
    add("--seconds", default=10, help="of sound, whole ones")
    add("--batch_size", default=1, help="sounds at a time")
    add("--rounds", default=5, help="that count")
    add("--step_rounds", default=100, help="the same of single steps of a stream")
    add("--threads", default=os.cpu_count(), help="of PyTorch and ONNX Runtime; JAX takes all")
    others = command.values(str)
    text = f"of {', '.join(OTHERS)}, with commas between"
    parser.add_argument("--others", type=others, default=",".join(OTHERS), help=text)


def tables(given: argparse.Namespace) -> Iterator[tuple[str, list[results.Timing]]]:
    """Titles and rows: whole sounds, and single steps of a stream, each way."""
    import jax

    from f3tok_jax.exporting import forms

    if (backend := jax.default_backend()) != "cpu":
        raise ValueError(
            f"codecs must all be timed on the CPU, and JAX takes the {backend}: set "
            "JAX_PLATFORMS=cpu"
        )
    forms.find(["onnx"])
    if unknown := set(given.others) - set(OTHERS):
        raise ValueError(f"--others must be of {', '.join(OTHERS)}, got {', '.join(unknown)}")
    import torch

    from f3tok_jax.benchmarking import codecs
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import sound

    torch.set_num_threads(given.threads)
    config = config_lib.read(given.config, given.overrides)
    if sound.is_semantic(config):
        raise ValueError(
            f"--config must be of an autoencoder that can stream, as configs/autoencoder.py, got "
            f"{given.config}: evaluate measures others"
        )
    with atomic.temporary_folder() as folder:
        autoencoder, params = _autoencoder(config)
        timed = codecs.ours(autoencoder, params, folder, given.threads)
        timed += codecs.of_transformers(given.others)
        yield from _tables(timed, given)


def _autoencoder(config: Any) -> tuple[Any, Any]:
    """The autoencoder of a config, in float32, and random parameters."""
    import jax
    import numpy as np

    from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder

    autoencoder = pretrained_autoencoder.make(config).clone(compute_dtype="float32")
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = max(1, leaf.size // leaf.shape[-1])
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return autoencoder, jax.tree.map(draw, pretrained_autoencoder.abstract_params(autoencoder))


def _tables(
    timed: Sequence[Any], given: argparse.Namespace
) -> Iterator[tuple[str, list[results.Timing]]]:
    import numpy as np

    from f3tok_jax.benchmarking import turns

    def noise(sample_rate):
        shape = given.batch_size, given.seconds * sample_rate
        return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)

    waveforms = {rate: noise(rate) for rate in {one.sample_rate for one in timed}}
    wholes = dict.fromkeys((one.name for one in timed), given.batch_size * given.seconds)
    whole = dict(rounds=given.rounds, amounts=wholes)
    title = f"{given.batch_size} x {given.seconds} s"
    calls = {one.name: functools.partial(one.encode, waveforms[one.sample_rate]) for one in timed}
    yield f"encode, {title}", turns.measure(calls, **whole)
    coded = {one.name: one.encode(waveforms[one.sample_rate]) for one in timed}
    calls = {one.name: functools.partial(one.decode, coded[one.name]) for one in timed}
    yield f"decode, {title}", turns.measure(calls, **whole)
    both = {one.name: functools.partial(_both, one, waveforms[one.sample_rate]) for one in timed}
    yield f"encode and decode, {title}", turns.measure(both, **whole)
    amounts = {one.name: one.samples_per_step / one.sample_rate for one in timed}
    for task in ("encode_step", "decode_step"):
        calls = {one.name: getattr(one, task) for one in timed if getattr(one, task)}
        yield task, turns.measure(calls, rounds=given.step_rounds, amounts=amounts)


def _both(codec: Any, waveform: Any) -> None:
    codec.decode(codec.encode(waveform))
