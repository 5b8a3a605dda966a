# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Raw G.722 at 64 kbit/s: 16 kHz in half a byte a sample, and no header, so that names alone tell it.

A coder and a decoder together delay by 22 samples (1.4 ms), the two halves of its band filters, and
start from rest. Both are left as they are: a file of n bytes is 2n samples.

Source: ITU-T Recommendation G.722; decoded by the package G722 (extra `recordings`).
"""

from collections.abc import Iterator
import contextlib
import importlib.util
import os
from typing import BinaryIO

import numpy as np

from data_pipelines.records import pcm16
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals

ENDING = ".g722"
SAMPLE_RATE = 16_000  # Hz
_BITS_PER_SECOND = 64_000
_BLOCK_BYTES = 2**18  # 2 MB of float32


def missing() -> str | None:
    """Returns None where sound can be decoded, else one sentence with what to install."""
    if importlib.util.find_spec("G722") is None:
        return (
            "raw G.722 needs a decoder (package G722), which is not installed: pip install -e "
            "'.[recordings]' in the checkout"
        )
    return None


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[audio_files.Sound]:
    """Opens a file of raw G.722, which any bytes are; only where nothing is `missing`.

    Raises:
        refusals.Refused: if it is empty or not to be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            num_bytes = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise refusals.Refused("unreadable", audio_files.sentence(error)) from None
        if not num_bytes:
            raise refusals.Refused("empty", "0 bytes")
        yield audio_files.Sound(SAMPLE_RATE, 2 * num_bytes, _blocks(file))


def _blocks(file: BinaryIO) -> Iterator[np.ndarray]:
    """[samples, 1], float32; the decoder goes on from block to block."""
    import G722  # optional: see missing()

    decoder = G722.G722(SAMPLE_RATE, _BITS_PER_SECOND)
    while encoded := _read(file):
        # An array of Python's, or of NumPy's where the package's other half is there.
        yield pcm16.to_float(np.asarray(decoder.decode(encoded), np.int16))[:, None]


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(_BLOCK_BYTES)
    except OSError as error:
        raise refusals.Refused("unreadable", audio_files.sentence(error)) from None
