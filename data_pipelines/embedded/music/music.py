# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of music: single notes, melodies, chords, arpeggios and rhythms.

Labels: instrument (a key of instruments.INSTRUMENTS, or "drums"), family ("plucked", "bowed",
"blown" or "struck"), texture ("note", "melody", "chord", "arpeggio" or "rhythm"), pitch (MIDI
number of the note, of the tonic or of the root of the chord; "none" for drums), mode ("major",
"minor" or "none") and tempo (beats per minute, or "none").
"""

import numpy as np

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.music import instruments
from data_pipelines.embedded.speech import numerals
from data_pipelines.records import sound as sound_records

TEXT_KIND = sound_records.CAPTION
LABELS = ("instrument", "family", "texture", "pitch", "mode", "tempo")

_PLAYERS = (*instruments.INSTRUMENTS, "drums")
_TEXTURE_SHARES = ("note", "note", "melody", "melody", "chord", "arpeggio", "rhythm")
_SCALES = {"major": (0, 2, 4, 7, 9, 12), "minor": (0, 3, 5, 7, 10, 12)}  # pentatonic, semitones
_TRIADS = {"major": (0, 4, 7, 12), "minor": (0, 3, 7, 12)}
_NOTE_NAMES = "c, c sharp, d, d sharp, e, f, f sharp, g, g sharp, a, a sharp, b".split(", ")
_LONGEST = 5.5  # seconds until the last note is released
# Half beats of a bar on which kick, snare and hat are struck.
_DRUM_PATTERNS = (
    ((0, 4), (2, 6), range(8)),
    ((0, 3, 4), (2, 6), (0, 2, 4, 6)),
    ((0, 5), (4,), range(8)),
    ((0, 2, 4, 6), (2, 6), (1, 3, 5, 7)),
)
_RHYTHMS = ((0, 1, 2, 3), (0, 1, 1.5, 2, 3, 3.5), (0, 0.75, 1.5, 2, 3), (0, 1.5, 2, 3.5))  # beats


def missing() -> str | None:
    """Returns None: this corpus needs nothing that is not always installed."""
    return None


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, caption, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("music", seed, index)
    player = synthesis.balanced_choice(_PLAYERS, stream="music player", seed=seed, index=index)
    texture = synthesis.balanced_choice(
        _TEXTURE_SHARES, stream="music texture", seed=seed, index=index
    )
    if player == "drums":
        waveform, caption, labels = _drums(rng, sample_rate)
    else:
        if texture == "chord" and not instruments.INSTRUMENTS[player].chords:
            texture = "arpeggio"
        waveform, caption, labels = _pitched(player, texture, rng, sample_rate)
    waveform = synthesis.room(waveform, rng, sample_rate=sample_rate)
    return synthesis.finish(waveform, rng, sample_rate=sample_rate), caption, labels


def note_name(pitch: int) -> str:
    """Returns a MIDI number in words: 60 is "c four"."""
    return f"{_NOTE_NAMES[pitch % 12]} {numerals.words(pitch // 12 - 1, language='en')}"


def _pitched(
    player: str, texture: str, rng: np.random.Generator, sample_rate: int
) -> tuple[np.ndarray, str, dict[str, str]]:
    instrument = instruments.INSTRUMENTS[player]
    room_above = 0 if texture in ("note", "rhythm") else 12
    pitch = int(rng.integers(instrument.lowest, instrument.highest - room_above + 1))
    mode = "none" if texture in ("note", "rhythm") else str(rng.choice(("major", "minor")))
    tempo = int(rng.integers(60, 161))
    score = _score(texture, pitch, mode, 60.0 / tempo, rng)
    loudness = float(rng.uniform(0.2, 1.0))
    parts = []
    for start, duration, note in score:
        accent = float(np.clip(loudness + rng.uniform(-0.1, 0.1), 0.0, 1.0))
        tone = instruments.tone(
            player, note, duration=duration, loudness=accent, rng=rng, sample_rate=sample_rate
        )
        parts.append((start, tone))
    # The longest release is 0.2 s; what rings in the room is cut with it.
    length = int((max(start + duration for start, duration, _ in score) + 0.25) * sample_rate)
    waveform = synthesis.Span(length, sample_rate).place(parts)
    timed = texture not in ("note", "chord")
    labels = {
        "instrument": player,
        "family": instrument.family,
        "texture": texture,
        "pitch": str(pitch),
        "mode": mode,
        "tempo": str(tempo) if timed else "none",
    }
    return waveform, _caption(player, instrument.verb, texture, pitch, mode, tempo), labels


def _score(
    texture: str, pitch: int, mode: str, beat: float, rng: np.random.Generator
) -> list[tuple[float, float, int]]:
    """Returns (start in seconds, duration in seconds, MIDI number) of each note."""
    if texture == "note":
        return [(0.0, float(rng.uniform(0.8, 3.0)), pitch)]
    if texture == "chord":
        duration = float(rng.uniform(1.2, 3.5))
        spread = float(rng.choice((0.0, 0.02)))  # strummed or together
        return [
            (position * spread, duration, pitch + step)
            for position, step in enumerate(_TRIADS[mode][: int(rng.integers(3, 5))])
        ]
    if texture == "rhythm":
        pattern = _RHYTHMS[int(rng.integers(len(_RHYTHMS)))]
        starts = [bar * 4 + position for bar in range(4) for position in pattern]
        starts = [start for start in starts if (start + 0.4) * beat < _LONGEST]
        return [(start * beat, 0.4 * beat, pitch) for start in starts]
    if texture == "arpeggio":
        triad = _TRIADS[mode]
        order = (0, 1, 2, 3, 2, 1) if rng.uniform() < 0.5 else (0, 2, 1, 3)
        count = min(int(rng.integers(6, 17)), int(_LONGEST / (0.5 * beat)))
        return [
            (position * 0.5 * beat, 0.6 * beat, pitch + triad[order[position % len(order)]])
            for position in range(count)
        ]
    notes, start, degree = [], 0.0, 0
    while True:  # a melody: steps on the scale, from the tonic
        duration = float(rng.choice((0.5, 0.5, 1.0, 1.0, 1.5, 2.0))) * beat
        if notes and start + duration > _LONGEST:
            return notes
        notes.append((start, 0.95 * duration, pitch + _SCALES[mode][degree]))
        start += duration
        degree = int(np.clip(degree + rng.choice((-2, -1, 1, 1, 2)), 0, len(_SCALES[mode]) - 1))


def _drums(rng: np.random.Generator, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    tempo = int(rng.integers(70, 161))
    half_beat = 30.0 / tempo
    pattern = _DRUM_PATTERNS[int(rng.integers(len(_DRUM_PATTERNS)))]
    levels = {"kick": 1.0, "snare": rng.uniform(0.5, 0.9), "hat": rng.uniform(0.2, 0.5)}
    bars = max(int(_LONGEST / (8 * half_beat)), 1)
    parts = []
    for (name, level), strokes in zip(levels.items(), pattern, strict=True):
        for stroke in (bar * 8 + position for bar in range(bars) for position in strokes):
            sound = instruments.drum(name, rng=rng, sample_rate=sample_rate)
            parts.append((stroke * half_beat, level * rng.uniform(0.85, 1.0) * sound))
    length = int(bars * 8 * half_beat * sample_rate)
    waveform = synthesis.Span(length, sample_rate).place(parts)
    words = numerals.words(tempo, language="en")
    labels = {"instrument": "drums", "family": "struck", "texture": "rhythm"}
    labels |= {"pitch": "none", "mode": "none", "tempo": str(tempo)}
    return waveform, f"drums play a rhythm at {words} beats per minute", labels


def _caption(player: str, verb: str, texture: str, pitch: int, mode: str, tempo: int) -> str:
    article = "an" if player[0] in "aeio" else "a"
    pitch_class = _NOTE_NAMES[pitch % 12]
    key_article = "an" if pitch_class[0] in "aef" else "a"
    what = {
        "note": f"the note {note_name(pitch)}",
        "chord": f"{key_article} {pitch_class} {mode} chord",
        "arpeggio": f"{key_article} {pitch_class} {mode} arpeggio",
        "melody": f"a melody in {pitch_class} {mode}",
        "rhythm": f"a rhythm on {note_name(pitch)}",
    }[texture]
    if player == "bell" or texture in ("chord", "melody", "arpeggio"):
        verb = "plays"
    speed = ""
    if texture not in ("note", "chord"):
        speed = f" at {numerals.words(tempo, language='en')} beats per minute"
    return f"{article} {player} {verb} {what}{speed}"
