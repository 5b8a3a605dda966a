# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Features of labelled shards for probes: log-mel statistics, latents, representations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import pcm16
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.probing import classifiers
from f3tok_jax.signal import spectra

LOG_MEL, LATENTS, REPRESENTATIONS = "log_mel", "latents", "representations"
NUM_MELS = 80  # of the reference; mean and standard deviation of each

_CHUNK = 256  # records in memory at a time
_FLOOR = 1e-5  # of mel magnitudes


@dataclasses.dataclass(frozen=True)
class Models:
    """What makes features of sound or latents.

    Attributes:
        tokenizer: whose autoencoder is needed for sound alone.
        encoders: name of a feature -> lists of latents to lists of representations.
    """

    tokenizer: tokenizer_lib.F3Tokenizer
    encoders: Mapping[str, Callable[..., list[np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Records of one set, as they are probed.

    Attributes:
        features: name -> [n, d] float32, pooled over time.
        labels: one mapping of name to value per record.
        groups: per record, where its sound came from: parts of one source are alike.
    """

    features: Mapping[str, np.ndarray]
    labels: Sequence[Mapping[str, str]]
    groups: Sequence[str]

    def select(self, keep: Sequence[bool]) -> "Examples":
        """The examples whose flag is set."""
        indices = np.flatnonzero(np.asarray(keep, bool))
        return Examples(
            {name: values[indices] for name, values in self.features.items()},
            [self.labels[i] for i in indices],
            [self.groups[i] for i in indices],
        )


def join(sets: Sequence[Examples]) -> Examples:
    """The examples of several sets, with the features that all of them have."""
    names = [name for name in sets[0].features if all(name in found.features for found in sets)]
    return Examples(
        {name: np.concatenate([found.features[name] for found in sets]) for name in names},
        [labels for found in sets for labels in found.labels],
        [group for found in sets for group in found.groups],
    )


def read(
    folder: str,
    models: Models,
    *,
    pooling: str,
    batch_size: int,
    say: Callable[[str], None] = print,
) -> Examples:
    """Computes the features of every record of a set.

    A set of latents must be of the same autoencoder and has no log-mel features.

    Args:
        folder: of the set.
        models: see there.
        pooling: of latents and representations, one of classifiers.POOLINGS.
        batch_size: sounds at a time.
        say: where progress goes.

    Raises:
        ValueError: if the set does not fit the models, or a record cannot be read.
    """
    rate = models.tokenizer.sample_rate
    source = sources.open_source(folder, sample_rate=rate)
    is_latents = isinstance(source, sources.LatentSet)
    if is_latents:
        source.check_autoencoder(models.tokenizer.fingerprint)
    pooled: dict[str, list[np.ndarray]] = {}
    labels, groups = [], []
    for found in _chunks(source):
        if is_latents:
            frames = {LATENTS: [record.latents for record in found]}
        else:
            sounds = [pcm16.to_float(record.waveform) for record in found]
            statistics = [log_mel_statistics(sound, sample_rate=rate) for sound in sounds]
            pooled.setdefault(LOG_MEL, []).extend(statistics)
            encode = models.tokenizer.codec.encode
            frames = {LATENTS: encode(sounds, batch_size=batch_size)}
        for name, represent in models.encoders.items():
            frames[name] = represent(frames[LATENTS], batch_size=batch_size)
        for name, sequences in frames.items():
            vectors = [classifiers.pool(sequence, pooling) for sequence in sequences]
            pooled.setdefault(name, []).extend(vectors)
        labels += [dict(record.labels) for record in found]
        groups += [record.source or record.key for record in found]
        say(f"{folder}: features of {len(labels)} of {len(source)} records")
    return Examples({name: np.stack(rows) for name, rows in pooled.items()}, labels, groups)


def _chunks(source: Any) -> Iterator[list]:
    for start in range(0, len(source), _CHUNK):
        yield [source[index] for index in range(start, min(start + _CHUNK, len(source)))]


def log_mel_statistics(waveform: np.ndarray, *, sample_rate: int) -> np.ndarray:
    """Mean and standard deviation over time of every log-mel band: what anybody has.

    Windows of 25 ms every 10 ms.

    Args:
        waveform: [n], float32 in [-1, 1].
        sample_rate: Hz.

    Returns:
        [2 * NUM_MELS] float32.
    """
    window, hop = sample_rate // 40, sample_rate // 100
    spectrum = spectra.centered_stft_on_host(waveform, frame_length=window, hop_length=hop)
    filters = spectra.mel_filterbank(sample_rate, window, NUM_MELS)
    log_mel = np.log10(np.maximum(np.abs(spectrum) @ filters, _FLOOR))
    return np.concatenate([log_mel.mean(0), log_mel.std(0)]).astype(np.float32)
