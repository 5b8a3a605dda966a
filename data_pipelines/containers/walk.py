# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The walk through any container: chosen by content, whatever the file's name says."""

from typing import BinaryIO

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import flac
from data_pipelines.containers import foreign
from data_pipelines.containers import headers
from data_pipelines.containers import mpeg
from data_pipelines.containers import ogg
from data_pipelines.containers import riff
from data_pipelines.containers import streams
from data_pipelines.containers import tags

_WALKS = {
    **dict.fromkeys(riff.MAGICS, riff.walk),
    **headers.WALKS,
    flac.MAGIC: flac.walk,
    ogg.MAGIC: ogg.walk,
}


def walk(file: BinaryIO) -> streams.Walk:
    """Walks a file from its start to its end without decoding anything.

    Args:
        file: seekable; its position is not kept.

    Returns:
        What it holds; for what is no sound at all, a problem and no streams.

    Raises:
        OSError: where the operating system does not give the bytes.
    """
    content = content_lib.Content(file)
    if not content.size:
        return streams.refused("empty", "empty", "0 bytes")
    start = tags.end(content, 0)
    if start > content.size:
        return streams.refused("tags", "truncated", "in the tags before the sound")
    known = _WALKS.get(content.at(start, 4))
    if known:
        return known(content, start)
    first = start + _num_zeros(content.at(start, 2**16))
    if mpeg.starts(content, first):
        return mpeg.walk(content, range(start, content.size))
    return foreign.walk(content, start)


def _num_zeros(head: bytes) -> int:
    return len(head) - len(head.lstrip(b"\0"))
