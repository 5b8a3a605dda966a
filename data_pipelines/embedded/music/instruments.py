# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tones of musical instruments by physical and additive models.

Plucked strings are the modes of a lossy string loop, struck bodies the modes of bars, bells and
stiff strings, bowed strings a stick-slip sawtooth through body resonances, blown pipes a spectrum
that opens with the breath. Equal temperament, A4 = 440 Hz, MIDI numbering.
"""

import dataclasses

import numpy as np

from data_pipelines.embedded import synthesis


@dataclasses.dataclass(frozen=True)
class Instrument:
    """One instrument.

    Attributes:
        family: "plucked", "bowed", "blown" or "struck".
        lowest: MIDI number of the lowest note.
        highest: of the highest.
        verb: what the player does in a caption.
        chords: whether one player can sound several notes at once.
    """

    family: str
    lowest: int
    highest: int
    verb: str = "plays"
    chords: bool = True


INSTRUMENTS = {
    "banjo": Instrument("plucked", 50, 76, "plucks"),
    "bass": Instrument("plucked", 28, 50, "plucks", chords=False),
    "bell": Instrument("struck", 55, 82, "rings", chords=False),
    "cello": Instrument("bowed", 36, 64, "bows"),
    "clarinet": Instrument("blown", 50, 84, chords=False),
    "flute": Instrument("blown", 60, 91, chords=False),
    "glockenspiel": Instrument("struck", 72, 96),
    "guitar": Instrument("plucked", 40, 76, "plucks"),
    "harp": Instrument("plucked", 36, 86, "plucks"),
    "marimba": Instrument("struck", 45, 84),
    "organ": Instrument("blown", 36, 84),
    "piano": Instrument("struck", 30, 90),
    "trumpet": Instrument("blown", 54, 80, chords=False),
    "viola": Instrument("bowed", 48, 76, "bows"),
    "violin": Instrument("bowed", 55, 88, "bows"),
}

# Pluck position (fraction of the string), decay of the fundamental at 220 Hz (s), loss that grows
# with frequency, stiffness.
_STRINGS = {
    "banjo": (0.12, 0.35, 0.5, 1e-4),
    "bass": (0.22, 1.2, 2.0, 5e-5),
    "guitar": (0.18, 0.9, 0.8, 6e-5),
    "harp": (0.35, 1.3, 1.0, 2e-5),
}
# Frequency ratios, amplitudes, decay of the first mode at 440 Hz (s), and the power of a mode's
# ratio by which it decays faster. The ratios of a glockenspiel are a free bar's; a marimba's bars
# are carved until the second mode is near 4.
_BODIES = {
    "bell": (
        (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.17, 5.43),
        (0.4, 1.0, 0.6, 0.3, 0.7, 0.25, 0.25, 0.2, 0.15, 0.1),
        1.6,
        0.8,
    ),
    "glockenspiel": ((1.0, 2.756, 5.404, 8.933), (1.0, 0.45, 0.25, 0.1), 0.9, 1.0),
    "marimba": ((1.0, 3.98, 9.9, 16.2), (1.0, 0.25, 0.1, 0.04), 0.35, 1.0),
}
# Resonances of the body: centre (Hz), gain, width as a fraction of the centre.
_BOWED_BODIES = {
    "violin": ((280, 2.0, 0.25), (480, 2.2, 0.25), (1000, 1.0, 0.4), (2600, 2.0, 0.5)),
    "viola": ((220, 2.0, 0.25), (370, 2.2, 0.25), (800, 1.0, 0.4), (2000, 1.6, 0.5)),
    "cello": ((100, 1.8, 0.3), (190, 2.2, 0.25), (450, 1.2, 0.4), (1500, 1.4, 0.6)),
}
# Harmonics when soft and when loud, attack (s), breath noise, vibrato (cents).
_PIPES = {
    "clarinet": (
        (1, 0.02, 0.35, 0.03, 0.12, 0.03, 0.05, 0.02),
        (1, 0.04, 0.7, 0.08, 0.5, 0.1, 0.3, 0.1, 0.2, 0.08, 0.1),
        0.04,
        0.01,
        3,
    ),
    "flute": ((1, 0.25, 0.08, 0.03), (1, 0.55, 0.3, 0.15, 0.08, 0.04), 0.06, 0.05, 12),
    "organ": (
        (1, 0.6, 0.35, 0.4, 0, 0.2, 0, 0.25),
        (1, 0.6, 0.35, 0.4, 0, 0.2, 0, 0.25),
        0.03,
        0.01,
        0,
    ),
    "trumpet": (
        (1, 0.6, 0.3, 0.15, 0.08),
        (1, 1.1, 1.1, 0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08),
        0.03,
        0.006,
        8,
    ),
}


def frequency(pitch: float) -> float:
    """Returns the frequency, Hz, of a MIDI number."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def tone(
    name: str,
    pitch: int,
    *,
    duration: float,
    loudness: float,
    rng: np.random.Generator,
    sample_rate: int,
) -> np.ndarray:
    """Returns one tone.

    Args:
        name: a key of INSTRUMENTS.
        pitch: MIDI number.
        duration: seconds until the tone is released or damped; it ends at most 0.2 s later.
        loudness: 0 (soft) to 1 (loud); louder is brighter too.
        rng: small irregularities of the player.
        sample_rate: Hz.

    Returns:
        [samples] float64, peak about `loudness` + 0.3.
    """
    release = 0.2 if INSTRUMENTS[name].family in ("plucked", "struck") else 0.1
    num_samples = int((duration + release) * sample_rate)
    make = {"plucked": _plucked, "struck": _struck, "bowed": _bowed, "blown": _blown}
    signal = make[INSTRUMENTS[name].family](
        name, frequency(pitch), loudness, rng, num_samples=num_samples, sample_rate=sample_rate
    )
    signal *= synthesis.envelope(
        (0.0, duration, duration + release),
        (1.0, 1.0, 0.0),
        num_samples=num_samples,
        sample_rate=sample_rate,
    )
    return signal * ((0.3 + loudness) / max(float(np.max(np.abs(signal))), 1e-9))


