# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder in use: lists of sounds to latents and back, and streams in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import itertools
import sys
from typing import Any

import jax
import numpy as np

from f3tok_jax.inference import batched
from f3tok_jax.inference import frames
from f3tok_jax.models import semantic_coder
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import lineage
from f3tok_jax.signal import level

_CHUNK_LATENTS = 50  # latents per compiled step: 2 s at 25 Hz
_WHOLE_LATENTS = 1500  # of a sound that is coded in one piece at most: a minute at 25 Hz
_ANY_LATENTS = sys.maxsize // 2**20  # the same where there is no other way


class Codec:
    """An autoencoder with its weights.

    It hears each sound at its level (signal.level): `encode` multiplies a sound by its gain, by which
    `decode` divides; without that, what is decoded has the model's level. Of an autoencoder that hears
    sound as it comes, all gains are 1.

    One that hears through a semantic encoder knows whole sounds alone, of any length, in memory that
    grows with it.
    """

    def __init__(
        self,
        autoencoder: pretrained_autoencoder.Autoencoder,
        params,
        *,
        step: int | None = None,
        fingerprint: str = "",
    ):
        """Takes an autoencoder and its parameters; use `load` for those of a run.

        Args:
            autoencoder: module.
            params: of it.
            step: after which they were saved, if they were.
            fingerprint: that its latents carry; "" for that of the parameters.
        """
        self.autoencoder, self.params, self.step = autoencoder, params, step
        self._variables, self._given_fingerprint = {"params": params}, fingerprint
        self._encode_step = jax.jit(functools.partial(autoencoder.apply, method="encode_step"))
        self._decode_step = jax.jit(functools.partial(autoencoder.apply, method="decode_step"))
        # Outside of a program each array of a state would be one.
        self._encoder_state, self._decoder_state = (
            jax.jit(functools.partial(autoencoder.apply, method=method), static_argnums=1)
            for method in ("encoder_state", "decoder_state")
        )
        hop = autoencoder.samples_per_latent
        longest = _WHOLE_LATENTS if self.can_stream else _ANY_LATENTS
        self._encode = batched.Lists(
            self._waveform_to_latents,
            params,
            stream=lambda waveform: _whole(self.encode_stream([waveform[None]])),
            longest=longest * hop,
            multiple=hop,
            length_of=self.num_latents,
        )
        self._decode = batched.Lists(
            self._latents_to_waveform,
            params,
            stream=lambda latents: _whole(self.decode_stream([latents[None]])),
            longest=longest,
            length_of=lambda count: count * hop,
        )

    @classmethod
    def load(cls, run: lineage.Lineage, *, say: Callable[[str], None] = print) -> "Codec":
        """Loads the averaged weights of a run.

        Args:
            run: of the autoencoder stage.
            say: where messages to the user go: which steps are damaged.

        Raises:
            ValueError: where the run is of another version.
            checkpoint.CheckpointError: where no checkpoint that may be used is whole.
        """
        autoencoder, params, found = pretrained_autoencoder.load(run, say=say)
        autoencoder = pretrained_autoencoder.for_use(autoencoder)
        return cls(autoencoder, params, step=found.step, fingerprint=found.latents_fingerprint)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What its latents carry: of the weights that learnt them, whichever decode them now."""
        if self._given_fingerprint:
            return self._given_fingerprint
        of_weights = fingerprints.autoencoder_fingerprint(self.params)
        return fingerprints.of_level(of_weights, self.autoencoder.level_db)

    @property
    def can_stream(self) -> bool:
        """Whether sound can be coded as it comes: what hears all of it at once cannot."""
        return not isinstance(self.autoencoder, semantic_coder.SemanticCoder)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.autoencoder.sample_rate

    def num_latents(self, num_samples: int) -> int:
        """Latents of so many samples: the last may be of fewer than the others."""
        return -(-num_samples // self.autoencoder.samples_per_latent)

    def meter(self) -> level.Meter:
        """Finds the gain of a sound that comes in blocks."""
        return level.Meter(level_db=self.autoencoder.level_db, sample_rate=self.sample_rate)

    def gains(self, waveforms: Sequence[np.ndarray]) -> list[float]:
        """The gain of each waveform [n], by which it is multiplied before it is encoded."""
        options = dict(level_db=self.autoencoder.level_db, sample_rate=self.sample_rate)
        return [level.gain(waveform, **options) for waveform in waveforms]

    def encode(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        gains: Sequence[float] | None = None,
        batch_size: int = 8,
        expected: int = 0,
    ) -> list[np.ndarray]:
        """Latents [num_latents(n), latent_dim] of each waveform [n] at `sample_rate`, in order.

        Args:
            waveforms: float in [-1, 1]; of any lengths, at least one sample each.
            gains: what `gains` gave of them, for who decodes them, too; else they are found here.
            batch_size: sounds at a time.
            expected: samples of the longest sound of other calls; see batched.Lists.
        """
        gains = self.gains(waveforms) if gains is None else gains
        heard = [
            np.float32(gain) * waveform for waveform, gain in zip(waveforms, gains, strict=True)
        ]
        return self._encode(heard, batch_size=batch_size, expected=expected)

    def encode_with_gains(
        self, waveforms: Sequence[np.ndarray], **options: Any
    ) -> tuple[list[np.ndarray], list[float]]:
        """Latents of each waveform, and the gains that `decode` needs; see `encode`."""
        gains = self.gains(waveforms)
        return self.encode(waveforms, gains=gains, **options), gains

    def decode(
        self,
        latents: Sequence[np.ndarray],
        *,
        gains: Sequence[float] | None = None,
        batch_size: int = 8,
        expected: int = 0,
    ) -> list[np.ndarray]:
        """Waveforms [t * samples_per_latent] of each sequence of latents [t, latent_dim].

        Args:
            latents: of any numbers of frames, at least one each.
            gains: of the sound that was encoded, by which what is decoded is divided; default 1, for
                sound at the model's level.
            batch_size: sequences at a time.
            expected: frames of the longest of other calls; see batched.Lists.

        Raises:
            ValueError: where latents give no finite sound.
        """
        found = self._decode(latents, batch_size=batch_size, expected=expected)
        gains = np.ones(len(latents)) if gains is None else gains
        return [_finite(one / np.float32(gain)) for one, gain in zip(found, gains, strict=True)]

    def frames_of(self, latents: Sequence[np.ndarray], num_samples: Sequence[int], **fields: Any):
        """frames.Frames of latents that this autoencoder made."""
        return frames.Frames(
            rows=latents,
            num_samples=num_samples,
            latent_rate=self.autoencoder.latent_rate,
            fingerprint=self.fingerprint,
            **fields,
        )

    def check(self, latents: frames.Frames) -> None:
        """Raises ValueError for what is not latents, or of other weights, rate or width."""
        if latents.kind != frames.LATENTS:
            raise ValueError(f"only latents are understood here, got {latents.kind}")
        if latents.fingerprint != self.fingerprint:
            raise ValueError(
                f"these latents were made by weights {latents.fingerprint}, the model has "
                f"{self.fingerprint}; give the --model that encoded them"
            )
        wanted = self.autoencoder.latent_rate, self.autoencoder.latent_dim
        for row in latents.rows:
            if (found := (latents.latent_rate, row.shape[1])) != wanted:
                raise ValueError(
                    f"latents of these weights come at {wanted[0]:g} Hz and have {wanted[1]} "
                    f"channels, got {found[0]:g} Hz and {found[1]}: encode the sound again"
                )

    def _waveform_to_latents(self, params, waveform: jax.Array, mask: jax.Array) -> jax.Array:
        return self.autoencoder.apply(
            {"params": params}, waveform, mask=mask, method="waveform_to_latents"
        )

    def _latents_to_waveform(self, params, latents: jax.Array, mask: jax.Array) -> jax.Array:
        return self.autoencoder.apply(
            {"params": params}, latents, mask=mask, method="latents_to_waveform"
        )

    def check_stream(self) -> None:
        """Raises ValueError where sound cannot be coded as it comes."""
        if not self.can_stream:
            raise ValueError(
                "an autoencoder that hears through a semantic encoder, which hears all of a sound at once, "
                "cannot stream, got a stream: give whole sounds"
            )

    def encode_blocks(
        self, blocks: Iterable[np.ndarray], *, gain: float | Sequence[float] = 1.0
    ) -> Iterator[np.ndarray]:
        """As `encode_stream`; of what cannot, all latents at once, behind the last block."""
        if self.can_stream:
            yield from self.encode_stream(blocks, gain=gain)
            return
        for rows in _gathered(blocks):
            yield np.stack(self.encode(rows * _by_channel(gain), gains=[1.0] * len(rows)))

    def decode_blocks(
        self, parts: Iterable[np.ndarray], *, gain: float | Sequence[float] = 1.0, **options: Any
    ) -> Iterator[np.ndarray]:
        """As `decode_stream`; of what cannot, all sound at once, behind the last part."""
        if self.can_stream:
            yield from self.decode_stream(parts, gain=gain, **options)
            return
        for rows in _gathered(parts):
            yield np.stack(self.decode(rows)) / _by_channel(gain)

    def encode_stream(
        self, blocks: Iterable[np.ndarray], *, gain: float | Sequence[float] = 1.0
    ) -> Iterator[np.ndarray]:
        """Encodes sound as it comes, in memory that its length does not change.

        Args:
            blocks: [channels, any number of samples] at `sample_rate`, float32; channels are
                encoded side by side.
            gain: by which it is multiplied, or each channel: what `meter` finds is known at the end
                alone, so that of a stream 1 is taken, for sound at the model's level already.

        Yields:
            [channels, k, latent_dim]: all latents of the sound padded with zeros to a whole number.

        Raises:
            ValueError: as `check_stream`.
        """
        self.check_stream()
        blocks = (block * _by_channel(gain) for block in blocks)
        held = next(blocks, None)
        if held is None:
            return
        hop, lookahead = self.autoencoder.samples_per_latent, self.autoencoder.encoder_lookahead
        size = _CHUNK_LATENTS * hop
        state = self._encoder_state(self._variables, len(held))
        for block in itertools.chain([held[:, :0]], blocks, [None]):
            is_end = block is None
            held = held if is_end else np.concatenate([held, block], axis=1)
            while held.shape[1] >= size + lookahead or (is_end and held.shape[1]):
                # The network is causal: zeros after the end change nothing before it.
                chunk = held[:, : size + lookahead]
                chunk = np.pad(chunk, ((0, 0), (0, size + lookahead - chunk.shape[1])))
                state, latents = self._encode_step(self._variables, state, chunk)
                yield np.asarray(latents)[:, : self.num_latents(held.shape[1])]
                held = held[:, size:]

    def decode_stream(
        self,
        parts: Iterable[np.ndarray],
        *,
        gain: float | Sequence[float] = 1.0,
        chunk: int = _CHUNK_LATENTS,
    ) -> Iterator[np.ndarray]:
        """Decodes latents as they come.

        Args:
            parts: [channels, any number, latent_dim]; channels are decoded side by side.
            gain: by which what is decoded is divided, or each channel, as it was encoded with.
            chunk: latents per compiled step: what must be there before there is sound.

        Yields:
            [channels, k] at `sample_rate`; together samples_per_latent samples for each latent.

        Raises:
            ValueError: where latents give no finite sound, and as `check_stream`.
        """
        self.check_stream()
        parts = iter(parts)
        held = next(parts, None)
        if held is None:
            return
        late, hop = self.autoencoder.decoder_lookahead, self.autoencoder.samples_per_latent
        state = self._decoder_state(self._variables, len(held))
        arrived, decoded = held.shape[1], 0
        for part in itertools.chain([held[:, :0]], parts, [None]):
            if part is None:
                # The sound of the last latents comes out with zeros that follow them.
                wanted = -(-(arrived + late - decoded) // chunk) * chunk
                part = np.zeros((len(held), wanted - held.shape[1], held.shape[2]), np.float32)
            else:
                arrived += part.shape[1]
            held = np.concatenate([held, part], axis=1)
            while held.shape[1] >= chunk:
                state, waveform = self._decode_step(self._variables, state, held[:, :chunk])
                first, held = decoded - late, held[:, chunk:]
                decoded += chunk
                sound = np.asarray(waveform)[:, max(0, -first) * hop : (arrived - first) * hop]
                yield _finite(sound / _by_channel(gain))


def _by_channel(gain: float | Sequence[float]) -> np.ndarray:
    """A gain, or one for each channel, for blocks [channels, k]."""
    return np.asarray(gain, np.float32).reshape(-1, 1)


def _finite(sound: np.ndarray) -> np.ndarray:
    """The sound; a file would hold full scale in the place of what is no number."""
    if not np.isfinite(sound).all():
        raise ValueError(
            "latents must be such as the model makes, got some that give no finite sound: encode "
            "the sound again, or generate it with less guidance or temperature"
        )
    return sound


def _whole(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Blocks [1, k, ...] of a stream in one piece [n, ...]."""
    return next(_gathered(blocks))[0]


def _gathered(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks [channels, k, ...] in one piece, if there is anything in them."""
    held = list(blocks)
    if any(block.shape[1] for block in held):
        yield np.concatenate(held, axis=1)
