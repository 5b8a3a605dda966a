# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Texts that cannot be those of their sounds, though they lie beside them under one name.

In some packages a name was recorded where a paragraph is written, or one recording was copied to
several texts.
"""

import collections
from collections.abc import Mapping
import hashlib
import os
import re

from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals

# Of letters and figures, of a whole sound. Of 3,440 acted dialogs in Czech and Dutch none has more
# than 20, and of 620 sentences that are read none more than 12.
MOST_A_SECOND = 22.0
TOO_MANY = f"more letters than are said in their time, over {MOST_A_SECOND:g} a second"
OF_COPIES = "other words for a copy of the same sound"

# Pages of Ogg have the serial number of their stream, which is another in each, and a sum over it.
_PAGE = re.compile(rb"(OggS.{10}).{4}(.{4}).{4}", re.DOTALL)

Texts = Mapping[str, tuple[sound_records.Text, ...]]


def found(root: str, texts: Texts) -> dict[str, str]:
    """Returns path -> why its texts are doubtful, of sounds for which they are.

    Args:
        root: folder that paths are relative to.
        texts: path of a sound -> its texts.
    """
    doubtful = dict.fromkeys(_contradicted(root, texts), OF_COPIES)
    for path, of_sound in texts.items():
        said = [text.content for text in of_sound if text.kind == sound_records.TRANSCRIPT]
        seconds = _seconds(os.path.join(root, path)) if said else None
        if seconds and max(map(_num_letters, said)) > MOST_A_SECOND * seconds:
            doubtful[path] = TOO_MANY
    return doubtful


def _contradicted(root: str, texts: Texts) -> list[str]:
    """Paths of sounds of which a copy, encoded alike, has other words."""
    by_size, copies = collections.defaultdict(list), collections.defaultdict(list)
    for path, of_sound in texts.items():
        if of_sound:
            by_size[os.stat(os.path.join(root, path)).st_size].append(path)
    for paths in by_size.values():
        for path in paths if len(paths) > 1 else ():
            copies[_digest(os.path.join(root, path))].append(path)
    return [
        path
        for paths in copies.values()
        if len({tuple(text.words for text in texts[path]) for path in paths}) > 1
        for path in paths
    ]


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.sha256(_PAGE.sub(rb"\1\2", file.read())).digest()


def _num_letters(text: str) -> int:
    return len(re.findall(r"\w", text))


def _seconds(path: str) -> float | None:
    """Length of a sound by what its file says; None where the build will refuse it."""
    try:
        with audio_files.opened(path) as sound:
            return sound.num_frames / sound.sample_rate if sound.num_frames else None
    except refusals.Refused:
        return None