def _partials(fundamental: float, sample_rate: int) -> np.ndarray:
    return np.arange(1, max(int(0.47 * sample_rate / fundamental), 1) + 1)


def _plucked(
    name: str,
    fundamental: float,
    loudness: float,
    rng: np.random.Generator,
    *,
    num_samples: int,
    sample_rate: int,
) -> np.ndarray:
    position, decay_time, loss, stiffness = _STRINGS[name]
    numbers = _partials(fundamental, sample_rate)
    position *= rng.uniform(0.8, 1.2)
    # A string drawn aside to a corner: sin(pi h p) / h^2, bent towards 1 / h by a hard, loud pluck.
    amplitudes = np.sin(np.pi * numbers * position) / numbers ** (1.9 - 0.7 * loudness)
    frequencies = fundamental * numbers * np.sqrt(1.0 + stiffness * numbers**2)
    decay_times = (
        decay_time * (220.0 / fundamental) ** 0.5 / (1.0 + loss * (frequencies / 1500.0) ** 1.5)
    )
    signal = synthesis.modes(
        frequencies,
        amplitudes=amplitudes,
        decay_times=decay_times,
        phases=np.pi / 2.0,
        num_samples=num_samples,
        sample_rate=sample_rate,
    )
    return _soften(signal, 0.001, sample_rate) + _knock(
        rng, 0.02 * loudness, num_samples, sample_rate
    )


def _struck(
    name: str,
    fundamental: float,
    loudness: float,
    rng: np.random.Generator,
    *,
    num_samples: int,
    sample_rate: int,
) -> np.ndarray:
    if name == "piano":
        numbers = _partials(fundamental, sample_rate)
        stiffness = 4e-4 * (fundamental / 440.0) ** 1.2
        frequencies = fundamental * numbers * np.sqrt(1.0 + stiffness * numbers**2)
        # The hammer is as wide as an eighth of the string and harder when it is fast.
        amplitudes = (
            np.sin(np.pi * numbers / 8.2)
            / numbers
            * np.exp(-frequencies / (900.0 + 2800.0 * loudness))
        )
        decay_times = 2.2 * (220.0 / fundamental) ** 0.6 / (1.0 + 0.35 * numbers)
        # Two strings a cent apart beat, and one of them keeps its energy longer.
        frequencies = np.concatenate([frequencies, frequencies * 1.0004])
        amplitudes = np.concatenate([amplitudes, 0.4 * amplitudes])
        decay_times = np.concatenate([0.4 * decay_times, 1.5 * decay_times])
    else:
        ratios, amplitudes, decay_time, power = (np.asarray(value) for value in _BODIES[name])
        frequencies = fundamental * ratios
        amplitudes = (
            amplitudes * ratios ** (0.5 * (loudness - 0.5)) * rng.uniform(0.7, 1.3, len(ratios))
        )
        decay_times = decay_time * (440.0 / fundamental) ** 0.5 / ratios**power
    signal = synthesis.modes(
        frequencies,
        amplitudes=amplitudes,
        decay_times=decay_times,
        num_samples=num_samples,
        sample_rate=sample_rate,
    )
    return _soften(signal, 0.0015, sample_rate) + _knock(
        rng, 0.03 * loudness, num_samples, sample_rate
    )


def _bowed(
    name: str,
    fundamental: float,
    loudness: float,
    rng: np.random.Generator,
    *,
    num_samples: int,
    sample_rate: int,
) -> np.ndarray:
    numbers = _partials(fundamental, sample_rate)
    frequencies = fundamental * numbers
    gains = np.full(len(numbers), 0.4)
    for centre, gain, width in _BOWED_BODIES[name]:
        gains += gain * np.exp(-0.5 * ((frequencies - centre) / (width * centre)) ** 2)
    harmonics = gains / numbers * np.exp(-frequencies / (3000.0 + 4000.0 * loudness))
    pitch = fundamental * _vibrato(rng, 14.0, num_samples, sample_rate)
    signal = synthesis.oscillator(
        pitch, harmonics=harmonics, sample_rate=sample_rate, phase=rng.uniform()
    )
    signal /= max(float(np.max(np.abs(signal))), 1e-9)
    signal += rng.uniform(0.01, 0.03) * synthesis.noise(
        rng,
        num_samples=num_samples,
        sample_rate=sample_rate,
        response=synthesis.band(800.0, 5000.0, slope=1.0),
    )
    return signal * _breath(rng, rng.uniform(0.05, 0.15), num_samples, sample_rate)


