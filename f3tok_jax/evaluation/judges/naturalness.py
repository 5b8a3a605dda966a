# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""DNSMOS: predicted opinion of noisy speech, by graphs that need no reference."""

import numpy as np

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.signal import spectra

_SECONDS = 9.01  # of sound, that the graphs take
_SAMPLES = int(_SECONDS * judge.RATE)
_WHOLE, _OVERALL = (
    "speechmos/dnsmos_models/model_v8.onnx",
    "speechmos/dnsmos_models/sig_bak_ovr.onnx",
)
# What the second graph says of signal, background and all of it -> opinions (dnsmos.py of speechmos).
_CURVES = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


class Dnsmos(judge.Judge):
    """DNSMOS P.808 and P.835 by their graphs in the package speechmos, without librosa.

    Source: Reddy et al., 2021 and 2022; speechmos 0.0.1.1, dnsmos.py: sounds shorter than 9.01 s are
    repeated, of longer ones windows that begin every second are averaged.
    """

    name = "dnsmos"
    package = judge.Package(
        name="speechmos",
        files=(_WHOLE, _OVERALL),
        modules=("onnxruntime",),
        install="pip install speechmos onnxruntime",
        licence="MIT",
    )
    figures = {
        "p808": judge.metric(
            "DNSMOS P.808",
            higher=True,
            explanation="Predicted opinion of speech as a whole, 1 to 5, by a model trained on "
            "listening tests after ITU-T P.808.",
        ),
        **{
            name: judge.metric(
                f"DNSMOS {name}",
                higher=True,
                explanation=f"Predicted opinion of {what}, 1 to 5, after ITU-T P.835.",
            )
            for name, what in (
                ("signal", "the voice itself"),
                ("background", "what is heard behind the voice: 5 is nothing"),
                ("overall", "voice and background together"),
            )
        },
    }

    def __init__(self):
        self._whole, self._overall = (
            judge.onnx_session(self.package.file(name)) for name in (_WHOLE, _OVERALL)
        )

    def _hear(self, sound: np.ndarray) -> dict[str, float]:
        judge.check_loud(sound)
        while len(sound) < _SAMPLES:
            sound = np.concatenate([sound, sound])
        count = int(len(sound) // judge.RATE - _SECONDS) + 1
        starts = range(0, count * judge.RATE, judge.RATE)
        windows = np.stack([sound[start : start + _SAMPLES] for start in starts])
        overall = np.concatenate(
            [self._overall.run(None, {"input_1": window[None]})[0] for window in windows]
        )
        whole = [self._whole.run(None, {"input_1": _features(one)})[0].item() for one in windows]
        names = ("signal", "background", "overall")
        opinions = {
            name: float(np.mean(np.polyval(curve, column)))
            for name, curve, column in zip(names, _CURVES, overall.T.astype(np.float64))
        }
        return {"p808": float(np.mean(whole))} | opinions

    def verdict(
        self, heard: dict[str, float], *, reference=None, text: str = "", language: str = ""
    ) -> judge.Verdict:
        del reference, text, language
        return judge.Verdict(heard)


def _features(window: np.ndarray) -> np.ndarray:
    """[144160] -> [1, 900, 120]: dB of mel bands below the loudest, as the first graph knows them."""
    options = dict(frame_length=321, hop_length=160, num_mels=120)
    power = spectra.mel_power_on_host(window[:-160], judge.RATE, **options)
    level = 10.0 * np.log10(np.maximum(power, 1e-10))
    level = np.maximum(level - 10.0 * np.log10(max(power.max(), 1e-10)), -80.0)
    return ((level + 40.0) / 40.0).astype(np.float32)[None]
