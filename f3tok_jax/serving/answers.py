# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run makes of the sounds and texts of a page, ready for JSON; nothing is kept."""

import base64
from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from data_pipelines.records import atomic
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals
from f3tok_jax.inference import frames
from f3tok_jax.inference import model_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import lineage

_NAME = "the sound"  # in messages: what is sent has no name here
_BRIGHTEST = 0.995  # of the latents' sizes: the rest is as bright, so that one does not dim all

# Stage -> what F3Tokenizer loads of a run of it.
_PARTS = dict(autoencoder="codec", representation="representer", generation="text_to_sound")


class TooMuch(ValueError):
    """More than the limits allow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What is taken at most.

    Attributes:
        seconds: of a sound, given or made.
        num_bytes: of a file.
        characters: of a text.
        waiting: requests that wait for the model.
    """

    seconds: float = 60.0
    num_bytes: int = 32_000_000
    characters: int = 500
    waiting: int = 8


class Answers:
    """A run in use; one call at a time.

    Attributes:
        tokenizer: the run.
        limits: to what is taken.
        questions: tasks in which its language model answers about sound; none where it has none.
        kinds: tasks of texts of which it makes sound; none where it makes none.
    """

    def __init__(self, tokenizer: tokenizer_lib.F3Tokenizer, limits: Limits):
        """Takes a run whose messages nobody hears; see `load`."""
        self.tokenizer, self.limits = tokenizer, limits
        self.questions = _questions(tokenizer.run)
        self.kinds = _kinds(tokenizer.run)
        self._notes: list[str] = []

    @classmethod
    def load(
        cls,
        folder: str,
        step: int | None,
        limits: Limits,
        *,
        moved: Mapping[str, str],
        say: Callable[[str], None],
    ) -> "Answers":
        """Opens a run and loads its autoencoder and its own part; see F3Tokenizer.from_pretrained.

        Args:
            folder: of the run.
            step: of the checkpoint; the newest whole one if None.
            limits: to what is taken.
            moved: where what the run names lies now.
            say: where messages to the user go; those about a request go to who asked, too.

        Raises:
            ValueError: where it is no run that can be used.
            checkpoint.CheckpointError: where no checkpoint asked for is whole.
        """

        def tell(text: str) -> None:
            say(text)
            answers._notes.append(text)

        run = tokenizer_lib.F3Tokenizer.from_pretrained(folder, step, moved=moved, say=tell)
        answers = cls(run, limits)
        run.codec, answers._used()
        return answers

    def model(self) -> dict[str, Any]:
        """What the run is, at the step whose weights are used, and what it can do."""
        return dict(
            **model_folder.describe(self._used()),
            questions=self.questions,
            kinds=self.kinds,
            limits=dataclasses.asdict(self.limits),
        )

    def _used(self) -> lineage.Lineage:
        """The run at the step that is loaded: an older one where the newest is damaged."""
        run = self.tokenizer.run
        step = getattr(self.tokenizer, _PARTS[run.stage]).step
        return run if step == run.step else run.at(step)

    def reconstruct(self, sound: bytes) -> dict[str, Any]:
        """A sound through the tokenizer, its channels mixed, and its latents on the way.

        Args:
            sound: file of any kind that audio_files reads.

        Raises:
            TooMuch: where it is too long.
            ValueError: where it is no sound, or not whole.
        """
        with self._asked() as notes, self._stored(sound) as path:
            latents = self.tokenizer.encode_file(path, name=_NAME)
            made = path.with_name("made.wav")
            self.tokenizer.decode_file(latents, made)
            return dict(
                seconds=latents.num_samples[0] / latents.sample_rate,
                sample_rate=latents.sample_rate,
                latents=_picture(latents),
                sound=_encoded(made.read_bytes()),
                notes=notes,
            )

    def transcribe(self, sound: bytes, task: str) -> dict[str, Any]:
        """What the language model answers about a sound; see `reconstruct`.

        Raises:
            ValueError: where the run has none, or was not trained in the task, too.
        """
        _check_task(task, self.questions, "answers about sound")
        with self._asked() as notes, self._stored(sound) as path:
            text = self.tokenizer.transcribe_file(path, task=task, name=_NAME)
            return dict(text=text, notes=notes)

    def generate(self, text: str, task: str, *, seconds: float, seed: int) -> dict[str, Any]:
        """Sound of a text.

        Args:
            text: what is said, or a caption.
            task: how it is meant.
            seconds: of sound at most.
            seed: of the noise.

        Raises:
            TooMuch: for a longer text, or more seconds, than the limits allow.
            ValueError: where the run makes no sound of texts, or not of this one.
        """
        _check_task(task, self.kinds, "makes sound of texts")
        if len(text) > self.limits.characters:
            raise TooMuch(
                f"a text must have at most {self.limits.characters} characters, got {len(text)}"
            )
        if not 0 < seconds <= self.limits.seconds:
            raise TooMuch(
                f"seconds must be above 0 and up to {self.limits.seconds:g}, got {seconds:g}"
            )
        with self._asked() as notes, atomic.temporary_folder() as folder:
            options = dict(task=task, max_seconds=seconds, seed=seed)
            made = self.tokenizer.generate_file(text, folder / "made.wav", **options)
            return dict(
                seconds=made.seconds,
                ending=made.ending,
                sound=_encoded((folder / "made.wav").read_bytes()),
                notes=notes,
            )

    @contextlib.contextmanager
    def _asked(self) -> Iterator[list[str]]:
        """What is said to the user while a request is answered."""
        self._notes = []
        yield self._notes

    @contextlib.contextmanager
    def _stored(self, sound: bytes) -> Iterator[pathlib.Path]:
        """A file with a sound that is not too long, for a while."""
        with atomic.temporary_folder() as folder:
            path = folder / "given"
            path.write_bytes(sound)
            seconds = _seconds(path, self.limits.seconds)
            if seconds > self.limits.seconds:
                raise TooMuch(
                    f"{_NAME} must be at most {self.limits.seconds:g} s long, got more: cut it, or "
                    "give --max_seconds"
                )
            yield path


