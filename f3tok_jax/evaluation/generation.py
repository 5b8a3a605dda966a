# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound that a generator makes from the texts of held-out records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from f3tok_jax.evaluation import asked as asked_lib
from f3tok_jax.evaluation import error_rates
from f3tok_jax.evaluation import generation_scores
from f3tok_jax.evaluation import recognition
from f3tok_jax.evaluation import sounds_folder
from f3tok_jax.evaluation import text_sensitivity as text_sensitivity_lib
from f3tok_jax.evaluation import zero_shot as zero_shot_lib
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import results as results_lib

# Name of a figure -> waveforms to how much of the texts or labels is heard in them.
Recognized = dict[str, Callable[[Sequence[np.ndarray]], float]]


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    moved: Mapping[str, str] | None = None,
    num_examples: int = 200,
    classifier_shards: str = "",
    classifier_label: str = "",
    transcribe: bool = False,
    zero_shot: bool = False,
    text_sensitivity: bool = False,
    changes: Sequence[dict[str, Any]] = ({},),
    seed: int = 0,
    num_listen: int = 4,
    judges: panel.Choice = panel.Choice(),
    say: Callable[[str], None] = print,
) -> results_lib.Generation:
    """Evaluates a run; writes `output` and the sounds beside it.

    Args:
        workdir: of a generation run.
        shards: held-out sound with texts.
        output: JSON file to write.
        step: of the checkpoint; None for the newest whole one.
        moved: where what the run names lies now; see F3Tokenizer.from_pretrained.
        num_examples: evenly spaced over the set.
        classifier_shards: recordings that the classifier is trained on; "" for no classifier.
        classifier_label: what it tells apart; see recognition.LabelAccuracy for labels of several
            classes.
        transcribe: whether the representation run below this one writes down what it hears.
        zero_shot: whether each text is said in the voice of another recording of its speaker, which
            is given with its own text.
        text_sensitivity: whether every row is made twice more, once with other noise and once with
            the texts of others; see `text_sensitivity.measure`.
        changes: a row of generated sound for each: what differs from the run's sampler.
        seed: of the noise.
        num_listen: examples of which sounds are written.
        judges: who hears some of the examples, in every row; voices are compared with the prompts
            where there are any.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        ValueError: if the run, the data or the numbers do not fit together.
    """
    check_classifier(classifier_shards, classifier_label)
    if text_sensitivity and zero_shot:
        raise ValueError("--text_sensitivity is of texts without prompts, got --zero_shot, too")
    judges.found()
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir, step, moved=moved, say=say)
    options = dict(num_examples=num_examples, label=classifier_label, zero_shot=zero_shot)
    asked = asked_lib.ask(tokenizer, shards, **options, say=say)
    recognized = learn_classifier(asked, classifier_shards, classifier_label, say=say)
    if transcribe:
        rate = functools.partial(_character_error_rate, asked, tokenizer)
        recognized["character_error_rate"] = rate
    found = measure(
        asked,
        output,
        recognized=recognized,
        text_sensitivity=text_sensitivity,
        changes=changes,
        seed=seed,
        num_listen=num_listen,
        judges=judges,
        say=say,
    )
    results = results_lib.Generation(
        workdir=str(workdir),
        step=tokenizer.text_to_sound.step,
        shards=shards,
        classifier=results_lib.ClassifierSource(shards=classifier_shards, label=classifier_label),
        sampler=dataclasses.asdict(tokenizer.text_to_sound.sampler),
        zero_shot=zero_shot_lib.told(asked.pairs, recognized) if asked.pairs else None,
        **found,
    )
    results_lib.write(output, results)
    return results


