# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tars of short tones that tests make for themselves."""

import io
import pathlib
import tarfile

import soundfile

from tests.support import sounds


def encoded(index: int, *, format: str = "WAV") -> bytes:
    """A tone as a file; every index has another length and pitch."""
    stream = io.BytesIO()
    tone = sounds.tone(0.3 + 0.05 * index, hertz=200.0 + 30 * index)
    soundfile.write(stream, tone, 16_000, format=format)
    return stream.getvalue()


def write(path: pathlib.Path, members, **options) -> pathlib.Path:
    """Writes a tar; members are (name, bytes) or tarfile.TarInfo without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
