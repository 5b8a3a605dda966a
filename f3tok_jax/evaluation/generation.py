# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound that a generator makes from the texts of held-out records."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import pcm16
from f3tok_jax.evaluation import auditions
from f3tok_jax.evaluation import generation_scores
from f3tok_jax.evaluation import listening_folder
from f3tok_jax.inference import batched
from f3tok_jax.inference import generate
from f3tok_jax.inference import generate as generate_lib
from f3tok_jax.inference import represent as represent_lib
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.runs import results_file

FORMAT = "f3tok generation 1"
_LONGER = 2.0  # than the longest recording, generated sound may be
_BATCH = 32  # examples at a time, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A held-out recording: its key, samples [n] float32, what it is asked as, its label."""

    key: str
    waveform: np.ndarray
    request: generate.Request
    label: str


def read_examples(
    shards: str,
    speaker: generate.Speaker,
    *,
    num_examples: int,
    label: str,
) -> list[Example]:
    """Recordings with a text that the run can speak, evenly spaced over a set.

    Raises:
        ValueError: where there is none.
    """
    source = sources.open_sound(shards, sample_rate=speaker.tokenizer.autoencoder.sample_rate)
    examples = []
    for index in range(len(source)):
        record = source[index]
        answers = speaker.text.answers(record, is_whole=source.is_whole(record))
        if answers and (not label or label in record.labels):
            task = max(answers, key=lambda name: speaker.text.weights[name])
            examples.append(
                Example(
                    key=record.key,
                    waveform=pcm16.to_float(record.waveform),
                    request=generate.Request(text=answers[task], task=task),
                    label=record.labels.get(label, ""),
                )
            )
    if not examples or num_examples < 1:
        raise ValueError(
            f"--shards must hold records with texts of the tasks "
            f"{', '.join(speaker.text.weights)}{f' and the label {label}' if label else ''}, and "
            f"--num_examples be at least 1, got {len(examples)} in {shards} and {num_examples}"
        )
    return [examples[index] for index in sources.spaced(len(examples), num_examples)]


