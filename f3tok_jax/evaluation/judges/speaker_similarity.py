# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""GE2E: how alike two voices are, by an embedding that was trained to tell speakers apart."""

from collections.abc import Mapping

import numpy as np

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.pretrained import torch_file
from f3tok_jax.signal import spectra

_WEIGHTS = "resemblyzer/pretrained.pt"
_LAYERS = 3
_FRAMES = 160  # of 10 ms, in a part
_STEP = 77  # frames from part to part: 1.3 parts a second
_HOP, _WINDOW, _MELS = 160, 400, 40  # samples, samples, bands
_LEAST_COVERED = 0.75  # of the last part, by sound
_LEVEL_DB = -30.0  # below full scale, to which softer sounds are raised


class SpeakerSimilarity(judge.Judge):
    """The cosine of two embeddings by the LSTM in Resemblyzer, re-run in NumPy.

    Pauses stay in, where the package cuts them by another detector of speech (webrtcvad).

    Source: Wan et al., "Generalized end-to-end loss for speaker verification", 2018; Resemblyzer
    0.1.4, voice_encoder.py and audio.py.
    """

    name = "resemblyzer"
    package = judge.Package(
        name="Resemblyzer",
        files=(_WEIGHTS,),
        install="pip install --no-deps Resemblyzer",
        licence="Apache-2.0",
    )
    figures = {
        "speaker_similarity": judge.metric(
            "speaker similarity",
            higher=True,
            explanation="Cosine of GE2E embeddings of the sound and of the recording whose voice it "
            "should have: 1 is the same; sentences of one reader have about 0.9, unlike voices 0.6.",
        )
    }
    comparing = frozenset(figures)
    is_of_speakers = True

    def __init__(self):
        self._weights = torch_file.read(self.package.file(_WEIGHTS), below="model_state")

    def _hear(self, sound: np.ndarray) -> np.ndarray:
        """[256] of norm 1."""
        judge.check_loud(sound)
        mean = embeddings(mel_parts(sound), self._weights).mean(axis=0)
        return mean / max(np.linalg.norm(mean), 1e-9)

    def verdict(
        self,
        heard: np.ndarray,
        *,
        reference: np.ndarray | None = None,
        text: str = "",
        language: str = "",
    ) -> judge.Verdict:
        del text, language
        if reference is None:
            return judge.Verdict({})
        return judge.Verdict({"speaker_similarity": float(heard @ reference)})


def mel_parts(sound: np.ndarray) -> np.ndarray:
    """[n] at 16 kHz -> [parts, 160, 40]: power of mel bands, parts of 1.6 s every 0.77 s."""
    level = 10.0 * np.log10(np.mean(np.square(sound, dtype=np.float64)))
    sound = sound * np.float32(10.0 ** (max(0.0, _LEVEL_DB - level) / 20.0))
    num_frames = -(-(len(sound) + 1) // _HOP)
    starts = list(range(0, max(1, num_frames - _FRAMES + _STEP + 1), _STEP))
    covered = (len(sound) - starts[-1] * _HOP) / (_FRAMES * _HOP)
    if covered < _LEAST_COVERED and len(starts) > 1:
        starts.pop()
    end = (starts[-1] + _FRAMES) * _HOP
    sound = np.pad(sound, (0, max(0, end - len(sound))))
    options = dict(frame_length=_WINDOW, hop_length=_HOP, num_mels=_MELS)
    mel = spectra.mel_power_on_host(sound, judge.RATE, **options).astype(np.float32)
    return np.stack([mel[start : start + _FRAMES] for start in starts])


def embeddings(mels: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """[parts, frames, 40] -> [parts, 256], of norm 1 and not negative."""
    hidden = mels
    for layer in range(_LAYERS):
        hidden = _lstm(hidden, weights, layer)
    raw = np.maximum(hidden[:, -1] @ weights["linear.weight"].T + weights["linear.bias"], 0.0)
    return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9)


def _lstm(inputs: np.ndarray, weights: Mapping[str, np.ndarray], layer: int) -> np.ndarray:
    """One layer of torch.nn.LSTM: [b, t, d] -> [b, t, 256]."""
    own, hidden_weight, *biases = (
        weights[f"lstm.{name}_l{layer}"]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    driven = inputs @ own.T + sum(biases)
    state = cell = np.zeros((len(inputs), hidden_weight.shape[1]), np.float32)
    states = []
    for time in range(inputs.shape[1]):
        gates = driven[:, time] + state @ hidden_weight.T
        enter, forget, new, leave = np.split(gates, 4, axis=1)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
        state = _sigmoid(leave) * np.tanh(cell)
        states.append(state)
    return np.stack(states, axis=1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # as 1 / (1 + exp(-x)), which overflows
