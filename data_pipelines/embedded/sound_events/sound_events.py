# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of sound events and noise.

Labels: class (one of CLASSES) and group ("animal", "human", "machine", "nature", "noise" or
"signal"). The caption says what varies within the class: how many, how fast, how near.
"""

from collections.abc import Callable

import numpy as np

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.sound_events import made_sounds
from data_pipelines.embedded.sound_events import natural_sounds
from data_pipelines.records import sound as sound_records

TEXT_KIND = sound_records.CAPTION
LABELS = ("class", "group")

_MAKERS: dict[str, tuple[str, Callable[..., tuple[np.ndarray, str]]]] = {
    "alarm": ("signal", made_sounds.alarm),
    "applause": ("human", made_sounds.applause),
    "bird": ("animal", natural_sounds.bird),
    "brown noise": ("noise", natural_sounds.coloured(-1.0, "brown")),
    "clock": ("machine", made_sounds.clock),
    "cricket": ("animal", natural_sounds.cricket),
    "dog": ("animal", natural_sounds.dog),
    "door knock": ("human", made_sounds.knock),
    "engine": ("machine", made_sounds.engine),
    "fire": ("nature", natural_sounds.fire),
    "footsteps": ("human", made_sounds.footsteps),
    "glass": ("human", made_sounds.glass),
    "hum": ("machine", made_sounds.hum),
    "pink noise": ("noise", natural_sounds.coloured(-0.5, "pink")),
    "rain": ("nature", natural_sounds.rain),
    "siren": ("signal", made_sounds.siren),
    "telephone": ("signal", made_sounds.telephone),
    "thunder": ("nature", natural_sounds.thunder),
    "water drops": ("nature", natural_sounds.drops),
    "waves": ("nature", natural_sounds.waves),
    "white noise": ("noise", natural_sounds.coloured(0.0, "white")),
    "wind": ("nature", natural_sounds.wind),
}
CLASSES = tuple(_MAKERS)


def missing() -> str | None:
    """Returns None: this corpus needs nothing that is not always installed."""
    return None


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, caption, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("events", seed, index)
    name = synthesis.balanced_choice(CLASSES, stream="events class", seed=seed, index=index)
    group, make = _MAKERS[name]
    span = synthesis.Span(int(rng.uniform(1.5, 6.0) * sample_rate), sample_rate)
    signal, caption = make(rng, span)
    if group not in ("noise", "signal"):
        signal = synthesis.room(signal, rng, sample_rate=sample_rate)
    waveform = synthesis.finish(signal, rng, sample_rate=sample_rate)
    return waveform, caption, {"class": name, "group": group}
