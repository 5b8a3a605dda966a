# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A trace of some steps for xprof: what the devices and the host did, in WORKDIR/profile."""

from collections.abc import Callable
import contextlib
import os
import re
import shutil
import tempfile

from etils import epath
import jax

from data_pipelines import command
from f3tok_jax.runs import background
from f3tok_jax.training import timekeeper as timekeeper_lib

NAME = "profile"
STEP = "train_step"  # what a trace calls a step
_COPY_SECONDS = 60.0  # for a bucket to take the trace


def parse(text: str) -> tuple[int, int]:
    """Reads "FROM:TO", the first and the last step of a trace, as log lines number them.

    Raises:
        ValueError: for anything else.
    """
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 0 < first <= last:
        raise ValueError(
            f"--profile_steps must be FROM:TO, the first and the last step, such as 100:104, got "
            f"{text!r}"
        )
    return first, last


class Profiler:
    """Traces steps of this process; a context, at whose end a trace is whole. It never raises.

    A step that is traced takes longer than others. What begins and ends a trace is no step's time.
    """

    def __init__(
        self,
        steps: tuple[int, int] | None,
        workdir: str,
        *,
        clock: timekeeper_lib.Timekeeper,
        say: Callable[[str], None],
    ):
        """Traces nothing yet.

        Args:
            steps: the first and the last; None for none.
            workdir: run folder, local or a bucket.
            clock: told what time goes to.
            say: where messages to the user go.
        """
        self._steps, self._clock, self._say = steps, clock, say
        self._folder = epath.Path(workdir) / NAME
        self._background = background.Background(say)
        self._local = ""  # folder of the trace that is being taken

    def step(self, step: int) -> contextlib.AbstractContextManager:
        """The context in which step number `step` is dispatched."""
        if self._steps and not self._local and self._steps[0] <= step <= self._steps[1]:
            self._trace(self._begin, step)
        return jax.profiler.StepTraceAnnotation(STEP, step_num=step)

    def finished(self, step: int) -> None:
        """A step is done: the one that is dispatched behind it may be in the trace, in part."""
        if self._local and step >= self._steps[1]:
            self._trace(self._end)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_) -> None:
        if self._local:
            self._trace(self._end)
        self._background.close(_COPY_SECONDS)

    def _trace(self, act: Callable[..., None], *arguments) -> None:
        self._clock.enter("profile")
        try:
            act(*arguments)
        except Exception as error:  # The profiler is another library's.
            self._say(f"no steps are profiled: {command.explain(error)}")
            self._steps, self._local = None, ""
        self._clock.enter("step")

    def _begin(self, step: int) -> None:
        is_remote = "://" in str(self._folder)
        self._local = tempfile.mkdtemp(prefix="f3tok_") if is_remote else os.fspath(self._folder)
        self._say(f"steps {step} to {self._steps[1]} are profiled, which makes them slower")
        jax.profiler.start_trace(self._local)

    def _end(self) -> None:
        local, self._local, self._steps = self._local, "", None
        jax.profiler.stop_trace()
        if local != os.fspath(self._folder):
            self._background.add("traces of steps", lambda: self._copy(local))
        self._say(f"their trace is in {self._folder}; xprof --logdir={self._folder} shows it")

    def _copy(self, local: str) -> None:
        for path in epath.Path(local).rglob("*"):
            if path.is_file():
                target = self._folder / os.path.relpath(path, local)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        shutil.rmtree(local, ignore_errors=True)
