# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""DistillMOS: predicted opinion of speech, by a small network that learnt from a large one."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.pretrained import torch_file
from f3tok_jax.signal import spectra

_WEIGHTS = "distillmos/weights/distill_mos_v7.pt"
_SAMPLES = 122_880  # 7.68 s, that the network takes
_MOST_APART = 16_000  # samples between the starts of two windows of a longer sound
_WINDOW, _HOP = 320, 160  # samples
_COMPRESSION = 0.3  # power of magnitudes
_CONVOLUTIONS, _LAYERS, _HEADS = 6, 7, 8
_EPSILON = 1e-5  # of all normalisations
_HEAD = "transformer_pool_attn."

Weights = Mapping[str, jax.Array]


class DistillMos(judge.Judge):
    """The network of the package distillmos, re-run in JAX: neither PyTorch nor torchaudio.

    Source: Stahl and Gamper, "Distillation and pruning for scalable self-supervised
    representation-based speech quality assessment", 2025; distillmos 0.9.1, sqa.py.
    """

    name = "distillmos"
    package = judge.Package(
        name="distillmos",
        files=(_WEIGHTS,),
        install="pip install --no-deps distillmos",
        licence="MIT",
    )
    figures = {
        "mos": judge.metric(
            "DistillMOS",
            higher=True,
            explanation="Predicted opinion of speech, 1 to 5, by a network distilled from XLS-R, "
            "which was trained on many listening tests.",
        )
    }

    def __init__(self):
        stored = torch_file.read(self.package.file(_WEIGHTS), below="model")
        self._weights = folded(stored)

    def _hear(self, sound: np.ndarray) -> float:
        judge.check_loud(sound)
        return float(np.mean([opinion(self._weights, window) for window in windows(sound)]))

    def verdict(
        self, heard: float, *, reference=None, text: str = "", language: str = ""
    ) -> judge.Verdict:
        del reference, text, language
        return judge.Verdict({"mos": heard})


def windows(sound: np.ndarray) -> list[np.ndarray]:
    """[n] -> windows of 7.68 s that cover it, each to its own peak; a short one is filled up."""
    over = max(0, len(sound) - _SAMPLES)
    sound = np.pad(sound, (0, max(0, _SAMPLES - len(sound))))
    count = -(-over // _MOST_APART) + 1
    starts = (int(part * over) for part in np.linspace(0, 1, count))
    parts = (sound[start : start + _SAMPLES] for start in starts)
    return [part / (np.abs(part).max() + 1e-8) for part in parts]


def folded(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights in which each normalisation by moments is a scale and a shift."""
    weights = {name: one for name, one in stored.items() if one.dtype == np.float32}
    for name in [name for name in weights if name.endswith("running_mean")]:
        owner = name.removesuffix("running_mean")
        deviation = np.sqrt(weights.pop(f"{owner}running_var") + _EPSILON)
        scale = weights.pop(f"{owner}weight") / deviation
        weights[f"{owner}shift"] = weights.pop(f"{owner}bias") - weights.pop(name) * scale
        weights[f"{owner}scale"] = scale
    return weights


def opinion(weights: Weights, window: np.ndarray) -> float:
    """What the network says of a window [122880]: 1 to 5."""
    edge = (_WINDOW - _HOP) // 2
    padded = np.pad(window.astype(np.float32), edge, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(frames * spectra.hann_window(_WINDOW)).astype(np.complex64)
    size = np.maximum(np.abs(spectrum), 1e-12)
    compressed = size**_COMPRESSION * spectrum / size
    image = np.stack([compressed.real, compressed.imag], axis=-1)  # [time, bins, 2]
    with jax.default_matmul_precision("highest"):  # on any device as on a CPU
        return float(_network(weights, image[None]))


@jax.jit
def _network(weights: Weights, image: jax.Array) -> jax.Array:
    """[1, time, bins, 2] -> []."""
    x = image
    for layer in range(_CONVOLUTIONS):
        name = f"cnn.cnn.{2 * layer}."
        strides = (2 if layer == _CONVOLUTIONS - 1 else 1, 2 if layer else 1)
        kernel = weights[f"{name}weight"].transpose(3, 2, 1, 0)  # [out, in, bins, time] there
        x = jax.lax.conv_general_dilated(
            x, kernel, strides, ((1, 1), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.leaky_relu(x + _row(weights[f"{name}bias"], 4), 0.1)
    x = x[0].transpose(0, 2, 1).reshape(x.shape[1], -1)  # channels, and in them bins
    for name in ("norm_input.", "transformer.norm."):
        x = _normed(weights, f"{_HEAD}{name}", x)
    x = _dense(weights, f"{_HEAD}transformer.linear_proj.", x)
    x = x + weights[f"{_HEAD}transformer.position_encoding.pe"][0]
    for layer in range(_LAYERS):
        x = _layer(weights, f"{_HEAD}transformer.transformer_encoder.layers.{layer}.", x)
    x = _normed(weights, f"{_HEAD}norm_trans.", x)
    heard = jax.nn.relu(_dense(weights, f"{_HEAD}pool.linear1.", x))
    share = jax.nn.softmax(_dense(weights, f"{_HEAD}pool.linear2.", heard), axis=0)
    pooled = jnp.sum(share * x, axis=0, keepdims=True)
    return 1.0 + 4.0 * jax.nn.sigmoid(_dense(weights, f"{_HEAD}pool.linear3.", pooled))[0, 0]


def _layer(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """One layer of torch.nn.TransformerEncoder, [time, width], normalised after each part."""
    time, width = x.shape
    joint = x @ weights[f"{name}self_attn.in_proj_weight"].T
    joint = joint + _row(weights[f"{name}self_attn.in_proj_bias"], 2)
    query, key, value = joint.reshape(time, 3, _HEADS, width // _HEADS).transpose(1, 2, 0, 3)
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(width // _HEADS)
    heard = (jax.nn.softmax(scores, axis=-1) @ value).transpose(1, 0, 2).reshape(time, width)
    x = _layer_normed(
        weights, f"{name}norm1.", x + _dense(weights, f"{name}self_attn.out_proj.", heard)
    )
    more = jax.nn.relu(_dense(weights, f"{name}linear1.", x))
    return _layer_normed(weights, f"{name}norm2.", x + _dense(weights, f"{name}linear2.", more))


def _dense(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ weights[f"{name}weight"].T + _row(weights[f"{name}bias"], 2)


def _normed(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return x * _row(weights[f"{name}scale"], 2) + _row(weights[f"{name}shift"], 2)


def _layer_normed(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    centred = centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + _EPSILON)
    return centred * _row(weights[f"{name}weight"], 2) + _row(weights[f"{name}bias"], 2)


def _row(vector: jax.Array, rank: int) -> jax.Array:
    """A vector with as many axes as what it is added to: ranks are never promoted silently."""
    return vector.reshape((1,) * (rank - 1) + (-1,))
