# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Codecs of different sample rates, timed over as many seconds."""

import types

import jax
import numpy as np

from f3tok_jax import benchmark
from f3tok_jax.benchmarking import codec


def _codec(
    name: str, sample_rate: int, samples_per_step: int, heard: dict
) -> types.SimpleNamespace:
    def encode(waveform: np.ndarray) -> np.ndarray:
        heard[name] = waveform.shape
        return waveform

    return types.SimpleNamespace(
        name=name,
        encode=encode,
        decode=lambda found: None,
        encode_step=lambda: None,
        decode_step=lambda: None,
        samples_per_step=samples_per_step,
        sample_rate=sample_rate,
    )


def test_each_codes_sound_of_its_own_sample_rate():
    heard = {}
    timed = [_codec("ours", 48_000, 1_920, heard), _codec("other", 24_000, 1_920, heard)]
    given = types.SimpleNamespace(batch_size=2, seconds=3, rounds=1, step_rounds=1)
    tables = dict(codec._tables(timed, given))
    assert heard == {"ours": (2, 3 * 48_000), "other": (2, 3 * 24_000)}
    assert [row.amount for row in tables["encode, 2 x 3 s"]] == [6, 6]
    assert [row.amount for row in tables["encode_step"]] == [0.04, 0.08]


def test_forms_on_several_processors_are_not_compared(monkeypatch, capsys):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert benchmark.main(["codec", "--config=configs/autoencoder.py:tiny"]) == 1
    said = capsys.readouterr().err
    assert "JAX takes the gpu: set JAX_PLATFORMS=cpu" in said and said.count("\n") == 1
