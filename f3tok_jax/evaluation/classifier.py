# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A classifier of sounds: which class a person would hear, learnt from recordings alone.

The classifier scores what a model made, so it must know nothing of the model: neither its latents
nor its sounds. And it must hear what people hear: one that looks where recordings hold
nothing (above the band of an 8 kHz recording, below the noise of a room) takes every trace that a
model leaves there for evidence. So it sees levels relative to the clip's own peak, none far below
it and none above a frequency, and learns from sounds that are sped up, shifted, tilted and masked.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from f3tok_jax.signal import spectra

_FRAME_RATE = 100  # Hz
_WINDOWS_PER_SECOND = 31.25  # windows of 32 ms: a voice's harmonics are told apart
_BATCH = 64  # clips
_SILENCE = 1e-20  # power relative to the loudest sample squared; far below every floor
_DB_PER_UNIT = 10.0  # of what the network sees
_TAPS, _STRIDE = 5, 2  # frames, of every layer
_WARMUP = 50  # steps
_LABEL_SMOOTHING = 0.1
_CURVES = 2  # cosines over the bands of which a random tilt is made
_CHANNELS = (96, 96, 128)  # of the layers; few, as a minute of one core must do
_MIN_FRAMES = _STRIDE ** len(_CHANNELS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What of a sound counts.

    Attributes:
        max_hz: upper end of the highest band, Hz; nothing above it counts.
        num_bands: mel bands up to there.
        num_frames: of 10 ms; longer clips are cropped to their middle, shorter ones filled with
            silence.
        floor_db: below the loudest band of the clip, where silence begins.
        trim_db: frames that far below the loudest frame are cut off at both ends.
    """

    max_hz: int = 4000
    num_bands: int = 64
    num_frames: int = 100
    floor_db: float = 45.0
    trim_db: float = 35.0

    def __post_init__(self):
        if self.max_hz < 100 or self.num_bands < 1 or self.num_frames < _MIN_FRAMES:
            raise ValueError(
                f"a classifier hears at least 100 Hz in one band and {_MIN_FRAMES} frames, got "
                f"{self}: raise max_hz, num_bands or num_frames"
            )
        if not self.floor_db > 0 or not self.trim_db > 0:
            raise ValueError(
                f"floor_db and trim_db of a classifier are dB below the peak, above 0, got {self}: "
                "give them without a sign"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a classifier is trained.

    Attributes:
        num_steps: of 64 clips.
        learning_rate: of AdamW, at the top of its cosine.
        weight_decay: of AdamW.
        dropout: fraction of the pooled features.
        max_stretch: largest change of tempo, as a fraction; the pitch stays.
        max_shift: largest shift of a clip that is not cropped, frames.
        max_band_shift: largest shift of the spectrum, bands: another throat.
        max_blur: largest fraction of a level that its neighbours replace, over bands and frames.
        tilt_db: of a smooth random curve over the bands, its rms.
        jitter_db: largest standard deviation of noise on the levels.
        num_masks: of bands, and as many of frames.
    """

    num_steps: int = 800
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    max_stretch: float = 0.2
    max_shift: float = 4.0
    max_band_shift: int = 2
    max_blur: float = 0.8
    tilt_db: float = 3.0
    jitter_db: float = 3.0
    num_masks: int = 2

    def __post_init__(self):
        if self.num_steps < 1 or not self.learning_rate > 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "training a classifier needs num_steps of at least 1, a learning_rate above 0 and "
                f"a dropout in [0, 1), got {self}: change the training"
            )
        changes = (self.max_stretch, self.max_shift, self.max_band_shift, self.max_blur)
        changes += (self.tilt_db, self.jitter_db, self.num_masks)
        if min(changes) < 0 or self.max_stretch >= 1 or self.max_blur > 1:
            raise ValueError(
                "what training changes about a clip is 0 or more, with max_stretch below 1 and "
                f"max_blur up to 1, got {self}: change the training"
            )


