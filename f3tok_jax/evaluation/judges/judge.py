# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a judge of sound is: what it needs, what it hears, and figures of that."""

import abc
from collections.abc import Mapping
import dataclasses
import functools
from importlib import metadata
import importlib.util
import pathlib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from f3tok_jax.evaluation import published
from f3tok_jax.runs import results

RATE = 16_000  # Hz, of all that is judged: every judge was trained at it


class Verdict(NamedTuple):
    """Figures of one sound.

    Attributes:
        values: figure -> value.
        undefined: figure -> why there is none. Figures that compare are in neither where there is
            nothing to compare with.
        weights: figure -> weight in a mean over sounds, such as the words of a rate; 1 where absent.
    """

    values: Mapping[str, float]
    undefined: Mapping[str, str] = {}
    weights: Mapping[str, float] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """The distribution that brings a judge's weights.

    Attributes:
        name: of the distribution.
        files: below site-packages, that must be there.
        modules: that run them, beside what this project needs anyway.
        install: the command that brings all of it.
        licence: of code and weights.
    """

    name: str
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    install: str
    licence: str

    def missing(self) -> str:
        """Why it cannot be used, "" where it can; imports nothing."""
        try:
            place = metadata.distribution(self.name).locate_file
            lacking = [name for name in self.files if not pathlib.Path(place(name)).is_file()]
        except metadata.PackageNotFoundError:
            lacking = [self.name]
        lacking += [name for name in self.modules if importlib.util.find_spec(name) is None]
        return f"no {', '.join(lacking)}: {self.install}" if lacking else ""

    @property
    def version(self) -> str:
        return metadata.version(self.name)

    def file(self, name: str) -> pathlib.Path:
        """Where a file of it lies."""
        return pathlib.Path(metadata.distribution(self.name).locate_file(name))


class Judge(abc.ABC):
    """Hears sounds, and says figures of what it heard.

    Hearing takes long, comparing does not: what is heard of a recording is kept by who compares
    others with it.

    Attributes:
        name: of the judge.
        package: that brings its weights.
        figures: name -> what the figure is.
        comparing: names of the figures that compare with what was heard in a reference.
        is_of_speakers: whether the reference may be another recording of the same voice.
    """

    name: ClassVar[str]
    package: ClassVar[Package]
    figures: ClassVar[Mapping[str, results.Metric]]
    comparing: ClassVar[frozenset[str]] = frozenset()
    is_of_speakers: ClassVar[bool] = False

    @property
    def source(self) -> results.JudgeSource:
        """Who judges, for the results."""
        package = self.package
        return results.JudgeSource(
            package=package.name, version=package.version, licence=package.licence
        )

    def hear(self, waveform: np.ndarray, sample_rate: int) -> Any:
        """What the judge hears, of any kind that its `verdict` understands.

        Args:
            waveform: [n], float; limited to [-1, 1], as in any file of PCM.
            sample_rate: Hz.

        Raises:
            published.Undefined: if there is nothing that it could judge.
            ValueError: for an empty waveform, or one that is not finite.
        """
        if waveform.ndim != 1 or not waveform.size or not np.isfinite(waveform).all():
            raise ValueError(
                f"{self.name} hears sounds [n] of at least one sample, all finite, got the shape "
                f"{list(waveform.shape)}: leave the sound out or repair what made it"
            )
        sound = published.resampled(waveform, sample_rate, RATE)
        return self._hear(np.clip(sound, -1.0, 1.0) if sound.size else np.zeros(1, np.float32))

    @abc.abstractmethod
    def _hear(self, sound: np.ndarray) -> Any:
        """`hear` of [n] float32 in [-1, 1] at RATE, n at least 1."""

    @abc.abstractmethod
    def verdict(
        self, heard: Any, *, reference: Any = None, text: str = "", language: str = ""
    ) -> Verdict:
        """Figures of what was heard.

        Args:
            heard: by `hear`.
            reference: the same, of the sound to compare with; None for none.
            text: that is to be heard, "" where none is known.
            language: of it, as ISO 639 has it ("en"); "" where nothing tells.
        """

    def __call__(
        self,
        waveform: np.ndarray,
        sample_rate: int,
        *,
        reference: np.ndarray | None = None,
        text: str = "",
        language: str = "",
    ) -> Verdict:
        """`verdict` of what is heard in a waveform, beside a reference [n] at the same rate."""
        try:
            heard = self.hear(waveform, sample_rate)
            is_compared = reference is not None and self.comparing
            known = self.hear(reference, sample_rate) if is_compared else None
        except published.Undefined as reason:
            return self.none(str(reason))
        return self.verdict(heard, reference=known, text=text, language=language)

    def none(self, reason: str) -> Verdict:
        """No figure has a value."""
        return Verdict({}, dict.fromkeys(self.figures, reason))


def check_loud(sound: np.ndarray) -> None:
    """Raises published.Undefined for silence."""
    if not np.any(sound):
        raise published.Undefined("the sound is silent")


@functools.lru_cache(maxsize=8)
def onnx_session(path: pathlib.Path) -> Any:
    """A graph of ONNX, run on one core: programs judge several sounds at a time."""
    import onnxruntime  # pylint: disable=g-import-not-at-top: an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; by default it also tells how it would do better
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def metric(title: str, unit: str = "", *, higher: bool, explanation: str) -> results.Metric:
    """A figure of a judge in words."""
    return results.Metric(title=title, unit=unit, higher_is_better=higher, explanation=explanation)