class Studio:
    """Makes the rows of the table: lists of waveforms, one for each example."""

    def __init__(self, speaker: generate_lib.Speaker, examples: Sequence[Example]):
        self._speaker, self._examples = speaker, examples
        tokenizer = speaker.tokenizer
        self._batch_size = min(_BATCH, len(examples))
        longest = max(len(example.waveform) for example in examples)
        hop = tokenizer.autoencoder.samples_per_latent * speaker.generator.patch
        self.max_patches = int(_LONGER * -(-longest // hop))
        self._encoder = batched.Encoder(
            tokenizer.autoencoder,
            tokenizer.params,
            batch_size=self._batch_size,
            max_samples=int(_LONGER * longest) + 2 * hop,
        )
        self._represent = batched.Represent(
            speaker.generator.encoder, speaker.weights["encoder"], self._batch_size
        )

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Latents [t, d] of each waveform."""
        return self._encoder(waveforms)

    def represent(self, latents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Representations [t, d] of latents."""
        return self._represent(latents)

    @functools.cached_property
    def _transcriber(self) -> represent_lib.Transcriber:
        """Of the representation run that the speaker builds on; loaded once for all rows."""
        section = self._speaker.config.representation
        return represent_lib.Listener.load(section.workdir, section.step or None).transcriber

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """What the representation run that the speaker builds on answers about each waveform."""
        heard = zip(self.represent(self.encode(waveforms)), self._examples, strict=True)
        return [
            self._transcriber.answer(row[None], task=example.request.task) for row, example in heard
        ]

    def decode(self, latents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Waveforms of latents [t, d]."""
        decode = self._speaker.tokenizer.decode_blocks
        return [np.concatenate([block[0] for block in decode(row[None])]) for row in latents]

    def generate(
        self, sampler: sampler_lib.Sampler, *, seed: int
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Latents from the examples' texts alone, and which of them ended by themselves."""
        rows, stopped = [], []
        for index, batch in enumerate(self._batches()):
            latents, ended = self._speaker.speak_latents(
                [example.request for example in batch],
                max_patches=self.max_patches,
                seed=seed + index,
                sampler=sampler,
            )
            rows += latents
            stopped += list(ended)
        count = len(self._examples)
        return rows[:count], np.array(stopped[:count])

    def follow(
        self, latents: Sequence[np.ndarray], sampler: sampler_lib.Sampler, *, seed: int
    ) -> list[np.ndarray]:
        """Each patch made after the true patches before it: latents as long as the true ones."""
        speaker = self._speaker
        patch = speaker.generator.patch
        length = patch * -(-max(len(row) for row in latents) // patch)
        rows = []
        for index, batch in enumerate(self._batches()):
            first = index * self._batch_size
            true = np.zeros((self._batch_size, length, latents[0].shape[1]), np.float32)
            mask = np.zeros((self._batch_size, length), bool)
            for place, row in enumerate(latents[first : first + self._batch_size]):
                true[place, : len(row)], mask[place, : len(row)] = row, True
            made = speaker.follow(
                [example.request for example in batch],
                true,
                mask,
                sampler=sampler,
                seed=seed + index,
            )
            rows += [
                made[place, : len(row) // patch * patch]
                for place, row in enumerate(latents[first : first + self._batch_size])
            ]
        return rows

    def _batches(self) -> Iterator[list[Example]]:
        """Examples in batches of one size; the last is filled up with its first."""
        for start in range(0, len(self._examples), self._batch_size):
            batch = list(self._examples[start : start + self._batch_size])
            yield batch + batch[:1] * (self._batch_size - len(batch))


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    num_examples: int = 200,
    judge_shards: str = "",
    judge_label: str = "",
    transcribe: bool = False,
    changes: Sequence[dict[str, Any]] = ({},),
    seed: int = 0,
    num_listen: int = 4,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluates a run; writes `output` and the sounds beside it.

    Args:
        workdir: of a generation run.
        shards: held-out sound with texts.
        output: JSON file to write.
        step: of the checkpoint; None for the newest whole one.
        num_examples: evenly spaced over the set.
        judge_shards: recordings that the judge is trained on; "" for no judge.
        judge_label: what it tells apart; see auditions.Labels for labels of several classes.
        transcribe: whether the representation run that this one builds on writes down what it hears.
        changes: a row of generated sound for each: what differs from the run's sampler.
        seed: of the noise.
        num_listen: examples of which sounds are written.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        ValueError: if the run, the data or the numbers do not fit together.
    """
    if bool(judge_shards) != bool(judge_label):
        raise ValueError("--judge_shards and --judge_label go together, got one of them")
    speaker = generate_lib.Speaker.load(workdir, step, say=say)
    sample_rate = speaker.tokenizer.autoencoder.sample_rate
    examples = read_examples(shards, speaker, num_examples=num_examples, label=judge_label)
    studio = Studio(speaker, examples)
    truth = studio.encode([example.waveform for example in examples])
    listen = listening_folder.ListeningFolder(
        output, examples, num_listen=num_listen, sample_rate=sample_rate
    )
    auditioned: dict[str, Callable[[Sequence[np.ndarray]], float]] = {}
    if judge_label:
        labels = [example.label for example in examples]
        auditioned["judge_accuracy"] = auditions.Labels.learn(
            judge_shards, judge_label, labels, sample_rate=sample_rate, say=say
        )
    if transcribe:
        texts = [example.request.text for example in examples]
        auditioned["character_error_rate"] = auditions.Texts(studio.transcribe, texts)
    scores = generation_scores.GenerationScores(
        truth=truth,
        represent=studio.represent,
        seconds_per_latent=1 / speaker.tokenizer.autoencoder.latent_rate,
        auditions=auditioned,
    )
    recordings = [example.waveform for example in examples]
    rows = [{"name": "recording", "title": "recording", **scores.row(recordings, truth)}]

    def add(name: str, title: str, latents, stopped=None) -> None:
        waveforms = studio.decode(latents)
        for index, waveform in enumerate(waveforms):
            listen.write(index, name, waveform)
        rows.append({"name": name, "title": title, **scores.row(waveforms, latents, stopped)})

    add("reconstruction", "reconstruction", truth)
    add("after_true", "patches after true ones", studio.follow(truth, speaker.sampler, seed=seed))
    for number, change in enumerate(changes):
        sampler = dataclasses.replace(speaker.sampler, **change)
        title = ", ".join(["generated", *(f"{name} {value}" for name, value in change.items())])
        say(f"{title}: {len(examples)} sounds")
        add(f"generated_{number}", title, *studio.generate(sampler, seed=seed))
    results = {
        "format": FORMAT,
        "workdir": str(workdir),
        "step": speaker.step,
        "shards": shards,
        "num_examples": len(examples),
        "judge": {"shards": judge_shards, "label": judge_label},
        "sampler": dataclasses.asdict(speaker.sampler),
        "max_seconds": studio.max_patches / speaker.patches_per_second,
        "rows": rows,
        "texts": {example.key: example.request.text for example in examples},
        "listen": listen.index(),
    }
    results_file.write(output, results)
    return results


def format_table(results: dict[str, Any]) -> str:
    """The rows for a console."""
    columns = {
        "judge_accuracy": "judge",
        "character_error_rate": "own CER",
        "never_stopped": "never stopped",
        "stopped_at_once": "at once",
        "seconds": "seconds",
        "duration_error": "error, s",
        "frechet_distance": "Frechet",
    }
    width = max(len(row["title"]) for row in results["rows"])
    lines = [" " * width + "".join(f"{head:>15}" for head in columns.values())]
    for row in results["rows"]:
        cells = [f"{row[key]:15.3f}" if key in row else " " * 15 for key in columns]
        lines.append(f"{row['title']:{width}}" + "".join(cells))
    lines.append(f"{results['num_examples']} examples")
    return "\n".join(lines)