def measure(
    asked: asked_lib.Asked,
    output: pathlib.Path,
    *,
    recognized: Recognized,
    text_sensitivity: bool,
    changes: Sequence[dict[str, Any]],
    seed: int,
    num_listen: int,
    judges: panel.Choice,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Has the generator say all that is asked and measures it; writes sounds beside `output`.

    Args:
        asked: of the generator.
        recognized: what is measured of every row.
        text_sensitivity: as in `evaluate`, and all that follow.
        changes: likewise.
        seed: likewise.
        num_listen: likewise.
        judges: likewise.
        say: likewise.

    Returns:
        The fields of results.Generation that are of any generator.
    """
    rate = asked.codec.sample_rate
    scores = generation_scores.GenerationScores(
        truth=asked.truth,
        represent=asked.represent,
        seconds_per_latent=1 / asked.codec.autoencoder.latent_rate,
        recognition=recognized | _voices(asked),
    )
    sounds = sounds_folder.SoundsFolder(
        output, asked.examples, num_listen=num_listen, sample_rate=rate
    )
    voices = asked.prompts
    jury = panel.Panel(judges, asked.examples, sample_rate=rate, voices=voices, say=say)
    rows = [scores.row("recording", "recording", asked.recordings, asked.truth)]
    for made in _made(asked, changes=changes, seed=seed, say=say):
        waveforms = asked.decode(made.latents, asked.gains if made.is_of_recording else None)
        for index, waveform in enumerate(waveforms):
            sounds.write(index, made.name, waveform)
            jury.write(index, made.name, waveform, is_of_recording=made.is_of_recording)
        row = scores.row(made.name, made.title, waveforms, made.latents, made.stopped)
        if text_sensitivity and not made.is_of_recording:
            row = dataclasses.replace(row, **_sensitivity(asked, made, waveforms, seed=seed))
        rows.append(row)
    return dict(
        num_examples=len(asked.examples),
        max_seconds=asked.max_seconds,
        gives_lengths=asked.gives_lengths,
        rows=tuple([*rows, *_strangers(asked)]),
        texts={example.key: example.text for example in asked.examples},
        judged=jury.close({row.name: row.title for row in rows}),
        sounds=sounds.close(),
    )


def check_classifier(shards: str, label: str) -> None:
    """Raises ValueError where there is one without the other."""
    if bool(shards) != bool(label):
        raise ValueError("--classifier_shards and --classifier_label go together, got one of them")


def learn_classifier(
    asked: asked_lib.Asked, shards: str, label: str, *, say: Callable[[str], None]
) -> Recognized:
    """classifier_accuracy of a classifier that has learnt from recordings; {} without a label."""
    if not label:
        return {}
    wanted = [example.labels[label] for example in asked.examples]
    options = dict(sample_rate=asked.codec.sample_rate, say=say)
    learn = recognition.LabelAccuracy.learn
    return {"classifier_accuracy": learn(shards, label, wanted, **options)}


def _voices(asked: asked_lib.Asked) -> Recognized:
    """Name of a figure -> how alike waveforms are to the prompts, in voice; {} without prompts."""
    if not asked.pairs:
        return {}
    sample_rate = asked.codec.sample_rate
    similarity = zero_shot_lib.VoiceSimilarity(
        prompts=asked.prompts,
        recordings=asked.recordings,
        embed=functools.partial(zero_shot_lib.spectral_voice, sample_rate=sample_rate),
    )
    return {"speaker_similarity": similarity}


def _strangers(asked: asked_lib.Asked) -> Iterator[results_lib.GeneratedRow]:
    """The row of recordings of other speakers than the prompts', where there are any."""
    if others := zero_shot_lib.others(asked.pairs):
        similarity = _voices(asked)["speaker_similarity"](others)
        title = "recordings of others"
        yield results_lib.GeneratedRow(name="others", title=title, speaker_similarity=similarity)


def _character_error_rate(
    asked: asked_lib.Asked,
    tokenizer: tokenizer_lib.F3Tokenizer,
    waveforms: Sequence[np.ndarray],
) -> float:
    """Of the project's own transcription: it knows the same autoencoder, no independent witness."""
    answer = tokenizer.transcriber.answer
    heard = zip(asked.represent(asked.encode(waveforms)), asked.examples, strict=True)
    pairs = ((example.text, answer(row, task=example.task)) for row, example in heard)
    return error_rates.rate(error_rates.characters(*pair) for pair in pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made:
    """A row of the table: which ended by themselves, if they could, and how it was sampled.

    What is of recordings has their levels; what is made of texts has the model's.
    """

    name: str
    title: str
    latents: Sequence[np.ndarray]
    is_of_recording: bool = True
    stopped: np.ndarray | None = None
    change: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _made(
    asked: asked_lib.Asked,
    *,
    changes: Sequence[dict[str, Any]],
    seed: int,
    say: Callable[[str], None],
) -> Iterator[_Made]:
    """The rows of the table, but for that of the recordings."""
    yield _Made(name="reconstruction", title="reconstruction", latents=asked.truth)
    if asked.follow and not asked.pairs:
        title = "patches after true ones"
        yield _Made(name="after_true", title=title, latents=asked.follow(seed))
    for number, change in enumerate(changes):
        title = ", ".join(["generated", *(f"{name} {value}" for name, value in change.items())])
        say(f"{title}: {len(asked.examples)} sounds")
        latents, stopped = asked.speak(change, seed=seed)
        made = _Made(name=f"generated_{number}", title=title, latents=latents, change=change)
        yield dataclasses.replace(made, stopped=stopped, is_of_recording=False)


def _sensitivity(
    asked: asked_lib.Asked, made: _Made, waveforms: Sequence[np.ndarray], *, seed: int
) -> dict[str, Any]:
    """Figures of how much of a generated row its texts decide; see text_sensitivity.measure."""

    def again(numbers: Sequence[int], seed: int) -> list[np.ndarray]:
        """Waveforms of the texts of these numbers, with other noise or in the place of others."""
        latents, _ = asked.speak(made.change, seed=seed, numbers=numbers)
        return asked.decode(latents)

    return text_sensitivity_lib.measure(
        waveforms,
        again,
        texts=[example.text for example in asked.examples],
        seed=seed,
        sample_rate=asked.codec.sample_rate,
    )


def format_table(results: results_lib.Generation) -> str:
    """The rows for a console."""
    columns = {
        "classifier_accuracy": "classifier",
        "character_error_rate": "own CER",
        "speaker_similarity": "voice",
        "never_stopped": "never stopped",
        "stopped_at_once": "at once",
        "seconds": "seconds",
        "duration_error": "error, s",
        "frechet_distance": "Frechet",
        "text_sensitivity": "text / noise",
    }
    told = lambda name: any(getattr(row, name) is not None for row in results.rows)
    columns = {name: head for name, head in columns.items() if told(name)}
    width = max(len(row.title) for row in results.rows)
    lines = [" " * width + "".join(f"{head:>15}" for head in columns.values())]
    for row in results.rows:
        found = [getattr(row, name) for name in columns]
        cells = [" " * 15 if value is None else f"{value:15.3f}" for value in found]
        lines.append(f"{row.title:{width}}" + "".join(cells))
    lengths = ", each as long as the recording of its text" if results.gives_lengths else ""
    lines.append(f"{results.num_examples} examples{lengths}")
    if results.zero_shot:
        said = f"words: {results.zero_shot.words}; voices: {results.zero_shot.voices}"
        lines.append(f"each after a prompt of its speaker; {said}")
    lines += panel.format_tables(results.judged) if results.judged else []
    return "\n".join(lines)
