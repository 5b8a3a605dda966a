# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run reports: metrics.jsonl, samples/ and logs/ always, TensorBoard where installed, and to
whatever logger the user names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import errno
import functools
import math
import os
import time
from typing import Any

from etils import epath
import numpy as np

from data_pipelines import command
from data_pipelines.records import atomic
from data_pipelines.sound import audio_files
from f3tok_jax.runs import appended_file
from f3tok_jax.runs import background
from f3tok_jax.runs import event_file
from f3tok_jax.runs import loggers as loggers_lib
from f3tok_jax.runs import sealed_lines
from f3tok_jax.runs import summed_folder
from f3tok_jax.runs import typed_json
from f3tok_jax.signal import spectra

_METRICS_NAME = "metrics.jsonl"
_SETTLE_SECONDS = 5.0  # for what waits when a checkpoint is about to be saved
_PUBLISH_SECONDS = (
    30.0  # after which a bucket gets the lines of a run that neither saves nor evaluates
)
_CLOSE_SECONDS = 20.0  # the same when a run ends: a slow bucket gets its last lines
_EVENTS = "TensorBoard events"


class MetricWriter:
    """Writes what a run reports, in the background; only the first process writes.

    metrics.jsonl has one JSON object per line, with "step" first and last, as "sum", a checksum of
    the rest (`sealed_lines`); the files of logs/ have such lines too. On resume the lines after the
    restored step are dropped: those steps are taken again, and a curve has one value per step.
    A disk that is full, gone or stands still costs lines and sounds, which are counted, and never
    the run: no method raises, or waits for longer than is said.
    """

    def __init__(
        self,
        workdir: str,
        *,
        is_writer: bool = True,
        resume_step: int = 0,
        loggers: Sequence[loggers_lib.Outlet] = (),
        may_write: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ):
        """Opens the writer.

        Args:
            workdir: run folder, local or a bucket.
            is_writer: whether this process writes at all.
            resume_step: the restored step, 0 for a fresh run.
            loggers: that hear of all values and sounds, too; closed with the writer.
            may_write: raises where the folder is another run's by now.
            say: where messages to the user go.
        """
        self._is_writer = is_writer
        if not is_writer:
            return
        self._workdir = epath.Path(workdir)
        self._loggers, self._may_write = loggers, may_write
        self._published = time.monotonic()
        self._background = background.Background(say)
        self._metrics = _lines_file(self._workdir / _METRICS_NAME)
        self._logs: dict[str, appended_file.AppendedFile] = {}
        self._events = _open_events(workdir, resume_step, say)
        resume = functools.partial(self._resume, self._workdir / _METRICS_NAME, resume_step)
        self._background.add(f"readings of {_METRICS_NAME}", resume)

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
        self._append(f"lines of {_METRICS_NAME}", self._metrics, line)
        points = {
            name: value
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        self._add_events("add_scalars", points, step=step)
        for logger in self._loggers:
            logger.write(step, points)
        if time.monotonic() - self._published > _PUBLISH_SECONDS:
            self.flush()

    def log(self, name: str, entry: Mapping[str, Any]) -> None:
        """Appends a line of JSON to logs/`name`."""
        if not self._is_writer:
            return
        if name not in self._logs:
            self._logs[name] = _lines_file(self._workdir / "logs" / name)
        self._append(f"lines of logs/{name}", self._logs[name], entry)

    def write_sounds(
        self,
        step: int,
        sounds: Mapping[str, np.ndarray],
        *,
        sample_rate: int,
        lengths: np.ndarray | None = None,
    ) -> None:
        """Writes samples/<step>/<index>_<name>.wav, and audio and spectrograms in TensorBoard.

        SHA256SUMS beside them has their checksums.

        Args:
            step: of the weights that made them.
            sounds: name -> waveforms [b, n], float in [-1, 1].
            sample_rate: Hz.
            lengths: [b] valid samples of each; default all.
        """
        if not self._is_writer:
            return
        folder = summed_folder.SummedFolder(self._workdir / "samples" / f"{step:08d}")
        cut: dict[str, np.ndarray] = {}
        for name, waveforms in sounds.items():
            for index, waveform in enumerate(np.asarray(waveforms, np.float32)):
                if lengths is not None:
                    waveform = waveform[: int(lengths[index])]
                waveform = np.clip(np.nan_to_num(waveform), -1.0, 1.0)
                cut[f"{index}_{name}"] = waveform
                self._write_sound(folder, step, f"{index}_{name}", waveform, sample_rate)
        self._background.add(f"files samples/*/{summed_folder.NAME}", folder.close)
        for logger in self._loggers:
            logger.write_sounds(step, cut, sample_rate)

    def _write_sound(
        self,
        folder: summed_folder.SummedFolder,
        step: int,
        name: str,
        waveform: np.ndarray,
        sample_rate: int,
    ) -> None:
        def write() -> None:
            self._may_write()
            folder.write(f"{name}.wav", audio_files.wav(waveform, sample_rate))

        self._background.add("sounds of samples/", write, num_bytes=waveform.nbytes)
        tag, sized = f"samples/{name}", {"step": step, "num_bytes": waveform.nbytes}
        options = {"sample_rate": sample_rate}
        self._add_events("add", "audio", tag, lambda: waveform[:, None], **options, **sized)
        picture = functools.partial(_spectrogram_image, waveform, sample_rate)
        tag += "_spectrogram"
        self._add_events("add", "image", tag, picture, dataformats="HW", **sized)

    def flush(self) -> None:
        """Makes what was written visible, soon: buckets get whole files."""
        if not self._is_writer:
            return
        self._published = time.monotonic()
        files = [self._metrics, *self._logs.values(), *([self._events] if self._events else [])]
        for file in files:
            self._background.add("copies to the bucket", functools.partial(self._publish, file))

    def _publish(self, file: appended_file.AppendedFile | event_file.EventFile) -> None:
        self._may_write()
        file.publish()

    def settle(self) -> None:
        """Waits, though not long, until what was written is there: a kill cannot take it any more.

        Where that was in vain, it does not wait again before all is written.
        """
        if not self._is_writer:
            return
        self.flush()
        self._background.drain(_SETTLE_SECONDS)

    def close(self) -> None:
        """Waits, not for ever, until all is written, and says what was lost."""
        if not self._is_writer:
            return
        self.flush()
        self._background.close(_CLOSE_SECONDS)
        for logger in self._loggers:
            logger.close()
        self._is_writer = False

    def _append(
        self, what: str, file: appended_file.AppendedFile, content: Mapping[str, Any]
    ) -> None:
        content = dict(content)
        self._background.add(what, lambda: file.append(sealed_lines.make(content)))

    def _add_events(
        self, method: str, *arguments: Any, step: int, num_bytes: int = 0, **options: Any
    ) -> None:
        """Adds to the event file; what has to be called for its value is called in the background."""
        if not self._events:
            return
        add, options = getattr(self._events, method), {"step": step, "when": time.time(), **options}

        def write() -> None:
            add(*(value() if callable(value) else value for value in arguments), **options)

        self._background.add(_EVENTS, write, num_bytes=num_bytes)

    def _resume(self, path: epath.Path, last_step: int) -> None:
        """Drops the lines of metrics.jsonl after a step; a file that cannot be read is set aside."""
        num_damaged = 0

        def kept() -> Iterator[bytes]:
            nonlocal num_damaged
            if not path.exists():
                return
            if "://" not in str(path) and not os.path.isfile(path):  # A pipe opens never.
                raise OSError(errno.EINVAL, "it is not a file", str(path))
            with path.open("rb") as file:
                for line in sealed_lines.read(file):
                    step = (line.content or {}).get("step")
                    if not typed_json.is_number(step):
                        num_damaged += 1
                    elif step <= last_step:
                        yield line.data

        with contextlib.suppress(OSError):
            (self._workdir / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self._metrics.replace(kept())
            if num_damaged:
                said = f"{num_damaged} lines of {_METRICS_NAME} were not whole, and are left out"
                self._background.note(said)
        except OSError as error:
            said = f"{_METRICS_NAME} keeps the lines of steps that are taken again"
            if error.errno not in atomic.FULL:  # What stands there is not read.
                with contextlib.suppress(OSError):
                    aside = path.rename(_free_name(path))
                    said = f"{_METRICS_NAME} is begun anew, beside {aside.name} that stood there"
            self._background.note(f"{said}: {command.explain(error)}")


def _lines_file(path: epath.Path) -> appended_file.AppendedFile:
    return appended_file.AppendedFile(path, end=b"\n")


def _free_name(path: epath.Path) -> epath.Path:
    """A name beside that of a file which nothing has."""
    index = 0
    while os.path.lexists(name := path.with_name(f"{path.name}.{index}")):
        index += 1
    return name


def _open_events(
    workdir: str, resume_step: int, say: Callable[[str], None]
) -> event_file.EventFile | None:
    """Returns a TensorBoard writer, or None after saying what to install."""
    try:
        return event_file.EventFile(workdir, resume_step=resume_step)
    except Exception as error:  # A damaged package raises anything.
        say(
            f"TensorBoard events are not written ({error}); pip install -e '.[tensorboard]' in the "
            f"checkout for them, metrics are in {_METRICS_NAME} either way"
        )
        return None


def _spectrogram_image(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """A mel spectrogram [frequency, time], uint8, low frequencies below: 100 dB to full scale."""
    levels = spectra.mel_levels_on_host(waveform, sample_rate)
    return np.uint8(np.clip((levels + 90.0) * 2.55, 0, 255))