def _questions(run: lineage.Lineage) -> list[str]:
    """Tasks that the run, or the one it was trained on, was supervised in; the weightiest first."""
    found = run if run.stage == "representation" else run.ancestor("representation")
    return _weightiest(found.config.supervision) if found else []


def _kinds(run: lineage.Lineage) -> list[str]:
    return _weightiest(dict(run.config.text, weight=1.0)) if run.stage == "generation" else []


def _weightiest(section: Mapping[str, Any]) -> list[str]:
    if not section["weight"]:
        return []
    weights = {name: weight for name, weight in section["tasks"].items() if weight}
    return sorted(weights, key=lambda name: -weights[name])


def _check_task(task: str, known: list[str], what: str) -> None:
    if not known:
        raise ValueError(f"this needs a run that {what}, got one that does not")
    if task not in known:
        raise ValueError(f"task must be one of {', '.join(known)}, got {task!r}")


def _seconds(path: pathlib.Path, enough: float) -> float:
    """How long a sound is, decoded: what a header says may be wrong. Above `enough`, any more."""
    num_samples = 0
    with contextlib.suppress(refusals.Refused), audio_files.opened(path) as sound:
        for block in sound.blocks:
            num_samples += len(block)
            if num_samples > enough * sound.sample_rate:
                return math.inf
        return num_samples / sound.sample_rate
    return 0.0  # Whoever encodes it says what is wrong with it.


def _picture(latents: frames.Frames) -> dict[str, Any]:
    """Latents as bytes: 128 is 0, 1 and 255 are -limit and limit, frame after frame."""
    values = latents.rows[0]
    limit = float(np.quantile(np.abs(values), _BRIGHTEST)) or 1.0
    scaled = np.clip(np.rint(128 + 127 * values / limit), 1, 255).astype(np.uint8)
    return dict(
        frames=len(values),
        width=values.shape[1],
        rate=latents.latent_rate,
        limit=limit,
        values=_encoded(scaled.tobytes()),
    )


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
