# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound that a generator makes from the texts of held-out records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from f3tok_jax.evaluation import error_rates
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import generation_scores
from f3tok_jax.evaluation import recognition
from f3tok_jax.evaluation import sounds_folder
from f3tok_jax.evaluation import text_sensitivity as text_sensitivity_lib
from f3tok_jax.evaluation import zero_shot as zero_shot_lib
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.inference import generate
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import results as results_lib

_LONGER = 2.0  # than the longest recording, generated sound may be
_BATCH = 32  # examples at a time, at most


def read_examples(
    shards: str, generator: generate.TextToSound, *, num_examples: int, label: str
) -> list[examples_lib.Example]:
    """Recordings with a text that the run can say, evenly spaced over a set.

    Of several captions the first is what the generator is asked for.

    Raises:
        ValueError: where there is none.
    """
    source = sources.open_sound(shards, sample_rate=generator.codec.sample_rate)
    weights, examples = generator.text.weights, []
    if num_examples > 0:
        text_of = _text_of(source, generator, label)
        examples, _ = examples_lib.read_examples(source, num_examples, text_of=text_of)
    if not examples:
        raise ValueError(
            f"--shards must hold records with texts of the tasks {', '.join(weights)}"
            f"{f' and the label {label}' if label else ''}, and --num_examples be at least 1, got "
            f"none in {shards} and {num_examples}"
        )
    return examples


def _text_of(
    source: Any, generator: generate.TextToSound, label: str
) -> Callable[[Any], tuple[str, str] | None]:
    """Record -> the task of the greatest weight that it can answer, and its first text."""
    weights = generator.text.weights

    def text_of(record: Any) -> tuple[str, str] | None:
        answers = generator.text.answers(record, is_whole=source.is_whole(record))
        if not answers or (label and label not in record.labels):
            return None
        task = max(answers, key=weights.get)
        return task, answers[task][0]

    return text_of


