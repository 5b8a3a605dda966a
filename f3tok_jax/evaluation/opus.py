# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Opus, the codec of calls and browsers, by its own programs (opus-tools), to stand beside a model."""

import dataclasses
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import soundfile

from data_pipelines.sound import audio_files

KILOBITS = (6, 12, 24)  # a second: the least that opusenc takes, narrow-band speech, all of speech
_PROGRAMS = ("opusenc", "opusdec")
_MAX_SECONDS = 600.0  # that a program may take for a sound; it takes milliseconds per second


def missing() -> str:
    """Why there is no Opus here, "" where there is."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if not absent:
        return ""
    return f"{' and '.join(absent)} not on PATH: apt-get install opus-tools"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpusCodec:
    """Sound through an Opus file and back.

    Attributes:
        sample_rate: Hz.
        kilobits: a second that opusenc is asked for, on average; the rate varies from frame to
            frame, and short sounds get more.
    """

    sample_rate: int
    kilobits: int

    def reconstruct(self, waveform: np.ndarray) -> np.ndarray:
        """[n] -> [n], float32; what lies beyond [-1, 1] is clipped, as in any file of PCM.

        Raises:
            ValueError: where a program fails.
        """
        with tempfile.TemporaryDirectory(prefix="f3tok_opus_") as folder:
            given, coded, decoded = (
                pathlib.Path(folder) / name for name in ("a.wav", "a.opus", "b.wav")
            )
            given.write_bytes(audio_files.wav(np.clip(waveform, -1.0, 1.0), self.sample_rate))
            _run(["opusenc", "--quiet", "--bitrate", str(self.kilobits), str(given), str(coded)])
            # Samples of 16 bits would be dithered, at random.
            rate = ["--rate", str(self.sample_rate)]
            _run(["opusdec", "--quiet", "--float", *rate, str(coded), str(decoded)])
            sound, _ = soundfile.read(decoded, dtype="float32")
        # Rates that 48 kHz is no multiple of may end a sample early or late.
        return np.pad(sound, (0, max(0, len(waveform) - len(sound))))[: len(waveform)]


def _run(command: list[str]) -> None:
    options = dict(stdin=subprocess.DEVNULL, capture_output=True, timeout=_MAX_SECONDS)
    ended = subprocess.run(command, check=False, **options)
    if ended.returncode:
        said = " ".join(ended.stderr.decode(errors="replace").split()) or "nothing"
        raise ValueError(
            f"{command[0]} must code every sound, got exit code {ended.returncode} for one and "
            f"{said[:200]!r}: run it by hand, or take it off PATH to go without Opus"
        )
