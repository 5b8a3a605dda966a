# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The on-disk record of a segment's latents: the header of its sound's record, then the latents.

    b"F3TL" | version, uint32 | header length, uint32 | header | float32 latents, frame by frame

Little-endian and aligned as in `records`. Text and labels come along, so that whatever trains on
sound can train on its latents.
"""

import dataclasses
import math

import numpy as np

from data_pipelines.records import sound as sound_records

GAIN_DB = "gain_db"  # among the levels of a record
MAGIC = b"F3TL"
MAX_DIM = 2**16  # values per latent frame


@dataclasses.dataclass(frozen=True, slots=True)
class LatentRecord:
    """The latents of one segment of sound; the other fields are those of its sound.Record.

    Attributes:
        latents: [frames, latent_dim], float32.
        num_samples: of the sound; every begun frame has a latent.
        levels: those of the sound and, where it was encoded at another level than its own, the gain
            for that in dB, under GAIN_DB.
    """

    key: str
    latents: np.ndarray
    num_samples: int
    sample_rate: int
    source: str = ""
    offset: int = 0
    ends: bool | None = False
    texts: tuple[sound_records.Text, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    levels: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def gain(self) -> float:
        """By which the sound was multiplied before it was encoded; divide by it what is decoded."""
        return 10.0 ** (self.levels.get(GAIN_DB, 0.0) / 20.0)


def from_sound(
    record: sound_records.Record, latents: np.ndarray, *, gain: float = 1.0
) -> LatentRecord:
    """The record of the latents [frames, latent_dim] of `record`, which a gain made before."""
    fields = {name: getattr(record, name) for name in sound_records.FIELDS}
    if gain != 1.0:
        fields["levels"] = fields["levels"] | {GAIN_DB: 20.0 * math.log10(gain)}
    return LatentRecord(latents=latents, **fields)


def encode(record: LatentRecord) -> bytes:
    """Returns the bytes of `record`.

    Raises:
        ValueError: if a field is out of range or the latents are not finite [frames, dim] float32.
    """
    latents = record.latents
    if (
        latents.dtype != np.float32
        or latents.ndim != 2
        or not len(latents)
        or not 1 <= latents.shape[1] <= MAX_DIM
        or not np.isfinite(latents).all()
    ):
        raise ValueError(
            f"latents of {record.key!r} must be finite float32 [frames, 1 to {MAX_DIM}], got "
            f"{latents.dtype} {list(latents.shape)}"
        )
    header = sound_records.encode_header(record, magic=MAGIC)
    return header + latents.astype("<f4", copy=False).tobytes()


def decode(data: bytes, *, latent_dim: int) -> LatentRecord:
    """Returns the record in `data`; its latents are a read-only view, so nothing is copied.

    Raises:
        ValueError: if `data` is not a whole record of a version this code reads.
    """
    fields, start = sound_records.decode_header(data, magic=MAGIC)
    num_bytes = len(data) - start
    if not num_bytes or num_bytes % (4 * latent_dim):
        raise ValueError(
            f"a record has frames of {latent_dim} latents of four bytes, got {num_bytes} bytes"
        )
    latents = np.frombuffer(data, "<f4", offset=start).reshape(-1, latent_dim)
    return LatentRecord(latents=latents, **fields)
