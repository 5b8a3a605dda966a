# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a batch consists of: arrays of sound or of latents, and of text; how a record fills a row.

"begins" and "ends" [b] bool say of every row whether its sound begins and ends where its recording
does: a crop, or a record that was cut from something longer, does not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import latents as latent_records
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import transforms

_QUIET_DB = -60.0  # dBFS, below which there is nothing to be made louder but noise; chosen

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]


class Sound:
    """Rows of "waveform" [b, samples] float32 and "mask" [b, samples] bool, "begins" and "ends"."""

    def __init__(self, crop_length: int, *, salient_db: float = 0.0, level_db: float = 0.0):
        """Rows of `crop_length` samples.

        Args:
            crop_length: samples.
            salient_db: dBFS, below which a crop is too quiet to be taken where there is another; 0
                takes the first.
            level_db: dBFS, to which crops are brought before their gain; 0 leaves them as they are.
        """
        self._crop_length, self._salient_db, self._level_db = crop_length, salient_db, level_db

    def spec(self, num_rows: int) -> Spec:
        """Name -> (shape, dtype)."""
        shape = (num_rows, self._crop_length)
        return {"waveform": (shape, np.dtype(np.float32)), **_edge_spec(shape)}

    def empty(self, num_rows: int) -> dict[str, np.ndarray]:
        """A batch of silence that `write` fills; its waveform is int16 until `finish`."""
        shape = (num_rows, self._crop_length)
        edges = {name: np.zeros(*pair) for name, pair in _edge_spec(shape).items()}
        return {"waveform": np.zeros(shape, np.int16), **edges}

    def fits(self, record: sound_records.Record) -> bool:
        """Whether all of a record goes into a row."""
        return record.waveform.size <= self._crop_length

    def heard(self, record: sound_records.Record) -> int:
        """Samples of a record that go into a row."""
        return min(record.waveform.size, self._crop_length)

    def write(
        self,
        batch: dict,
        row: int,
        source: sources.Source,
        record: Any,
        positions: Sequence[float],
    ) -> None:
        """Writes one crop, which lies at the first of `positions` in [0, 1) of the room it has, or at
        the first that is not too quiet."""
        out, waveform = batch["waveform"][row], record.waveform
        if self._salient_db:
            least = self._salient_db
            taken = transforms.salient_crop(waveform, positions, least_db=least, out=out)
        else:
            taken = transforms.crop(waveform, positions[0], out=out)
        batch["mask"][row, : len(taken)] = True
        if taken.start == 0 and source.begins(record):
            batch["begins"][row] = True
        if taken.stop == len(waveform) and source.ends(record):
            batch["ends"][row] = True

    def finish(self, batch: dict, gains_db: np.ndarray | None) -> None:
        """Turns PCM16 into float32 in [-1, 1], with a gain in dB per row, or None."""
        if gains_db is not None and self._level_db:
            gains_db = gains_db + [
                self._to_level(waveform[mask])
                for waveform, mask in zip(batch["waveform"], batch["mask"])
            ]
        batch["waveform"] = transforms.amplify(batch["waveform"], gains_db)

    def _to_level(self, pcm: np.ndarray) -> float:
        """The gain in dB that brings a crop to the level; 0 of one that is too quiet: it stays so."""
        found = transforms.rms_db(pcm) if pcm.size else -np.inf
        return self._level_db - found if found >= (self._salient_db or _QUIET_DB) else 0.0


class Latents:
    """Rows of "latents" [b, frames, dim] float32, "mask" [b, frames] bool, "begins" and "ends"."""

    def __init__(self, num_frames: int, latent_dim: int, samples_per_latent: int):
        """Rows of `num_frames` latents; a longer record gives its beginning."""
        self._num_frames, self._latent_dim = num_frames, latent_dim
        self._samples_per_latent = samples_per_latent

    def spec(self, num_rows: int) -> Spec:
        """Name -> (shape, dtype)."""
        shape = (num_rows, self._num_frames)
        return {
            "latents": ((*shape, self._latent_dim), np.dtype(np.float32)),
            **_edge_spec(shape),
        }

    def empty(self, num_rows: int) -> dict[str, np.ndarray]:
        """A batch of zeros that `write` fills."""
        return {name: np.zeros(*pair) for name, pair in self.spec(num_rows).items()}

    def fits(self, record: latent_records.LatentRecord) -> bool:
        """Whether all of a record goes into a row."""
        return len(record.latents) <= self._num_frames

    def heard(self, record: latent_records.LatentRecord) -> int:
        """Samples that the latents of a record which go into a row stand for."""
        return min(record.num_samples, self._num_frames * self._samples_per_latent)

    def write(
        self,
        batch: dict,
        row: int,
        source: sources.Source,
        record: Any,
        positions: Sequence[float],
    ) -> None:
        """Writes the beginning of a record; `positions` are those of its sound, and 0."""
        content = record.latents[: self._num_frames]
        batch["latents"][row, : len(content)] = content
        batch["mask"][row, : len(content)] = True
        batch["begins"][row] = source.begins(record)
        batch["ends"][row] = source.ends(record) and self.fits(record)

    def finish(self, batch: dict, gains_db: np.ndarray | None) -> None:
        """Nothing is left to do."""


def _edge_spec(shape: tuple[int, int]) -> Spec:
    """Where there is sound in rows of a shape, and whether its edges are a recording's own."""
    shapes = {"mask": shape, "begins": shape[:1], "ends": shape[:1]}
    return {name: (one, np.dtype(np.bool_)) for name, one in shapes.items()}


def text_spec(num_rows: int, max_tokens: int) -> Spec:
    """Name -> (shape, dtype) of the text that goes with a batch."""
    shape = (num_rows, max_tokens)
    return {
        "text": (shape, np.dtype(np.int32)),
        "answer": (shape, np.dtype(np.bool_)),
        "text_mask": (shape, np.dtype(np.bool_)),
    }


def layout_of(
    opened: list[Any], *, crop_length: int, autoencoder: str | None, **levels: float
) -> Sound | Latents:
    """The layout for what the sources hold, which must be the same kind everywhere.

    Args:
        opened: sources.
        crop_length: samples per row, of sound or of what the latents stand for.
        autoencoder: fingerprint that latents must have; None takes any.
        **levels: of Sound.

    Raises:
        ValueError: if sound and latents are mixed, or latents are not of one kind and length.
    """
    of_latents = [source for source in opened if isinstance(source, sources.LatentSet)]
    if not of_latents:
        return Sound(crop_length, **levels)
    if len(of_latents) < len(opened):
        other = next(source for source in opened if source not in of_latents)
        raise ValueError(
            f"a mixture is of sound or of latents, got sound in {other.name} and latents in "
            f"{of_latents[0].name}: encode the former too"
        )
    for source in of_latents:
        source.check_autoencoder(autoencoder or of_latents[0].manifest.latents.autoencoder)
    found = of_latents[0].manifest.latents
    if crop_length % found.samples_per_latent:
        raise ValueError(
            f"crop_length={crop_length} must be a multiple of the {found.samples_per_latent} "
            f"samples of a latent in {of_latents[0].name}"
        )
    num_frames = crop_length // found.samples_per_latent
    return Latents(num_frames, found.latent_dim, found.samples_per_latent)