class Classifier:
    """A trained classifier of sounds."""

    def __init__(self, params: Any, *, sample_rate: int, num_classes: int, features: Features):
        """Takes what `train` learnt.

        Args:
            params: of the network.
            sample_rate: Hz.
            num_classes: of the answers.
            features: that it was trained with.
        """
        self.sample_rate, self.num_classes, self.features = sample_rate, num_classes, features
        self._params = params

    def probabilities(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """How likely each class is for each sound.

        Args:
            waveforms: each [any number of samples] float at `sample_rate`; the answer for
                a silent one means nothing.

        Returns:
            [n, num_classes] float32, sums of 1.

        Raises:
            ValueError: if a waveform is empty, not finite or not one-dimensional.
        """
        clips = _levels(waveforms, self.sample_rate, self.features)
        network = _Network(self.num_classes)
        rows = [np.zeros((0, self.num_classes), np.float32)]
        for start in range(0, len(clips), _BATCH):
            chunk = clips[start : start + _BATCH]
            filled = chunk + chunk[:1] * (_BATCH - len(chunk))  # one shape, one program
            answers = _answer(network, self._params, *_inputs(filled, self.features))
            rows.append(np.asarray(answers)[: len(chunk)])
        return np.concatenate(rows)

    def predict(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """The most likely class of each sound, [n] int32; see `probabilities`."""
        return self.probabilities(waveforms).argmax(axis=1).astype(np.int32)


def train(
    waveforms: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    sample_rate: int,
    num_classes: int,
    seed: int,
    features: Features = Features(),
    training: Training = Training(),
) -> Classifier:
    """Trains a classifier on recordings; equal arguments give equal ones.

    Args:
        waveforms: each [any number of samples] float; of recordings, never of a model.
        labels: [n] int, in [0, num_classes).
        sample_rate: Hz, at least twice `features.max_hz`.
        num_classes: of the labels.
        seed: of the weights, the order and all that is drawn.
        features: what of the sounds counts.
        training: how it is trained.

    Returns:
        The classifier.

    Raises:
        ValueError: if a waveform is empty, not finite or not one-dimensional, or the labels, the
            classes or the rate do not fit.
    """
    if 2 * features.max_hz > sample_rate:
        raise ValueError(
            f"a classifier of sounds at {sample_rate} Hz hears up to half of that, got max_hz="
            f"{features.max_hz} in its features: lower it"
        )
    labels = np.asarray(labels)
    if labels.shape != (len(waveforms),) or not len(labels):
        raise ValueError(
            f"a classifier learns from one label for each of at least one waveform, got labels "
            f"{list(labels.shape)} for {len(waveforms)} waveforms: give as many labels"
        )
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels of a classifier must be integers in [0, num_classes={num_classes}), got "
            f"{labels.dtype} from {labels.min()} to {labels.max()}: number the classes from 0 or "
            "raise num_classes"
        )
    clips = _levels(waveforms, sample_rate, features)
    params = _fit(clips, labels.astype(np.int32), num_classes, seed, features, training)
    return Classifier(params, sample_rate=sample_rate, num_classes=num_classes, features=features)


class _Network(nn.Module):
    """Strided convolutions over time with the bands as channels, then mean and maximum."""

    num_classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits [b, num_classes] of `inputs` [b, t, bands] dB, where `mask` [b, t] is 1."""
        x = inputs / _DB_PER_UNIT
        for channels in _CHANNELS:
            # Products of shifted copies: XLA's convolutions are slow on a CPU.
            length = x.shape[1] // _STRIDE * _STRIDE
            padded = jnp.pad(x, ((0, 0), (_TAPS // 2, _TAPS // 2), (0, 0)))
            taps = [padded[:, tap : tap + length : _STRIDE] for tap in range(_TAPS)]
            x = nn.relu(nn.LayerNorm()(nn.Dense(channels)(jnp.concatenate(taps, axis=-1))))
            mask = mask[:, :length:_STRIDE]
        weights = mask[..., None]
        mean = jnp.sum(x * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
        peak = jnp.max(x * weights, axis=1)  # x is not negative
        pooled = jnp.concatenate([mean, peak], axis=-1)
        pooled = nn.Dropout(self.dropout)(pooled, deterministic=not train)
        return nn.Dense(self.num_classes)(pooled)


def _fit(
    clips: Sequence[np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    features: Features,
    training: Training,
) -> Any:
    """The trained parameters."""
    network = _Network(num_classes, dropout=training.dropout)
    optimizer = _optimizer(training.num_steps, training.learning_rate, training.weight_decay)
    weights_key, dropout_key = jax.random.split(jax.random.key(seed))
    params = _initial_params(network, weights_key, *_inputs(clips[:1], features))
    state, draw = optimizer.init(params), np.random.default_rng(seed)
    num_epochs = -(-training.num_steps * _BATCH // len(clips))
    order = np.concatenate([draw.permutation(len(clips)) for _ in range(num_epochs)])
    for number in range(training.num_steps):
        chosen = order[number * _BATCH : (number + 1) * _BATCH]
        inputs, mask = _changed_inputs([clips[i] for i in chosen], features, training, draw)
        key = jax.random.fold_in(dropout_key, number)
        params, state = _step(network, optimizer, params, state, inputs, mask, labels[chosen], key)
    return params


# Classifiers of one shape share their programs, whatever their seeds.
@functools.lru_cache(maxsize=8)
def _optimizer(
    num_steps: int, learning_rate: float, weight_decay: float
) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(_WARMUP, num_steps // 2), num_steps
    )
    return optax.adamw(schedule, weight_decay=weight_decay)


@functools.partial(jax.jit, static_argnums=0)
def _initial_params(network: _Network, key: jax.Array, inputs: jax.Array, mask: jax.Array) -> Any:
    return network.init(key, inputs, mask)["params"]


@functools.partial(jax.jit, static_argnums=0)
def _answer(network: _Network, params: Any, inputs: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.softmax(network.apply({"params": params}, inputs, mask))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(
    network: _Network,
    optimizer: optax.GradientTransformation,
    params: Any,
    state: Any,
    inputs: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    key: jax.Array,
) -> tuple[Any, Any]:
    """One step of training: new parameters and state of the optimizer."""

    def loss(params):
        logits = network.apply({"params": params}, inputs, mask, train=True, rngs={"dropout": key})
        wanted = jax.nn.one_hot(labels, network.num_classes)
        wanted = optax.smooth_labels(wanted, _LABEL_SMOOTHING)
        return jnp.mean(optax.softmax_cross_entropy(logits, wanted))

    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def _levels(
    waveforms: Sequence[np.ndarray], sample_rate: int, features: Features
) -> list[np.ndarray]:
    """Of each sound, what is left of it once trimmed: [frames, bands] float32, dB re its peak."""
    window, hop = round(sample_rate / _WINDOWS_PER_SECOND), sample_rate // _FRAME_RATE
    # The bins up to max_hz are those of a shorter transform at a lower rate.
    num_bins = window * features.max_hz // sample_rate
    heard_hz = 2 * num_bins * sample_rate / window
    filters = spectra.mel_filterbank(heard_hz, 2 * num_bins, features.num_bands, unit_area=False)
    filters = filters / np.maximum(filters.sum(axis=0), 1e-9)

    def levels(waveform: np.ndarray) -> np.ndarray:
        scaled = waveform / max(np.abs(waveform).max(), np.finfo(np.float32).tiny)
        # As if silence were around: what is heard of an abrupt end is then the same with it.
        scaled = np.pad(scaled.astype(np.float32), 4 * hop)
        spectrum = spectra.centered_stft_on_host(scaled, frame_length=window, hop_length=hop)
        power = np.abs(spectrum[:, : num_bins + 1]) ** 2 @ filters
        energy = power.sum(axis=1)
        loud = np.flatnonzero(energy >= energy.max() * 10 ** (-features.trim_db / 10))
        power = np.maximum(power[loud[0] : loud[-1] + 1], _SILENCE)
        return (10 * np.log10(power / power.max())).astype(np.float32)

    for index, waveform in enumerate(waveforms):
        if waveform.ndim != 1 or not waveform.size or not np.isfinite(waveform).all():
            raise ValueError(
                f"a classifier needs sounds [n] of at least one sample, all finite, got waveform "
                f"{index} with shape {list(waveform.shape)} and "
                f"{waveform.size - int(np.isfinite(waveform).sum())} samples not finite: leave it "
                "out or repair what made it"
            )
    return [levels(waveform) for waveform in waveforms]


def _inputs(clips: Sequence[np.ndarray], features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Clips as the network takes them: [n, num_frames, bands] float32 and the mask of frames."""
    lengths = np.array([len(clip) for clip in clips])
    starts = np.maximum(0, (lengths - features.num_frames) // 2)
    levels, mask = _frames(clips, starts + 0.0, np.ones(len(clips)), features)
    return _heard(levels, mask, features), mask


def _changed_inputs(
    clips: Sequence[np.ndarray], features: Features, training: Training, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`_inputs` of clips changed at random as nobody would mind."""
    count, bands = len(clips), features.num_bands
    tempo = np.exp(draw.uniform(-1, 1, count) * np.log1p(training.max_stretch))
    lengths = np.array([len(clip) for clip in clips])
    excess = lengths - features.num_frames * tempo
    shifts = draw.uniform(-training.max_shift, training.max_shift, count)
    # Something of every clip is left.
    shifts = np.clip(shifts, -features.num_frames / 4, lengths / 4)
    starts = np.where(excess > 0, draw.uniform(0, 1, count) * excess, shifts)
    levels, mask = _frames(clips, starts, tempo, features)

    shift = draw.integers(-training.max_band_shift, training.max_band_shift + 1, (count, 1))
    places = np.clip(np.arange(bands) + shift, 0, bands - 1)
    levels = np.take_along_axis(levels, places[:, None], axis=2)
    for axis in (1, 2):
        share = draw.uniform(0, training.max_blur, (count, 1, 1)).astype(np.float32)
        levels = (1 - share) * levels + share * _neighbours(levels, axis)

    angles = np.pi * np.arange(1, _CURVES + 1)[:, None] * (np.arange(bands) + 0.5) / bands
    tilt = draw.standard_normal((count, _CURVES)) @ np.cos(angles)
    noise = draw.standard_normal(levels.shape, np.float32)
    noise *= draw.uniform(0, training.jitter_db, (count, 1, 1)).astype(np.float32)
    levels = levels + (training.tilt_db * tilt[:, None]).astype(np.float32) + noise

    inputs = _heard(levels, mask, features)
    for _ in range(training.num_masks):
        for axis, size, widest in ((2, bands, bands // 6), (1, features.num_frames, 8)):
            ends = size if axis == 2 else np.minimum(lengths, size)
            first = (draw.uniform(0, 1, count) * ends)[:, None]
            width = draw.integers(0, widest + 1, (count, 1))
            hidden = (np.arange(size) >= first) & (np.arange(size) < first + width)
            inputs[np.broadcast_to(np.expand_dims(hidden, 3 - axis), inputs.shape)] = 0.0
    return inputs, mask


def _neighbours(levels: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the level before and the level after, along an axis; the ends stand for their own."""
    last = levels.shape[axis] - 1
    places = np.arange(last + 1)
    before, after = np.maximum(places - 1, 0), np.minimum(places + 1, last)
    return 0.5 * (np.take(levels, before, axis) + np.take(levels, after, axis))


def _frames(
    clips: Sequence[np.ndarray], starts: np.ndarray, tempo: np.ndarray, features: Features
) -> tuple[np.ndarray, np.ndarray]:
    """Levels at frames start, start + tempo, ... of each clip, interpolated, and their mask."""
    lengths = np.array([len(clip) for clip in clips])[:, None]
    padded = np.zeros((len(clips), lengths.max(), features.num_bands), np.float32)
    for row, clip in zip(padded, clips):
        row[: len(clip)] = clip
    places = starts[:, None] + np.arange(features.num_frames) * tempo[:, None]
    mask = (places > -1) & (places < lengths)  # a clip of one frame is hit too
    places = np.clip(places, 0, lengths - 1)
    before = places.astype(np.int64)
    after, rows = np.minimum(before + 1, lengths - 1), np.arange(len(clips))[:, None]
    share = (places - before).astype(np.float32)[..., None]
    levels = padded[rows, before] * (1 - share) + padded[rows, after] * share
    return levels, mask.astype(np.float32)


def _heard(levels: np.ndarray, mask: np.ndarray, features: Features) -> np.ndarray:
    """Levels above the floor, centred; where the mask is 0, the floor."""
    valid = mask[..., None] > 0
    peak = np.max(levels, axis=(1, 2), keepdims=True, where=valid, initial=-np.inf)
    heard = np.where(valid, np.maximum(levels - peak, -features.floor_db), -features.floor_db)
    mean = np.mean(heard, axis=(1, 2), keepdims=True, where=valid)
    return (heard - mean).astype(np.float32)
