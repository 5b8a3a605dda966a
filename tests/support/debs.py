# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Debian packages made on the spot, and an apt-get that has them and nothing else."""

from collections.abc import Mapping
import gzip
import io
import os
import pathlib
import tarfile

import numpy as np
import pytest
import soundfile

from tests.support import sounds

# Copies a package from $REPOSITORY, as apt-get does, and writes down that it was asked.
_APT_GET = """#!/bin/sh
set -eu
eval "name=\\${$#}"
echo "$name" >> "$REPOSITORY/asked"
if [ ! -e "$REPOSITORY/$name.deb" ]; then
    echo "E: Unable to locate package $name" >&2
    exit 100
fi
if [ -e "$REPOSITORY/interrupted" ]; then
    head -c 100 "$REPOSITORY/$name.deb" > "${name}_1.0_all.deb"
    echo "E: Failed to fetch $name  Connection timed out" >&2
    exit 100
fi
cp "$REPOSITORY/$name.deb" "${name}_1.0_all.deb"
"""


class Repository:
    """Packages that the fake apt-get fetches."""

    def __init__(self, folder: pathlib.Path):
        """Of packages as files of a folder that is there."""
        self.folder = folder

    @property
    def asked(self) -> list[str]:
        """The names of packages for which apt-get was run, in order."""
        path = self.folder / "asked"
        return path.read_text().split() if path.exists() else []

    def add(self, name: str, files: Mapping[str, bytes], *, version: str = "1.0-1") -> pathlib.Path:
        """Makes a package of files by their paths, and its copyright file; returns its path."""
        notice = {f"usr/share/doc/{name}/copyright": b"License: some\n"}
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b>\n"
        control += "Description: sounds\n"
        members = {
            "debian-binary": b"2.0\n",
            "control.tar.gz": _tar({"control": control.encode()}),
            "data.tar.gz": _tar({**files, **notice}),
        }
        path = self.folder / f"{name}.deb"
        path.write_bytes(b"!<arch>\n" + b"".join(_member(*pair) for pair in members.items()))
        return path


def repository(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> Repository:
    """An empty repository below a folder, whose apt-get is the first on the PATH."""
    place, tools = folder / "repository", folder / "tools"
    place.mkdir()
    tools.mkdir()
    (tools / "apt-get").write_text(_APT_GET)
    (tools / "apt-get").chmod(0o755)
    patch.setenv("REPOSITORY", str(place))
    patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return Repository(place)


def sound(ending: str, seconds: float = 1.0, *, hertz: float = 300.0, rate: int = 16_000) -> bytes:
    """The bytes of a file of sound."""
    buffer = io.BytesIO()
    kind = {"wav": "WAV", "ogg": "OGG", "flac": "FLAC"}[ending]
    samples = sounds.tone(seconds, rate=rate, hertz=hertz) * np.float32(0.5)
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


def g722(waveform: np.ndarray) -> bytes:
    """The bytes of a file of raw G.722 of [samples] at 16 kHz; without a coder a test is skipped."""
    coders = pytest.importorskip("G722", reason="no coder: pip install -e '.[recordings]'")
    pcm = np.rint(waveform * 32767.0).astype(np.int16)
    return bytes(coders.G722(16_000, 64_000).encode(pcm))


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _member(name: str, content: bytes) -> bytes:
    """A member of an ar archive, whose places are even."""
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
