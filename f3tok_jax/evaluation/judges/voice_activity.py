# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Silero VAD: where in a sound somebody speaks."""

import numpy as np

from f3tok_jax.evaluation.judges import judge

_GRAPH = "silero_vad/data/silero_vad_16k_sequence.onnx"
_WINDOW, _CONTEXT, _WIDTH = 512, 64, 128  # samples, samples of the window before, of the LSTM
_SPEECH = 0.5  # probability from which on a window is speech (the package's default)


class SileroVad(judge.Judge):
    """Windows of 32 ms, speech or not, by the graph of silero-vad that takes them all at once."""

    name = "silero_vad"
    package = judge.Package(
        name="silero-vad",
        files=(_GRAPH,),
        modules=("onnxruntime",),
        install="pip install onnxruntime, pip install --no-deps silero-vad",
        licence="MIT",
    )
    figures = {
        "speech_share": judge.metric(
            "speech",
            higher=True,
            explanation="Share of windows of 32 ms that Silero VAD takes for speech: how much of a "
            "sound still is one. What is natural is in the recordings' row.",
        ),
        "speech_agreement": judge.metric(
            "speech agreement",
            higher=True,
            explanation="Share of the windows in which Silero VAD decides as in the recording.",
        ),
    }
    comparing = frozenset({"speech_agreement"})

    def __init__(self):
        self._graph = judge.onnx_session(self.package.file(_GRAPH))

    def _hear(self, sound: np.ndarray) -> np.ndarray:
        """Which windows are speech: [windows], bool."""
        return self.probabilities(sound) >= _SPEECH

    def probabilities(self, sound: np.ndarray) -> np.ndarray:
        """[n] float32 at 16 kHz -> that each window of 512 samples is speech, [windows]."""
        windows = np.pad(sound, (0, -len(sound) % _WINDOW)).reshape(-1, _WINDOW)
        context = np.concatenate([np.zeros((1, _CONTEXT), np.float32), windows[:-1, -_CONTEXT:]])
        state = np.zeros((1, 1, _WIDTH), np.float32)
        inputs = {"input": np.concatenate([context, windows], axis=1), "h": state, "c": state}
        return self._graph.run(["speech_probs"], inputs)[0]

    def verdict(
        self,
        heard: np.ndarray,
        *,
        reference: np.ndarray | None = None,
        text: str = "",
        language: str = "",
    ) -> judge.Verdict:
        del text, language
        values = {"speech_share": float(np.mean(heard))}
        if reference is not None:
            count = min(len(heard), len(reference))
            values["speech_agreement"] = float(np.mean(heard[:count] == reference[:count]))
        return judge.Verdict(values)
