# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Samples that lie in a row behind a header which says how many bytes they take."""

from collections.abc import Callable
import re

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import streams
from data_pipelines.containers import tags

_MAX_PADDING = 2**16  # zero bytes behind the last chunk; some writers fill up a block of the disk

# Chunks that stand behind samples, in RIFF, AIFF and CAF: one of these may be cut at the end.
_KNOWN_CHUNKS = frozenset(
    re.findall(
        rb"(?s)....",
        b"LISTid3 ID3 bextiXMLcue factPEAKsmplinstJUNKjunkPAD FLLRacidcartstrcplst_PMXafspDISPaxml"
        b"chnalevlaXMLumidINSTMARKMIDINAMEAUTHANNOCOMTAPPL(c) SAURminfelm1regnovwfCHANfreeinfomark"
        b"uuidpaktchanpeakmidistrg",
    )
)


def is_streaming(size: int, bits: int = 32) -> bool:
    """Whether a count of bytes is one that writers put who cannot go back, of sound they pipe.

    0, all ones and the largest signed number, give or take a header; sox takes 0x7ffff000 in WAV
    and 0x7f000000 in AIFF.
    """
    if bits == 64:
        return size == 0 or size >= 2**62
    return (
        size == 0
        or size >= 2**32 - 256
        or abs(size - 2**31) <= 256
        or 0 <= size - 0x7FFFF000 <= 256
        or 0 <= size - 0x7F000000 <= 256
    )


def chunk_name(name: bytes) -> bool:
    """Whether four bytes can name a chunk: printable ASCII."""
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def width_problem(bits: int, width: int) -> streams.Problem | None:
    """Whether a sample of that many bits does not take that many bytes."""
    if 8 * (width - 1) < bits <= 8 * width:
        return None
    # It is not said on which side they lie.
    reason = "unsupported" if 16 < bits < 8 * width == 32 else "damaged"
    return streams.Problem(reason, f"its header says {bits} bits in {width} bytes of a sample")


def stream(
    kind: str,
    content: content_lib.Content,
    data: range,
    frame_bytes: int | None,
    *,
    pieces: streams.Pieces | None = None,
    is_open: bool = False,
) -> streams.Walk:
    """Judges one run of samples.

    Args:
        kind: of the container.
        content: the file.
        data: where the samples lie; it may reach beyond the end of the file.
        frame_bytes: of a sample of all channels; None of compressed ones.
        pieces: see streams.Stream.
        is_open: the header does not say where they end, so that an end is no truncation.
    """
    there = range(data.start, min(data.stop, max(content.size, data.start)))
    num_frames = len(there) // frame_bytes if frame_bytes else None
    problem = None
    if there.stop < data.stop:
        # A header may say more than len() of a range can.
        share = f"{len(there)} of {data.stop - data.start} bytes of samples are there"
        problem = streams.Problem("truncated", share)
    elif frame_bytes and len(there) % frame_bytes and is_open and not _padded(content, there):
        problem = streams.Problem("truncated", f"in the middle of a sample at byte {there.stop}")
    return streams.Walk(kind, (streams.Stream(num_frames, pieces),), problem)


def shown(
    content: content_lib.Content,
    start: int,
    stop: int,
    *,
    is_open: bool,
    counts: Callable[[int], dict[int, bytes]],
) -> streams.Pieces | None:
    """What a decoder is shown of a file: itself, None, or as much as is there with true counts.

    Args:
        content: the file.
        start: of the container in it.
        stop: where the header has the samples end; it may lie beyond the end of the file.
        is_open: see `stream`.
        counts: where the container ends -> place of each count in its header, and its bytes.
    """
    if not is_open and not start and stop <= content.size:
        return None
    there = min(stop, content.size)
    return streams.patched(range(start, there), counts(there))


def _padded(content: content_lib.Content, data: range) -> bool:
    return len(data) % 2 == 0 and content.at(data.stop - 1, 1) == b"\0"


def another_file(place: int) -> streams.Problem:
    """A second file stands behind the first."""
    return streams.Problem("several_streams", f"another file starts at byte {place}: split it")


def tail_problem(
    content: content_lib.Content, position: int, order: str, header: int = 8
) -> streams.Problem | None:
    """Judges what lies behind samples: chunks, tags and a little padding are nothing to refuse.

    Args:
        content: the file.
        position: the end of the samples.
        order: of bytes, "little" or "big".
        header: bytes of a chunk's name and size: 8, or 12 of 64-bit sizes; 0 where no chunks may
            follow.
    """
    stop = tags.start(content, position, content.size)
    if header == 8 and position % 2 and content.at(position, 1) == b"\0":
        position += 1
    begin = position
    # A chunk of zeros, and the upper bytes of its size, look like padding from behind.
    while header and position < stop and position + header <= content.size:
        head = content.at(position, header)
        size = int.from_bytes(head[4:], order)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
            return another_file(position)
        if not chunk_name(head[:4]):
            break
        if position + header + size > stop:
            if not (position + header + size <= content.size or head[:4] in _KNOWN_CHUNKS):
                break
            return None
        position += header + size
        # A writer may have forgotten the byte that makes the size even.
        if header == 8 and size % 2 and not chunk_name(content.at(position, 4)):
            position += 1
    if position >= stop and content.size - max(stop, begin) <= _MAX_PADDING:
        return None
    detail = f"{content.size - position} bytes behind the samples, from byte {position}, belong to"
    return streams.Problem("damaged", f"{detail} nothing")
