# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of speech: synthetic voices in five languages say sentences composed here.

Labels: language ("en"), voice ("en-us+f2", one of VOICES[language]), gender ("female" or "male", of
the voice) and kind (one of sentences.KINDS). Nearly half of the clips are digit strings.
"""

import numpy as np
import soxr

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.speech import espeak
from data_pipelines.embedded.speech import sentences
from data_pipelines.records import pcm16
from data_pipelines.records import sound as sound_records

TEXT_KIND = sound_records.TRANSCRIPT
LABELS = ("language", "voice", "gender", "kind")

_ACCENTS = {
    "de": ("de",),
    "en": ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029"),
    "es": ("es", "es-419"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "it": ("it",),
}
_TIMBRES = {
    "female": "f1 f2 f3 f4 f5 Annie Alicia Andrea belinda linda steph aunty".split(),
    "male": "m1 m2 m3 m4 m5 m6 m7 m8 david robert Michael benjamin".split(),
}
_GENDERS = {timbre: gender for gender, timbres in _TIMBRES.items() for timbre in timbres}

# 24 voices per language; an accent belongs to the voice, as with people.
VOICES = {
    language: tuple(
        f"{accents[position % len(accents)]}+{timbre}" for position, timbre in enumerate(_GENDERS)
    )
    for language, accents in _ACCENTS.items()
}

# Shares by repetition. English is what the sample language models read best.
_LANGUAGE_SHARES = ("de", "en", "en", "en", "es", "fr", "it")
_KIND_SHARES = (*["digits"] * 4, "number", "name", *["sentence"] * 3)

_MARGIN = (0.05, 0.3)  # seconds of quiet before and after


def missing() -> str | None:
    """Returns None when the synthesiser is installed, else a sentence that names the extra."""
    return espeak.missing()


def language_of(index: int, *, seed: int) -> str:
    """Returns the language of clip `index`, before it is made."""
    return synthesis.balanced_choice(
        _LANGUAGE_SHARES, stream="speech language", seed=seed, index=index
    )


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, transcript, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("speech", seed, index)
    language = language_of(index, seed=seed)
    kind = synthesis.balanced_choice(_KIND_SHARES, stream="speech kind", seed=seed, index=index)
    voice = str(rng.choice(VOICES[language]))
    text = sentences.compose(kind, rng, language=language)
    if kind == "sentence" and rng.uniform() < 0.4:
        text = f"{text} {sentences.compose(kind, rng, language=language)}"
    waveform = say(text, voice=voice, rng=rng, sample_rate=sample_rate)
    labels = voice_labels(voice, language) | {"kind": kind}
    return waveform, sentences.transcript(text), labels


def say(text: str, *, voice: str, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Returns [samples] float: `text` in a voice of VOICES, a little different every time.

    Args:
        text: with the punctuation that a voice reads as pauses and melody.
        voice: one of VOICES.
        rng: decides pitch, tempo, margins, level and noise floor.
        sample_rate: Hz.
    """
    # A voice has its own pitch and tempo, the same everywhere, and varies a little around them.
    habit = synthesis.generator("voice", voice)
    samples = espeak.speak(
        text,
        voice=voice,
        rate=int(habit.integers(135, 200) + rng.integers(-15, 16)),
        pitch=int(habit.integers(35, 66) + rng.integers(-5, 6)),
        pitch_range=int(habit.integers(30, 75) + rng.integers(-8, 9)),
        seed=int(rng.integers(1, 2**31)),
    )
    waveform = soxr.resample(
        _trim(samples, rng) / pcm16.FULL_SCALE, espeak.SAMPLE_RATE, sample_rate
    )
    return synthesis.finish(waveform, rng, sample_rate=sample_rate)


def voice_labels(voice: str, language: str) -> dict[str, str]:
    """Returns the labels that follow from who speaks."""
    return {"language": language, "voice": voice, "gender": _GENDERS[voice.rpartition("+")[2]]}


def _trim(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gives the utterance random margins of quiet, in place of the synthesiser's fixed ones."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 100)  # -50 dBFS
    before, after = (int(rng.uniform(*_MARGIN) * espeak.SAMPLE_RATE) for _ in range(2))
    utterance = samples[max(loud[0] - 200, 0) : loud[-1] + 400].astype(np.float64)
    return np.pad(utterance, (before, after))
