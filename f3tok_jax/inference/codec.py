# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A trained tokenizer in use: files and arrays to latents and back, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
import functools
import itertools
import pathlib

import jax
import numpy as np
import soundfile

from data_pipelines.records import atomic
from data_pipelines.sound import audio_files
from data_pipelines.sound import transforms
from f3tok_jax.inference import files
from f3tok_jax.inference import latent_file
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import lineage

_CHUNK_LATENTS = 50  # latents per compiled step: 2 s at 25 Hz


class Tokenizer:
    """An autoencoder with its weights. Everything runs as a stream, so that length costs no
    memory."""

    def __init__(
        self, autoencoder: autoencoder_lib.Autoencoder, params, *, step: int | None = None
    ):
        """Takes an autoencoder and its parameters; use `load` for those of a run.

        Args:
            autoencoder: module.
            params: of it.
            step: after which they were saved, if they were.
        """
        self.autoencoder = autoencoder
        self.step = step
        self._variables = {"params": params}
        self._encode_step = jax.jit(functools.partial(autoencoder.apply, method="encode_step"))
        self._decode_step = jax.jit(functools.partial(autoencoder.apply, method="decode_step"))

    @classmethod
    def load(
        cls, model: str, step: int | None = None, *, say: Callable[[str], None] = print
    ) -> "Tokenizer":
        """Loads the averaged weights of a run.

        Args:
            model: run folder.
            step: of the checkpoint; the newest whole one if None.
            say: where messages to the user go: which steps are damaged.

        Raises:
            ValueError: where the folder is no such run, or no checkpoint asked for is whole.
        """
        try:
            return cls.of_run(lineage.Lineage.read(model, step, stage="autoencoder"), say=say)
        except checkpoint.CheckpointError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def of_run(cls, run: lineage.Lineage, *, say: Callable[[str], None] = print) -> "Tokenizer":
        """Loads the averaged weights of a run that was read; see `load`."""
        autoencoder, params, run = pretrained_autoencoder.load(run, say=say)
        return cls(autoencoder, params, step=run.step)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with any bit of the weights."""
        return fingerprint.autoencoder_fingerprint(self._variables["params"])

    @property
    def params(self):
        """Of the autoencoder, averaged."""
        return self._variables["params"]

    @property
    def num_parameters(self) -> int:
        """Of encoder and decoder together."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._variables))

    def encode_blocks(self, blocks: Iterable[np.ndarray], channels: int) -> Iterator[np.ndarray]:
        """Encodes a stream.

        Args:
            blocks: [channels, any number of samples] at the model's rate, float32.
            channels: number of channels; they are encoded side by side.

        Yields:
            [channels, k, latent_dim]: all latents of the sound padded with zeros to a whole number.
        """
        hop, lookahead = self.autoencoder.samples_per_latent, self.autoencoder.encoder_lookahead
        size = _CHUNK_LATENTS * hop
        state = self.autoencoder.apply(self._variables, channels, method="encoder_state")
        held = np.zeros((channels, 0), np.float32)
        for block in blocks:
            held = np.concatenate([held, block], axis=1)
            while held.shape[1] >= size + lookahead:
                state, latents = self._encode_step(
                    self._variables, state, held[:, : size + lookahead]
                )
                yield np.asarray(latents)
                held = held[:, size:]
        while held.shape[1]:
            # The network is causal: zeros after the end change nothing before it.
            num_latents = min(-(-held.shape[1] // hop), _CHUNK_LATENTS)
            chunk = held[:, : size + lookahead]
            chunk = np.pad(chunk, ((0, 0), (0, size + lookahead - chunk.shape[1])))
            state, latents = self._encode_step(self._variables, state, chunk)
            yield np.asarray(latents)[:, :num_latents]
            held = held[:, size:]

    def decode_blocks(self, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes latents [channels, t, latent_dim] to blocks [channels, k] at the model's rate.

        Together they have t * samples_per_latent samples.
        """
        starts = range(0, latents.shape[1], _CHUNK_LATENTS)
        parts = (latents[:, start : start + _CHUNK_LATENTS] for start in starts)
        return self.decode_stream(parts, channels=latents.shape[0])

    def decode_stream(
        self, parts: Iterable[np.ndarray], *, channels: int = 1, chunk: int = _CHUNK_LATENTS
    ) -> Iterator[np.ndarray]:
        """Decodes latents as they come.

        Args:
            parts: [channels, any number, latent_dim].
            channels: number of channels; they are decoded side by side.
            chunk: latents per compiled step: what must be there before there is sound.

        Yields:
            [channels, k], as `decode_blocks`.
        """
        late = self.autoencoder.decoder_lookahead
        hop = self.autoencoder.samples_per_latent
        state = self.autoencoder.apply(self._variables, channels, method="decoder_state")
        held = np.zeros((channels, 0, self.autoencoder.latent_dim), np.float32)
        arrived = decoded = 0
        for part in itertools.chain(parts, [None]):
            if part is None:
                # The sound of the last latents comes out with zeros that follow them.
                wanted = -(-(arrived + late - decoded) // chunk) * chunk
                part = np.zeros((channels, wanted - held.shape[1], held.shape[2]), np.float32)
            else:
                arrived += part.shape[1]
            held = np.concatenate([held, part], axis=1)
            while held.shape[1] >= chunk:
                state, waveform = self._decode_step(self._variables, state, held[:, :chunk])
                first, held = decoded - late, held[:, chunk:]
                decoded += chunk
                yield np.asarray(waveform)[:, max(0, -first) * hop : (arrived - first) * hop]

    def encode_file(
        self, path: str | pathlib.Path, *, channels: str = "mix"
    ) -> latent_file.LatentFile:
        """Encodes a sound file of any rate that libsndfile reads.

        Args:
            path: of the sound.
            channels: "mix" encodes the mean of all channels, "keep" every channel by itself.

        Raises:
            ValueError: where the file is not sound, or holds nothing that can be encoded.
        """
        if channels not in files.CHANNEL_POLICIES:
            raise ValueError(f"channels must be one of {files.CHANNEL_POLICIES}, got {channels!r}")
        try:
            with audio_files.opened(path) as sound:
                stream = files.Input(sound, self.autoencoder.sample_rate, mix=channels == "mix")
                parts = list(self.encode_blocks(stream.resampled(), stream.num_channels))
        except audio_files.Refused as refusal:
            raise ValueError(
                f"{path} cannot be encoded: {audio_files.REASONS[refusal.reason]} "
                f"({refusal.detail})"
            ) from refusal
        if not parts:
            raise ValueError(f"{path} cannot be encoded: {audio_files.REASONS['no_samples']}")
        return latent_file.LatentFile(
            latents=np.concatenate(parts, axis=1),
            latent_rate=self.autoencoder.latent_rate,
            sample_rate=sound.sample_rate,
            num_samples=stream.num_samples,
            fingerprint=self.fingerprint,
        )

    def decode_file(self, source: latent_file.LatentFile, path: str | pathlib.Path) -> None:
        """Writes the sound of `source`, of exactly its rate, channels and length.

        Args:
            source: latents of this tokenizer.
            path: .wav or .flac (16-bit PCM) or .ogg; written whole or not at all.

        Raises:
            ValueError: for latents of other weights, or a file ending that cannot be written.
        """
        path = pathlib.Path(path)
        form = files.format_of(path)
        if source.kind != latent_file.LATENTS:
            raise ValueError(f"only latents can be decoded, got {source.kind}")
        if source.fingerprint != self.fingerprint:
            raise ValueError(
                f"these latents were made by weights {source.fingerprint}, the model has "
                f"{self.fingerprint}; give the --model that encoded them"
            )
        num_channels = source.latents.shape[0]
        resamplers = [
            transforms.Resampler(self.autoencoder.sample_rate, source.sample_rate)
            for _ in range(num_channels)
        ]
        remaining = source.num_samples
        with (
            atomic.replacing(path) as partial,
            soundfile.SoundFile(
                partial, "w", source.sample_rate, num_channels, format=form
            ) as file,
        ):
            for waveform, last in files.with_last(self.decode_blocks(source.latents)):
                resampled = [
                    resample(row, last=last) for resample, row in zip(resamplers, waveform)
                ]
                block = np.stack(resampled, axis=1)[:remaining]
                file.write(np.clip(block, -1.0, 1.0))
                remaining -= len(block)
            # Rates that do not divide may leave the last sample unsaid.
            file.write(np.zeros((remaining, num_channels), np.float32))
