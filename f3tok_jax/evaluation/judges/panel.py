# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Judges that hear the same examples of every row of an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import dataclasses
import os
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import published
from f3tok_jax.evaluation import scores as scores_lib
from f3tok_jax.evaluation.judges import distilled_mos
from f3tok_jax.evaluation.judges import intelligibility
from f3tok_jax.evaluation.judges import judge as judge_lib
from f3tok_jax.evaluation.judges import naturalness
from f3tok_jax.evaluation.judges import pitch
from f3tok_jax.evaluation.judges import speaker_similarity
from f3tok_jax.evaluation.judges import voice_activity
from f3tok_jax.runs import results

JUDGES: Mapping[str, type[judge_lib.Judge]] = {
    kind.name: kind
    for kind in (
        intelligibility.Pocketsphinx,
        naturalness.Dnsmos,
        distilled_mos.DistillMos,
        speaker_similarity.SpeakerSimilarity,
        voice_activity.SileroVad,
        pitch.Crepe,
    )
}
ALL, NONE = "all", "none"
RECORDING = "recording"  # the first row
_LANGUAGE = "language"  # the label of records that says what is spoken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Who judges, and how much.

    Attributes:
        names: of `JUDGES`; ("all",) for all, ("none",) for none, () for those that are installed.
        num_examples: that they hear, evenly spaced, at most.
        recogniser: folder of another recogniser, "" for none.
    """

    names: Sequence[str] = ()
    num_examples: int = 8
    recogniser: str = ""

    def found(self) -> tuple[list[str], dict[str, str]]:
        """Names of those who judge, beside the recogniser, and of the absent what they lack.

        Raises:
            ValueError: for a name of nobody, a judge that was asked for and is not there, and a
                recogniser without what runs it.
        """
        if self.num_examples < 1:
            raise ValueError(f"--judge_examples must be at least 1, got {self.num_examples}")
        allowed = {*JUDGES, *({ALL, NONE} if len(self.names) == 1 else ())}
        if unknown := [one for one in self.names if one not in allowed]:
            raise ValueError(
                f"--judges must be {ALL}, {NONE} or some of {', '.join(JUDGES)}, got {unknown[0]!r}"
            )
        runs_folders = intelligibility.FolderRecogniser.package
        if self.recogniser and (lacking := runs_folders.missing()):
            raise ValueError(f"--recogniser must have transformers to run it, got {lacking}")
        wanted = JUDGES if not self.names or ALL in self.names else dict.fromkeys(self.names)
        lacking = {name: JUDGES[name].package.missing() for name in wanted if name != NONE}
        absent = {name: reason for name, reason in lacking.items() if reason}
        if absent and self.names:
            name, reason = next(iter(absent.items()))
            raise ValueError(
                f"--judges={','.join(self.names)} must be judges that are installed, got {name} "
                f"with {reason}"
            )
        return [name for name in lacking if name not in absent], absent


class Panel:
    """Hears recordings, and what was made of them, row by row."""

    def __init__(
        self,
        choice: Choice,
        examples: Sequence[examples_lib.Example],
        *,
        sample_rate: int,
        voices: Sequence[np.ndarray] = (),
        say: Callable[[str], None],
    ):
        """Calls the judges and has them hear the recordings.

        Args:
            choice: of judges.
            examples: recordings, and what is said in them, if they tell.
            sample_rate: Hz, of all that is heard.
            voices: of each example another recording of whose voice it should be; () for its own.
            say: where it is told who judges, and who is absent.

        Raises:
            ValueError: see `Choice.found`, and for a folder without a recogniser.
        """
        names, self._absent = choice.found()
        self._judges: list[judge_lib.Judge] = [JUDGES[name]() for name in names]
        if choice.recogniser:
            self._judges.append(intelligibility.FolderRecogniser(choice.recogniser))
        self._sample_rate, self._scores = sample_rate, scores_lib.Scores()
        chosen = sources.spaced(len(examples), choice.num_examples) if self._judges else ()
        self._examples = {index: examples[index] for index in chosen}
        self._recordings, self._voices = {}, {}  # judge and index -> what is heard of them
        if self._judges:
            names = ", ".join(f"{one.name} {one.source.version}" for one in self._judges)
            say(f"{len(self._examples)} of {len(examples)} examples are judged by {names}")
        if self._absent:
            say(absent_line(self._absent))
        for index, example in self._examples.items():
            for one in self._judges:
                if len(voices) and one.is_of_speakers:
                    self._voices[one.name, index] = _heard(one, voices[index], sample_rate)
            heard = self._judge(RECORDING, index, example.waveform, is_of_recording=False)
            self._recordings |= {(name, index): what for name, what in heard.items()}

    def write(
        self, index: int, row: str, waveform: np.ndarray, *, is_of_recording: bool = True
    ) -> None:
        """Has a sound judged, if its example was chosen.

        Args:
            index: of the example.
            row: that the sound is of.
            waveform: [n].
            is_of_recording: whether it should be its recording again, in its time; else it is
                compared with voices alone, where they were given.
        """
        if index in self._examples:
            self._judge(row, index, waveform, is_of_recording=is_of_recording)

    def close(self, rows: Mapping[str, str]) -> results.Judged | None:
        """What was judged, None where nobody judges and nobody is missed.

        Args:
            rows: name -> title, in order; those of which nothing was written are left out.
        """
        if not self._judges and not self._absent:
            return None
        figures = {
            f"{one.name}/{name}": metric
            for one in self._judges
            for name, metric in one.figures.items()
        }
        titles = {RECORDING: RECORDING} | dict(rows)
        return results.Judged(
            num_examples=len(self._examples),
            judges={one.name: one.source for one in self._judges},
            absent=self._absent,
            metrics=figures,
            rows=tuple(
                self._scores.scored(name, title, figures=[one for one in figures if one in said])
                for name, title in titles.items()
                if (said := self._scores.said(name))
            ),
        )

    def _judge(
        self, row: str, index: int, waveform: np.ndarray, *, is_of_recording: bool
    ) -> dict[str, Any]:
        """Has all judges hear a sound and adds their verdicts; judge -> what it heard."""
        example = self._examples[index]
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            hear = lambda one: _heard(one, waveform, self._sample_rate)  # noqa: E731
            heard = dict(zip((one.name for one in self._judges), pool.map(hear, self._judges)))
        for one in self._judges:
            known = self._recordings if is_of_recording else {}
            reference = (known | self._voices).get((one.name, index))
            words = dict(text=example.transcript, language=example.labels.get(_LANGUAGE, ""))
            found = _verdict(one, heard[one.name], reference, words)
            parts = ({f"{one.name}/{name}": what for name, what in part.items()} for part in found)
            self._scores.add(row, *parts)
        return heard


def _heard(one: judge_lib.Judge, waveform: np.ndarray, sample_rate: int) -> Any:
    """What a judge hears, or why there is nothing to hear."""
    try:
        return one.hear(waveform, sample_rate)
    except published.Undefined as reason:
        return reason


def _verdict(
    one: judge_lib.Judge, heard: Any, reference: Any, words: Mapping[str, str]
) -> judge_lib.Verdict:
    """Figures of what was heard, where that and the reference are something."""
    comparing = one.comparing if reference is not None else frozenset()
    alone = [name for name in one.figures if name not in one.comparing]
    if isinstance(heard, published.Undefined):
        return judge_lib.Verdict({}, dict.fromkeys([*alone, *comparing], str(heard)))
    if not isinstance(reference, published.Undefined):
        return one.verdict(heard, reference=reference, **words)
    found = one.verdict(heard, **words)
    reasons = dict.fromkeys(comparing, f"what it is compared with: {reference}")
    return found._replace(undefined={**found.undefined, **reasons})


def absent_line(absent: Mapping[str, str]) -> str:
    """Which judges are not there, and what would bring them, on one line."""
    return f"absent judges: {'; '.join(f'{name} ({reason})' for name, reason in absent.items())}"


def format_tables(judged: results.Judged) -> list[str]:
    """A table for each judge, for a console, and who is absent."""
    tables = []
    for name, source in judged.judges.items():
        figures = [figure for figure in judged.metrics if figure.startswith(f"{name}/")]
        tables.append(f"{name}: {source.package} {source.version}, {judged.num_examples} examples")
        tables.append(
            scores_lib.format_rows(judged.rows, judged.metrics, figures, judged.num_examples)
        )
    return tables + ([absent_line(judged.absent)] if judged.absent else [])
