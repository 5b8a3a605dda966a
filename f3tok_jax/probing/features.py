# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Features of labelled shards for probes: log-mel spectra, MFCC, latents, representations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np
from scipy import fft

from data_pipelines.reading import sources
from data_pipelines.records import pcm16
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.probing import poolings as poolings_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.signal import spectra

LOG_MEL, MFCC = "log_mel", "mfcc"  # what anybody has
LATENTS, REPRESENTATIONS = "latents", "representations"
NUM_MELS, NUM_MFCC = 80, 20

_CHUNK = 256  # records in memory at a time
_FLOOR = 1e-5  # of mel magnitudes


@dataclasses.dataclass(frozen=True)
class Models:
    """What makes features of sound or latents.

    Attributes:
        tokenizer: whose autoencoder makes latents; None where only log-mel and MFCC are wanted.
        encoders: name of a feature -> lists of latents to lists of representations.
        sample_rate: Hz of the sound, where there is no tokenizer.
    """

    tokenizer: tokenizer_lib.F3Tokenizer | None
    encoders: Mapping[str, Callable[..., list[np.ndarray]]]
    sample_rate: int = 0


@dataclasses.dataclass(frozen=True)
class Examples:
    """Records of one set, as they are probed.

    Attributes:
        features: probe_results.feature_row(name, pooling) -> [n, ...] float32, as that pools.
        labels: one mapping of name to value per record.
        sources: per record, which file of which input its sound was cut from.
        sounds: per record, the checksum of its sound or latents; "" of silence.
    """

    features: Mapping[str, np.ndarray]
    labels: Sequence[Mapping[str, str]]
    sources: Sequence[str]
    sounds: Sequence[str]

    def select(self, keep: Sequence[bool]) -> "Examples":
        """The examples whose flag is set."""
        indices = np.flatnonzero(np.asarray(keep, bool))
        return Examples(
            {name: values[indices] for name, values in self.features.items()},
            [self.labels[i] for i in indices],
            [self.sources[i] for i in indices],
            [self.sounds[i] for i in indices],
        )


def join(sets: Sequence[Examples]) -> Examples:
    """The examples of several sets, with the features that all of them have."""
    names = [name for name in sets[0].features if all(name in found.features for found in sets)]
    return Examples(
        {name: np.concatenate([found.features[name] for found in sets]) for name in names},
        [labels for found in sets for labels in found.labels],
        [source for found in sets for source in found.sources],
        [sound for found in sets for sound in found.sounds],
    )


def read(
    folder: str,
    models: Models,
    *,
    poolings: Sequence[str],
    batch_size: int,
    say: Callable[[str], None] = print,
) -> Examples:
    """Computes the features of every record of a set.

    A set of latents must be of the same autoencoder and has no features of spectra.

    Args:
        folder: of the set.
        models: see there.
        poolings: of the frames of each feature, of poolings.POOLINGS; with none no features are
            computed.
        batch_size: sounds at a time.
        say: where progress goes.

    Raises:
        ValueError: if the set does not fit the models, or a record cannot be read.
    """
    tokenizer = models.tokenizer
    source = sources.open_source(
        folder, sample_rate=tokenizer.sample_rate if tokenizer else models.sample_rate
    )
    is_latents = isinstance(source, sources.LatentSet)
    if is_latents and not tokenizer and poolings:
        raise ValueError(
            f"without a run only sound is probed, got latents in {folder}: name by --workdir the run "
            "that made them"
        )
    if is_latents and tokenizer:
        source.check_autoencoder(tokenizer.fingerprint)
    pooled: dict[str, list[np.ndarray]] = {}
    labels, origins, sounds = [], [], []
    for found in _chunks(source):
        frames = _frames(found, models, is_latents, batch_size) if poolings else {}
        for name, sequences in frames.items():
            for how in poolings:
                vectors = [poolings_lib.pool(sequence, how) for sequence in sequences]
                pooled.setdefault(probe_results.feature_row(name, how), []).extend(vectors)
        labels += [dict(record.labels) for record in found]
        origins += [f"{_input(source)}:{record.source or record.key}" for record in found]
        sounds += [_checksum(record.latents if is_latents else record.waveform) for record in found]
        say(f"{folder}: features of {len(labels)} of {len(source)} records")
    features = {name: np.stack(rows) for name, rows in pooled.items()}
    return Examples(features, labels, origins, sounds)


def _chunks(source: Any) -> Iterator[list]:
    for start in range(0, len(source), _CHUNK):
        yield [source[index] for index in range(start, min(start + _CHUNK, len(source)))]


def _frames(
    found: Sequence[Any], models: Models, is_latents: bool, batch_size: int
) -> dict[str, list[np.ndarray]]:
    """Of records: name of a feature -> its frames [t, d] of each."""
    frames = {}
    if is_latents:
        frames[LATENTS] = [record.latents for record in found]
    else:
        waveforms = [pcm16.to_float(record.waveform) for record in found]
        rates = [record.sample_rate for record in found]
        frames[LOG_MEL] = [log_mel(one, sample_rate=rate) for one, rate in zip(waveforms, rates)]
        frames[MFCC] = list(map(mfcc, frames[LOG_MEL]))
        if models.tokenizer:
            frames[LATENTS] = models.tokenizer.codec.encode(waveforms, batch_size=batch_size)
    for name, represent in models.encoders.items():
        frames[name] = represent(frames[LATENTS], batch_size=batch_size)
    return frames


def _input(source: Any) -> str:
    """Which input a set was built from: both parts of one have the same, others of equal names not."""
    return source.manifest.sources[:16] if hasattr(source, "manifest") else source.name


def _checksum(values: np.ndarray) -> str:
    """Of samples or latents; "" where all are the same: silences are no sound that could be known."""
    is_silent = bool(np.all(values == values.flat[0])) if values.size else True
    return "" if is_silent else hashlib.sha256(np.ascontiguousarray(values)).hexdigest()


def log_mel(waveform: np.ndarray, *, sample_rate: int) -> np.ndarray:
    """Log-mel spectrum, windows of 25 ms every 10 ms.

    Args:
        waveform: [n], float32 in [-1, 1].
        sample_rate: Hz.

    Returns:
        [t, NUM_MELS] float32, base 10.
    """
    window, hop = sample_rate // 40, sample_rate // 100
    spectrum = spectra.centered_stft_on_host(waveform, frame_length=window, hop_length=hop)
    filters = spectra.mel_filterbank(sample_rate, window, NUM_MELS)
    return np.log10(np.maximum(np.abs(spectrum) @ filters, _FLOOR)).astype(np.float32)


def mfcc(log_mels: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients, the level among them.

    Args:
        log_mels: [t, mels] float32, of `log_mel`.

    Returns:
        [t, NUM_MFCC] float32: the lowest of an orthonormal DCT-II over the mels.
    """
    return fft.dct(log_mels, axis=1, norm="ortho")[:, :NUM_MFCC].astype(np.float32)
