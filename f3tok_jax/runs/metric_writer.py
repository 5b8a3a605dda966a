# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics and sounds of a run: metrics.jsonl and samples/ always, TensorBoard where installed."""

from collections.abc import Callable, Mapping
import contextlib
import json
import math
import os
import tempfile
from typing import Any

from etils import epath
import numpy as np

from data_pipelines.records import atomic
from data_pipelines.sound import audio_files
from f3tok_jax.runs import event_file
from f3tok_jax.signal import spectra

_METRICS_NAME = "metrics.jsonl"


class MetricWriter:
    """Writes what a run reports; only the first process writes.

    metrics.jsonl has one JSON object per line, flushed as it is written, with "step" first. On
    resume the lines after the restored step are dropped: those steps are taken again, and a curve
    has one value per step.
    """

    def __init__(
        self,
        workdir: str,
        *,
        is_writer: bool = True,
        resume_step: int = 0,
        say: Callable[[str], None] = print,
    ):
        """Opens the writer.

        Args:
            workdir: run folder, local or a bucket.
            is_writer: whether this process writes at all.
            resume_step: the restored step, 0 for a fresh run.
            say: where messages to the user go.
        """
        self._workdir = epath.Path(workdir)
        self._is_writer, self._say = is_writer, say
        self._has_lost_sounds = False
        self._tensorboard = None
        if not is_writer:
            return
        self._remote = "://" in str(workdir)
        self._path = self._workdir / _METRICS_NAME
        self._workdir.mkdir(parents=True, exist_ok=True)
        kept = _lines_until(self._path, resume_step)
        if self._remote:
            # Buckets cannot append: lines go to a local file, which `flush` copies whole.
            handle, name = tempfile.mkstemp(suffix=_METRICS_NAME)
            os.close(handle)
            self._local_path = epath.Path(name)
        else:
            self._local_path = self._path
        atomic.write_text(self._local_path, "".join(kept))
        self._file = open(self._local_path, "a", encoding="utf-8")
        self._tensorboard = _open_tensorboard(str(workdir), resume_step, say)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line and, in TensorBoard, one point per number.

        Args:
            step: the step these values describe.
            values: name with slashes -> number; JSON has no NaN, so that one is written as null.
        """
        if not self._is_writer:
            return
        line = {"step": step}
        for name, value in values.items():
            line[name] = value if not isinstance(value, float) or math.isfinite(value) else None
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._tensorboard.add("scalar", name, value, step=step)

    def write_sounds(
        self,
        step: int,
        sounds: Mapping[str, np.ndarray],
        *,
        sample_rate: int,
        lengths: np.ndarray | None = None,
    ) -> None:
        """Writes samples/<step>/<index>_<name>.wav, and audio and spectrograms in TensorBoard.

        Args:
            step: of the weights that made them.
            sounds: name -> waveforms [b, n], float in [-1, 1].
            sample_rate: Hz.
            lengths: [b] valid samples of each; default all.
        """
        if not self._is_writer:
            return
        for name, waveforms in sounds.items():
            for index, waveform in enumerate(np.asarray(waveforms, np.float32)):
                if lengths is not None:
                    waveform = waveform[: int(lengths[index])]
                waveform = np.clip(np.nan_to_num(waveform), -1.0, 1.0)
                self._write_sound(step, f"{index}_{name}", waveform, sample_rate)

    def _write_sound(self, step: int, name: str, waveform: np.ndarray, sample_rate: int) -> None:
        """Writes one sound; where that fails, it is said once, and the run goes on."""
        path = self._workdir / "samples" / f"{step:08d}" / f"{name}.wav"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(audio_files.wav(waveform, sample_rate))
        except OSError as error:
            if not self._has_lost_sounds:
                self._say(f"{path} is not written: {error}; nor will others be, the run goes on")
            self._has_lost_sounds = True
        if self._tensorboard:
            tag, rate = f"samples/{name}", {"sample_rate": sample_rate}
            self._tensorboard.add("audio", tag, waveform[:, None], step=step, **rate)
            image = _spectrogram_image(waveform, sample_rate)
            self._tensorboard.add("image", f"{tag}_spectrogram", image, step=step, dataformats="HW")

    def flush(self) -> None:
        """Makes what was written visible: buckets get the whole file, TensorBoard its events."""
        if not self._is_writer:
            return
        self._file.flush()
        if self._remote:
            self._path.write_text(self._local_path.read_text())
        if self._tensorboard:
            self._tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        if not self._is_writer:
            return
        self.flush()
        self._file.close()
        if self._tensorboard:
            self._tensorboard.close()
        self._is_writer = False


def _lines_until(path: epath.Path, last_step: float) -> list[str]:
    """Returns the whole lines of a metrics file whose step is at most `last_step`."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short by a kill
            if json.loads(line)["step"] <= last_step:
                kept.append(line + "\n")
    return kept


def _open_tensorboard(
    workdir: str, resume_step: int, say: Callable[[str], None]
) -> event_file.EventFile | None:
    """Returns a TensorBoard writer, or None after saying what to install."""
    try:
        return event_file.EventFile(workdir, resume_step=resume_step, say=say)
    except ImportError as error:
        say(
            f"TensorBoard events are not written ({error}); pip install -e '.[tensorboard]' in the "
            f"checkout for them, metrics are in {_METRICS_NAME} either way"
        )
        return None


def _spectrogram_image(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """A mel spectrogram [frequency, time], uint8, low frequencies below: 100 dB to full scale."""
    levels = spectra.mel_levels_on_host(waveform, sample_rate)
    return np.uint8(np.clip((levels + 90.0) * 2.55, 0, 255))
