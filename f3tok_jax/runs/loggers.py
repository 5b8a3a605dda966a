# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Loggers of the user's choice beside metrics.jsonl: W&B, or any class of three methods."""

from collections.abc import Callable, Mapping
import importlib
import os
import secrets
import tempfile
from typing import Any, Protocol

from etils import epath
import numpy as np

from data_pipelines.records import atomic
from data_pipelines.records import small_file
from f3tok_jax.runs import background

_CLOSE_SECONDS = 20.0  # for a logger to send what it has


class Logger(Protocol):
    """What --logger=MODULE:CLASS names, called with the work folder and the config as a dict.

    It runs on a thread of its own: what it raises is said once and counted, and one that hangs
    holds nobody up. A method write_sounds(step, sounds, sample_rate), with name -> waveform [n] in
    [-1, 1], is called where there is one.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the values of a step; after a restart, steps may come again."""

    def close(self) -> None:
        """Ends it."""


Maker = Callable[[str, Mapping[str, Any]], Logger]


class WandB:
    """Weights & Biases, offline unless $WANDB_MODE says otherwise; `wandb sync` sends it later.

    Of a step that comes again after a restart, W&B keeps what it heard first.
    """

    def __init__(self, workdir: str, config: Mapping[str, Any]):
        """Goes on with the W&B run of this work folder, if there is one.

        Args:
            workdir: run folder, in which offline runs lie; a temporary one for a bucket.
            config: of the run.
        """
        import wandb  # late: nobody else needs it

        self._audio = wandb.Audio
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "f3tok_jax"),
            name=os.path.basename(workdir.rstrip("/")),
            id=_kept_id(workdir),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=tempfile.mkdtemp(prefix="f3tok_wandb_") if "://" in workdir else workdir,
            config=dict(config),
            settings=wandb.Settings(console="off"),  # Standard output is not its own.
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def write_sounds(self, step: int, sounds: Mapping[str, np.ndarray], sample_rate: int) -> None:
        """Adds sounds to the run's media."""
        made = {name: self._audio(sound, sample_rate) for name, sound in sounds.items()}
        self._run.log({f"samples/{name}": sound for name, sound in made.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


def _kept_id(workdir: str) -> str:
    """The id of a folder's W&B run, made by chance: another folder may have the same path."""
    path = epath.Path(workdir) / "logs" / "wandb_id"
    if path.exists() and (kept := small_file.read_text(path).strip()):
        return kept
    made = secrets.token_hex(8)
    atomic.write_text(path, f"{made}\n")
    return made


def find(name: str) -> Maker:
    """What makes the logger of a name: "wandb", or MODULE:CLASS of the user's own.

    Raises:
        ValueError: where there is none.
    """
    if name == "wandb":
        _load(name, "wandb")
        return WandB
    module, _, kind = name.partition(":")
    made = getattr(_load(name, module), kind, None) if module and kind else None
    if not callable(made):
        raise ValueError(
            f"--logger must be wandb or MODULE:CLASS, a class of a module that Python can import, "
            f"got {name!r}"
        )
    return made


def _load(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # A module of the user's own raises anything.
        raise ValueError(
            f"--logger={name} needs the module {module!r}, which cannot be imported "
            f"({type(error).__name__}: {error}): install it, or put its folder into PYTHONPATH"
        ) from error


class Outlet:
    """One logger on a thread of its own: no method raises, or waits for longer than is said."""

    def __init__(
        self,
        name: str,
        make: Maker,
        workdir: str,
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ):
        """Makes the logger, in the background.

        Args:
            name: by which the user has chosen it.
            make: makes it.
            workdir: run folder, local or a bucket.
            config: of the run, as a dict.
            say: where messages to the user go.
        """
        self._logger: Any = None
        self._failure: Exception | None = None  # why there is no logger
        self._background = background.Background(say, taker="the logger")
        self._what = f"calls of --logger={name}"
        self._background.add(self._what, lambda: self._open(make, workdir, config))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hands over the values of a step."""
        self._call("write", step, dict(values))

    def write_sounds(self, step: int, sounds: Mapping[str, np.ndarray], sample_rate: int) -> None:
        """Hands over sounds, [n] each."""
        num_bytes = sum(sound.nbytes for sound in sounds.values())
        self._call("write_sounds", step, dict(sounds), sample_rate, num_bytes=num_bytes)

    def close(self) -> None:
        """Waits, not for ever, until the logger has all and is closed."""
        self._call("close")
        self._background.close(_CLOSE_SECONDS)

    def _open(self, make: Maker, workdir: str, config: Mapping[str, Any]) -> None:
        try:
            self._logger = make(workdir, config)
        except Exception as error:  # A logger of the user's own raises anything.
            self._failure = error
            raise

    def _call(self, method: str, *arguments: Any, num_bytes: int = 0) -> None:
        def call() -> None:
            if self._failure:
                raise self._failure
            if method != "write_sounds" or hasattr(self._logger, method):
                getattr(self._logger, method)(*arguments)

        self._background.add(self._what, call, num_bytes=num_bytes)
