# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of speech: synthetic voices in five languages say sentences composed here.

Labels: language ("en"), voice ("en-us+f2", one of VOICES[language]), gender ("female", "male"; of the
voice, by its pitch) and kind (one of sentences.KINDS). Nearly half of the clips are digit strings.
"""

import numpy as np
import soxr

from data_pipelines import espeak
from data_pipelines import sentences
from data_pipelines import synthesis

TASK = "transcribe"

LANGUAGES = sentences.LANGUAGES
_ACCENTS = {
    "de": ("de",),
    "en": ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029"),
    "es": ("es", "es-419"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "it": ("it",),
}
_TIMBRES = {
    "female": ("f1", "f2", "f3", "f4", "f5", "Annie", "Alicia", "Andrea", "belinda", "linda", "steph", "aunty"),
    "male": ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "david", "robert", "Michael", "benjamin"),
}
_GENDERS = {timbre: gender for gender, timbres in _TIMBRES.items() for timbre in timbres}

# 24 voices per language; an accent belongs to the voice, as with people.
VOICES = {
    language: tuple(
        f"{accents[position % len(accents)]}+{timbre}" for position, timbre in enumerate(_GENDERS))
    for language, accents in _ACCENTS.items()
}

# Shares by repetition. English is what the sample language models read best.
_LANGUAGE_SHARES = ("de", "en", "en", "en", "es", "fr", "it")
_KIND_SHARES = ("digits", "digits", "digits", "digits", "number", "name", "sentence", "sentence", "sentence")

_MARGIN = 0.05  # seconds of the synthesiser's silence kept before and after


def missing() -> str | None:
    """Returns None when the synthesiser is installed, else a sentence that names the extra."""
    return espeak.missing()


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, transcript, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("speech", seed, index)
    language = synthesis.balanced_choice(_LANGUAGE_SHARES, stream="speech language", seed=seed, index=index)
    kind = synthesis.balanced_choice(_KIND_SHARES, stream="speech kind", seed=seed, index=index)
    voice = str(rng.choice(VOICES[language]))
    text = sentences.compose(kind, rng, language=language)
    # A voice has its own pitch and tempo, the same in every corpus, and varies a little around them.
    habit = synthesis.generator("voice", voice)
    samples = espeak.speak(
        text, voice=voice, rate=int(habit.integers(135, 200) + rng.integers(-15, 16)),
        pitch=int(habit.integers(35, 66) + rng.integers(-5, 6)),
        pitch_range=int(habit.integers(30, 75) + rng.integers(-8, 9)), seed=int(rng.integers(1, 2**31)))
    waveform = soxr.resample(_trim(samples) / 32768.0, espeak.SAMPLE_RATE, sample_rate)
    labels = {
        "language": language, "voice": voice, "gender": _GENDERS[voice.rpartition("+")[2]], "kind": kind}
    return synthesis.finish(waveform, rng, sample_rate=sample_rate), sentences.transcript(text), labels


def _trim(samples: np.ndarray) -> np.ndarray:
    """Cuts the silence at both ends down to the margin; the synthesiser ends with up to 0.5 s of it."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 200)  # -44 dBFS
    margin = int(_MARGIN * espeak.SAMPLE_RATE)
    return samples[max(loud[0] - margin, 0):loud[-1] + 1 + 2 * margin].astype(np.float64)
