# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Speech in the voice of a prompt: pairs of held-out recordings of one speaker, and how alike voices
are."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.inference import generate
from f3tok_jax.runs import results
from f3tok_jax.signal import spectra

SPEAKER = "speaker"  # the label of records that says who speaks

_NUM_MELS = 80
_LOUD_DB = 40.0  # below the loudest frame, what still counts of a voice

# Waveforms to vectors [n, d], the more parallel the more alike the voices; where a published
# embedding of speakers will go.
Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two recordings of one speaker: one is given with its text, of the other the text alone."""

    prompt: examples_lib.Example
    target: examples_lib.Example


def read_pairs(
    source: sources.ShardSet,
    generator: generate.TextToSound,
    *,
    num_examples: int,
    text_of: Callable[[Any], tuple[str, str] | None],
    say: Callable[[str], None],
) -> list[Pair]:
    """Pairs whose targets are evenly spaced over a set; the same for the same set.

    A target's prompt is the next recording of its speaker, of another text and the same task, with
    which it is no longer than the examples that the run was trained on, in text and in sound.

    Raises:
        ValueError: where there is none.
    """
    spoken: dict[str, list[int]] = {}
    texts, lengths = {}, {}
    for place in range(len(source)):
        record = source[place]
        if (text := text_of(record)) and (name := record.labels.get(SPEAKER)):
            spoken.setdefault(name, []).append(place)
            texts[place], lengths[place] = text, len(record.waveform)

    def fits(prompt: int, target: int) -> bool:
        (task, first), (other, second) = texts[prompt], texts[target]
        if task != other or first == second:
            return False
        seconds = (lengths[prompt] + lengths[target]) / generator.codec.sample_rate
        return seconds <= generator.trained_seconds and _has_room(generator, task, first, second)

    found, num_alone = {}, 0
    for places in spoken.values():
        for index, target in enumerate(places):
            others = places[index + 1 :] + places[:index]
            prompt = next((place for place in others if fits(place, target)), None)
            num_alone += prompt is None
            if prompt is not None:
                found[target] = prompt
    if not found or num_examples < 1:
        raise ValueError(
            f"--zero_shot needs --num_examples of at least 1 and two recordings of one {SPEAKER} "
            f"with other texts, together at most {generator.trained_seconds:g} s and "
            f"{generator.config.text.max_tokens} tokens long as the run was trained, got "
            f"{num_examples} and {len(texts)} recordings of {len(spoken)} speakers in {source.name}"
        )
    if num_alone:
        say(f"{num_alone} of {len(texts)} recordings have no other that fits with them: left out")
    targets = sorted(found)
    chosen = [targets[index] for index in sources.spaced(len(targets), num_examples)]

    def example(place: int) -> examples_lib.Example:
        task, text = texts[place]
        return examples_lib.of_record(source, source[place], task=task, text=text)

    return [Pair(prompt=example(found[place]), target=example(place)) for place in chosen]


def _has_room(generator: generate.TextToSound, task: str, first: str, second: str) -> bool:
    try:
        generator.text.tokens(task, generate.joined(first, second), key="of the request")
    except tasks.TextTooLong:
        return False
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoiceSimilarity:
    """Cosines between the voices of prompts and of other sounds, after the mean of all recordings.

    Attributes:
        prompts: [n] waveforms.
        recordings: of which the mean is taken, so that what all voices share counts for nothing.
        embed: see `Embed`; `spectral_voice` unless a better one is given.
    """

    prompts: Sequence[np.ndarray]
    recordings: Sequence[np.ndarray]
    embed: Embed

    def __call__(self, waveforms: Sequence[np.ndarray]) -> float:
        """The mean cosine, in [-1, 1], of waveforms [n] with the prompts in their order."""
        middle = self.embed([*self.prompts, *self.recordings]).mean(axis=0)
        one, other = (self.embed(sounds) - middle for sounds in (self.prompts, waveforms))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return float(np.mean(np.sum(one * other, axis=1) / np.maximum(norms, 1e-9)))


def spectral_voice(waveforms: Sequence[np.ndarray], *, sample_rate: int) -> np.ndarray:
    """Mean and spread of the log-mel spectrum of what is loud in each sound, without its level.

    It tells timbre and recording, not who speaks: a floor until an embedding that was trained on
    speakers is given. [n, 160] float64.
    """
    window, hop = sample_rate // 40, sample_rate // 100
    filters = spectra.mel_filterbank(sample_rate, window, _NUM_MELS)

    def voice(waveform: np.ndarray) -> np.ndarray:
        sound = np.pad(waveform.astype(np.float32), (0, max(0, window - len(waveform))))
        spectrum = spectra.centered_stft_on_host(sound, frame_length=window, hop_length=hop)
        levels = 20 * np.log10(np.maximum(np.abs(spectrum) @ filters, 1e-5))
        loudness = levels.mean(axis=1)
        levels = levels[loudness >= loudness.max() - _LOUD_DB].astype(np.float64)
        return np.concatenate([levels.mean(axis=0) - levels.mean(), levels.std(axis=0)])

    return np.stack([voice(waveform) for waveform in waveforms])


def others(pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Of each pair, the target of the next one of another speaker; [] where one alone speaks."""
    names = [pair.target.labels[SPEAKER] for pair in pairs]
    if len({*names}) < 2:
        return []
    places = range(len(pairs))
    found = []
    for index, name in enumerate(names):
        after = (place for place in [*places[index:], *places[:index]] if names[place] != name)
        found.append(pairs[next(after)].target.waveform)
    return found


def told(pairs: Sequence[Pair], recognized: Mapping[str, Any]) -> results.ZeroShot:
    """What a result says of its pairs, and by whom words and voices are judged, or that none does."""
    nobody = (
        "none: whether the right words are heard was not measured; give --transcribe, or "
        "--classifier_shards with --classifier_label"
    )
    return results.ZeroShot(
        prompts={pair.target.key: pair.prompt.key for pair in pairs},
        words=", ".join(name.replace("_", " ") for name in recognized) or nobody,
        voices="the mean and spread of spectra, which tell timbre and recording, not who speaks",
    )