def _blown(
    name: str,
    fundamental: float,
    loudness: float,
    rng: np.random.Generator,
    *,
    num_samples: int,
    sample_rate: int,
) -> np.ndarray:
    soft, loud, attack, breath, cents = _PIPES[name]
    pitch = fundamental * _vibrato(rng, cents, num_samples, sample_rate)
    envelope = _breath(rng, attack * rng.uniform(0.7, 1.5), num_samples, sample_rate)
    phase = rng.uniform()
    tones = [
        synthesis.oscillator(
            pitch, harmonics=np.asarray(harmonics, float), sample_rate=sample_rate, phase=phase
        )
        for harmonics in (soft, loud)
    ]
    # The spectrum opens as the pressure rises.
    mix = np.clip(envelope * (0.2 + 0.8 * loudness), 0.0, 1.0)
    signal = tones[0] * (1.0 - mix) + tones[1] * mix
    signal += breath * synthesis.noise(
        rng,
        num_samples=num_samples,
        sample_rate=sample_rate,
        response=synthesis.band(fundamental, 6.0 * fundamental, slope=0.7),
    )
    return signal * envelope


def _vibrato(
    rng: np.random.Generator, cents: float, num_samples: int, sample_rate: int
) -> np.ndarray:
    """Returns a factor around 1 on the frequency; vibrato comes in after 0.3 s, as players do."""
    times = np.arange(num_samples) / sample_rate
    depth = cents * rng.uniform(0.4, 1.0) * np.clip((times - 0.2) / 0.3, 0.0, 1.0)
    return 2.0 ** (depth * np.sin(2.0 * np.pi * rng.uniform(4.8, 6.2) * times) / 1200.0)


def _breath(
    rng: np.random.Generator, attack: float, num_samples: int, sample_rate: int
) -> np.ndarray:
    """Returns a sustained envelope: a soft attack, then small unevenness."""
    times = np.arange(num_samples) / sample_rate
    uneven = synthesis.slow_random(rng, num_samples=num_samples, sample_rate=sample_rate, rate=4.0)
    return (1.0 - np.exp(-3.0 * times / attack)) * (0.9 + 0.05 * np.clip(uneven, -2.0, 2.0))


def _soften(signal: np.ndarray, attack: float, sample_rate: int) -> np.ndarray:
    count = min(int(attack * sample_rate) + 1, len(signal))
    signal[:count] *= np.linspace(0.0, 1.0, count)
    return signal


def _knock(
    rng: np.random.Generator, level: float, num_samples: int, sample_rate: int
) -> np.ndarray:
    """Returns the short noise of finger, pick or hammer at the start of a tone."""
    count = min(int(0.03 * sample_rate), num_samples)
    burst = synthesis.noise(
        rng,
        num_samples=count,
        sample_rate=sample_rate,
        response=synthesis.band(300.0, 3000.0, slope=1.0),
    )
    signal = np.zeros(num_samples)
    signal[:count] = level * burst * np.exp(-np.arange(count) / (0.006 * sample_rate))
    return signal


def drum(name: str, *, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Returns one stroke of a "kick", "snare", "hat" or "tom", peak about 1."""
    num_samples = int({"kick": 0.35, "snare": 0.25, "hat": 0.12, "tom": 0.4}[name] * sample_rate)
    times = np.arange(num_samples) / sample_rate
    if name in ("kick", "tom"):
        rest, drop, decay_time = (50.0, 110.0, 0.10) if name == "kick" else (110.0, 60.0, 0.14)
        # The head is tighter right after the stroke: the pitch falls.
        pitch = rest + drop * np.exp(-times / 0.03)
        signal = np.sin(2.0 * np.pi * np.cumsum(pitch) / sample_rate) * np.exp(-times / decay_time)
        return signal + _knock(rng, 0.15, num_samples, sample_rate)
    low, high, decay_time, body = (
        (1200.0, 7000.0, 0.06, 0.5) if name == "snare" else (5000.0, 12000.0, 0.03, 0.0)
    )
    rattle = 0.4 * synthesis.noise(
        rng, num_samples=num_samples, sample_rate=sample_rate, response=synthesis.band(low, high)
    )
    shell = synthesis.modes(
        np.array([185.0, 330.0]),
        amplitudes=np.array([1.0, 0.5]),
        decay_times=np.array([0.06, 0.04]),
        num_samples=num_samples,
        sample_rate=sample_rate,
    )
    return rattle * np.exp(-times / decay_time) + body * shell