def read_pairs(
    shards: str,
    generator: generate.TextToSound,
    *,
    num_examples: int,
    label: str,
    say: Callable[[str], None],
) -> list[zero_shot_lib.Pair]:
    """Recordings with a text, each with another of its speaker; see zero_shot.read_pairs."""
    source = sources.open_sound(shards, sample_rate=generator.codec.sample_rate)
    text_of = _text_of(source, generator, label)
    options = dict(num_examples=num_examples, text_of=text_of, say=say)
    return zero_shot_lib.read_pairs(source, generator, **options)


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
    if bool(classifier_shards) != bool(classifier_label):
        raise ValueError("--classifier_shards and --classifier_label go together, got one of them")
    if text_sensitivity and zero_shot:
        raise ValueError("--text_sensitivity is of texts without prompts, got --zero_shot, too")
    judges.found()
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir, step, moved=moved, say=say)
    generator, codec = tokenizer.text_to_sound, tokenizer.codec
    options = dict(num_examples=num_examples, label=classifier_label)
    pairs: list[zero_shot_lib.Pair] = []
    if zero_shot:
        pairs = read_pairs(shards, generator, **options, say=say)
        examples = [pair.target for pair in pairs]
    else:
        examples = read_examples(shards, generator, **options)
    recordings = [example.waveform for example in examples]
    longest = max(map(len, recordings))
    patch_samples = generator.generator.patch * codec.autoencoder.samples_per_latent
    max_patches = int(_LONGER * -(-longest // patch_samples))
    in_batches = dict(batch_size=min(_BATCH, len(examples)))
    encode = functools.partial(codec.encode, **in_batches, expected=int(_LONGER * longest))
    represent = functools.partial(tokenizer.representer.represent, **in_batches)
    recognized: dict[str, Callable[[Sequence[np.ndarray]], float]] = {}
    if classifier_label:
        labels = [example.labels[classifier_label] for example in examples]
        recognized["classifier_accuracy"] = recognition.LabelAccuracy.learn(
            classifier_shards, classifier_label, labels, sample_rate=codec.sample_rate, say=say
        )
    if transcribe:
        recognized["character_error_rate"] = functools.partial(
            _character_error_rate,
            examples=examples,
            represent=lambda waveforms: represent(encode(waveforms)),
            answer=tokenizer.transcriber.answer,
        )
    requests = _requests(generator, examples, pairs, encode)
    if pairs:
        longest_request = max(requests, key=lambda request: request.num_latents)
        seconds = max_patches / generator.patches_per_second
        max_patches = generator.patches_for(longest_request, seconds, say=say)
    gains = codec.gains(recordings)
    truth = encode(recordings, gains=gains)
    scores = generation_scores.GenerationScores(
        truth=truth,
        represent=represent,
        seconds_per_latent=1 / codec.autoencoder.latent_rate,
        recognition=recognized | _voices(pairs, codec.sample_rate),
    )
    sounds = sounds_folder.SoundsFolder(
        output, examples, num_listen=num_listen, sample_rate=codec.sample_rate
    )
    prompts = [pair.prompt.waveform for pair in pairs]
    jury = panel.Panel(judges, examples, sample_rate=codec.sample_rate, voices=prompts, say=say)
    rows = [scores.row("recording", "recording", recordings, truth)]
    speak = functools.partial(generator.generate, max_patches=max_patches, batch_size=_BATCH)
    for made in _made(generator, requests, truth, speak, changes=changes, seed=seed, say=say):
        # Recordings have a level; what is made of texts has the model's.
        heard = gains if made.stopped is None else None
        waveforms = codec.decode(made.latents, gains=heard, **in_batches)
        for index, waveform in enumerate(waveforms):
            sounds.write(index, made.name, waveform)
            jury.write(index, made.name, waveform, is_of_recording=made.stopped is None)
        row = scores.row(made.name, made.title, waveforms, made.latents, made.stopped)
        if text_sensitivity and made.stopped is not None:
            again = functools.partial(_say_again, requests, speak, codec.decode, made.change)
            found = text_sensitivity_lib.measure(
                waveforms,
                again,
                texts=[request.text for request in requests],
                seed=seed,
                sample_rate=codec.sample_rate,
            )
            row = dataclasses.replace(row, **found)
        rows.append(row)
    if strangers := zero_shot_lib.others(pairs):
        similarity = _voices(pairs, codec.sample_rate)["speaker_similarity"](strangers)
        title = "recordings of others"
        rows.append(
            results_lib.GeneratedRow(name="others", title=title, speaker_similarity=similarity)
        )
    results = results_lib.Generation(
        workdir=str(workdir),
        step=generator.step,
        shards=shards,
        num_examples=len(examples),
        classifier=results_lib.ClassifierSource(shards=classifier_shards, label=classifier_label),
        sampler=dataclasses.asdict(generator.sampler),
        max_seconds=max_patches / generator.patches_per_second,
        rows=rows,
        texts={example.key: example.text for example in examples},
        zero_shot=zero_shot_lib.told(pairs, recognized) if pairs else None,
        judged=jury.close({row.name: row.title for row in rows}),
        sounds=sounds.close(),
    )
    results_lib.write(output, results)
    return results


def _requests(
    generator: generate.TextToSound,
    examples: Sequence[examples_lib.Example],
    pairs: Sequence[zero_shot_lib.Pair],
    encode: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
) -> list[generate.Request]:
    """The texts of examples, after the prompts of `pairs` where there are any."""
    if not pairs:
        return [generator.request(example.text, example.task) for example in examples]
    heard = encode([pair.prompt.waveform for pair in pairs])
    return [
        generator.request(pair.target.text, pair.target.task, latents, pair.prompt.text)
        for pair, latents in zip(pairs, heard, strict=True)
    ]


def _voices(
    pairs: Sequence[zero_shot_lib.Pair], sample_rate: int
) -> dict[str, Callable[[Sequence[np.ndarray]], float]]:
    """Name of a figure -> how alike waveforms are to the prompts, in voice; {} without prompts."""
    if not pairs:
        return {}
    similarity = zero_shot_lib.VoiceSimilarity(
        prompts=[pair.prompt.waveform for pair in pairs],
        recordings=[pair.target.waveform for pair in pairs],
        embed=functools.partial(zero_shot_lib.spectral_voice, sample_rate=sample_rate),
    )
    return {"speaker_similarity": similarity}


def _character_error_rate(
    waveforms: Sequence[np.ndarray],
    *,
    examples: Sequence[examples_lib.Example],
    represent: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
    answer: Callable[..., str],
) -> float:
    """Of the project's own transcription: it knows the same autoencoder, no independent witness."""
    heard = zip(represent(waveforms), examples, strict=True)
    pairs = ((example.text, answer(row, task=example.task)) for row, example in heard)
    return error_rates.rate(error_rates.characters(*pair) for pair in pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made:
    """A row of the table: which ended by themselves, if they could, and how it was sampled."""

    name: str
    title: str
    latents: Sequence[np.ndarray]
    stopped: np.ndarray | None = None
    change: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _made(
    generator: generate.TextToSound,
    requests: Sequence[generate.Request],
    truth: Sequence[np.ndarray],
    speak: Callable[..., tuple[list[np.ndarray], np.ndarray]],
    *,
    changes: Sequence[dict[str, Any]],
    seed: int,
    say: Callable[[str], None],
) -> Iterator[_Made]:
    """The rows of the table, but for that of the recordings."""
    yield _Made(name="reconstruction", title="reconstruction", latents=truth)
    if not any(request.prompt_text for request in requests):
        followed = generator.follow(requests, truth, seed=seed, batch_size=_BATCH)
        yield _Made(name="after_true", title="patches after true ones", latents=followed)
    for number, change in enumerate(changes):
        title = ", ".join(["generated", *(f"{name} {value}" for name, value in change.items())])
        say(f"{title}: {len(requests)} sounds")
        latents, stopped = speak(requests, seed=seed, sampler=change)
        name = f"generated_{number}"
        yield _Made(name=name, title=title, latents=latents, stopped=stopped, change=change)


def _say_again(
    requests: Sequence[generate.Request],
    speak: Callable[..., tuple[list[np.ndarray], np.ndarray]],
    decode: Callable[..., list[np.ndarray]],
    change: Mapping[str, Any],
    numbers: Sequence[int],
    seed: int,
) -> list[np.ndarray]:
    """Waveforms of the texts of these numbers, with other noise or in the place of others."""
    latents, _ = speak([requests[number] for number in numbers], seed=seed, sampler=change)
    return decode(latents, batch_size=min(_BATCH, len(latents)))


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
    width = max(len(row.title) for row in results.rows)
    lines = [" " * width + "".join(f"{head:>15}" for head in columns.values())]
    for row in results.rows:
        found = [getattr(row, name) for name in columns]
        cells = [" " * 15 if value is None else f"{value:15.3f}" for value in found]
        lines.append(f"{row.title:{width}}" + "".join(cells))
    lines.append(f"{results.num_examples} examples")
    if results.zero_shot:
        said = f"words: {results.zero_shot.words}; voices: {results.zero_shot.voices}"
        lines.append(f"each after a prompt of its speaker; {said}")
    lines += panel.format_tables(results.judged) if results.judged else []
    return "\n".join(lines)
