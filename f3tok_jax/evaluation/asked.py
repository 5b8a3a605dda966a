# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a generator is asked for when it is evaluated: texts of held-out records, with prompts or without."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, Protocol

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import zero_shot as zero_shot_lib
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.inference import generate
from f3tok_jax.inference import tokenizer as tokenizer_lib

_LONGER = 2.0  # than the longest recording, generated sound may be
BATCH = 32  # examples at a time, at most


class Sayer(Protocol):
    """A generator in use, of any kind: what is known of it before anything is said."""

    codec: codec_lib.Codec
    text: tasks.TextTasks


class Speak(Protocol):
    """Makes latents of texts."""

    def __call__(
        self, change: dict[str, Any], *, seed: int, numbers: Sequence[int] | None = None
    ) -> tuple[list[np.ndarray], np.ndarray | None]:
        """Latents made of the texts, those of `numbers` alone where given, in these places; and
        which ended by themselves, None where their lengths were given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Held-out recordings, and what is asked of a generator in their place.

    Attributes:
        codec: the autoencoder in use.
        examples: the recordings with their texts.
        pairs: of each the prompt, too; empty without prompts.
        gains: [1] of each recording, as its autoencoder hears it.
        truth: latents [t, d] of each recording.
        max_seconds: at which what does not end is cut; the longest that is asked for.
        gives_lengths: whether each is to be as long as its recording.
        speak: the generator.
        follow: seed -> latents of which each patch is made after the true ones before it; None for
            a generator of whole sounds.
        represent: latents to representations; None where nothing represents them.
    """

    codec: codec_lib.Codec
    examples: Sequence[examples_lib.Example]
    pairs: Sequence[zero_shot_lib.Pair] = ()
    gains: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]
    max_seconds: float
    gives_lengths: bool = False
    speak: Speak
    follow: Callable[[int], list[np.ndarray]] | None = None
    represent: Callable[[Sequence[np.ndarray]], list[np.ndarray]] | None = None

    @property
    def recordings(self) -> list[np.ndarray]:
        return [example.waveform for example in self.examples]

    @property
    def prompts(self) -> list[np.ndarray]:
        return [pair.prompt.waveform for pair in self.pairs]

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Latents of sounds that are as long as these at most, or as what is generated."""
        return encode(self.codec, self.recordings, waveforms)

    def decode(
        self, latents: Sequence[np.ndarray], gains: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Their sound: at the recordings' level with `gains`, at the model's without."""
        return self.codec.decode(latents, gains=gains, batch_size=_size(latents))


def ask(
    tokenizer: tokenizer_lib.F3Tokenizer,
    shards: str,
    *,
    num_examples: int,
    label: str = "",
    zero_shot: bool = False,
    say: Callable[[str], None] = print,
) -> Asked:
    """Reads what is asked for.

    Args:
        tokenizer: a generation run.
        shards: held-out sound with texts.
        num_examples: evenly spaced over the set.
        label: that every example must have; "" for none.
        zero_shot: whether each text is said in the voice of another recording of its speaker, which
            is given with its own text.
        say: where messages go.

    Raises:
        ValueError: where there is nothing to ask for.
    """
    generator, codec = tokenizer.text_to_sound, tokenizer.codec
    options = dict(num_examples=num_examples, label=label)
    pairs: list[zero_shot_lib.Pair] = []
    if zero_shot:
        pairs = read_pairs(shards, generator, **options, say=say)
        examples = [pair.target for pair in pairs]
    else:
        examples = read_examples(shards, generator, **options)
    recordings = [example.waveform for example in examples]
    heard = functools.partial(encode, codec, recordings)
    requests = _requests(generator, examples, pairs, heard)
    patch_samples = generator.generator.patch * codec.autoencoder.samples_per_latent
    max_patches = int(_LONGER * -(-max(map(len, recordings)) // patch_samples))
    if pairs:
        longest = max(requests, key=lambda request: request.num_latents)
        seconds = max_patches / generator.patches_per_second
        max_patches = generator.patches_for(longest, seconds, say=say)
    gains = codec.gains(recordings)
    truth = heard(recordings, gains=gains)

    def speak(change, *, seed, numbers=None):
        wanted = range(len(requests)) if numbers is None else numbers
        options = dict(max_patches=max_patches, batch_size=BATCH, seed=seed, sampler=change)
        return generator.generate([requests[number] for number in wanted], **options)

    def represent(latents):
        return tokenizer.representer.represent(latents, batch_size=_size(examples))

    return Asked(
        codec=codec,
        examples=examples,
        pairs=pairs,
        gains=gains,
        truth=truth,
        max_seconds=max_patches / generator.patches_per_second,
        speak=speak,
        follow=lambda seed: generator.follow(requests, truth, seed=seed, batch_size=BATCH),
        represent=represent,
    )


def encode(
    codec: codec_lib.Codec,
    recordings: Sequence[np.ndarray],
    waveforms: Sequence[np.ndarray],
    **options: Any,
) -> list[np.ndarray]:
    """Latents of sounds that are as long as recordings at most, or as what is generated."""
    longest = int(_LONGER * max(map(len, recordings)))
    size = _size(recordings)
    return codec.encode(waveforms, batch_size=size, expected=longest, **options)


def _size(rows: Sequence[Any]) -> int:
    return min(BATCH, len(rows))


def read_examples(
    shards: str, generator: Sayer, *, num_examples: int, label: str
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


def _text_of(source: Any, generator: Sayer, label: str) -> Callable[[Any], tuple[str, str] | None]:
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
