# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""FLAC: one stream or several joined, each measured by its last frame and not by its header alone.

The decoder checks the sums of every frame; what it cannot know is where the last one should be.
"""

from collections.abc import Iterator
import dataclasses
import functools
import struct

import numpy as np

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import streams
from data_pipelines.containers import tags

MAGIC = b"fLaC"
_FIRST_BLOCK = MAGIC + bytes((0, 0, 0, 34))  # STREAMINFO comes first and is of this size
_TOTAL_MASK = 2**36 - 1
_BLOCK_FRAMES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}}
_BLOCK_FRAMES |= {code: 256 << code - 8 for code in range(8, 16)}
_BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}
_RATES = dict(
    enumerate(
        (88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000), 1
    )
)
_MAX_BITS = 24  # that libsndfile reads
_LEAST_TAIL = 2**16  # bytes at the end in which the last frame is looked for


@dataclasses.dataclass(frozen=True)
class _Info:
    """What STREAMINFO says: rate, channels, bits and total in 64 bits, and the largest block."""

    packed: int
    max_block: int

    @property
    def layout(self) -> tuple[int, int]:
        return self.packed >> 44, (self.packed >> 41 & 7) + 1

    @property
    def bits(self) -> int:
        return (self.packed >> 36 & 31) + 1

    @property
    def total(self) -> int:
        return self.packed & _TOTAL_MASK


@dataclasses.dataclass(frozen=True)
class _Frame:
    """A frame's header: its number, of samples where the size of blocks varies, and its samples."""

    number: int
    num_frames: int


def walk(content: content_lib.Content, start: int) -> streams.Walk:
    """Walks a file whose first stream starts at a place."""
    starts = [start, *(place for place in content.find(_FIRST_BLOCK, start + 8, content.size))]
    found = []
    for begin, end in zip(starts, [*starts[1:], content.size]):
        stop = tags.start(content, begin, end, zeros=False)
        stream, problem = _walk_stream(content, range(begin, stop))
        if stream:
            found.append(stream)
        if problem:
            return streams.Walk("flac", tuple(found), problem)
    if len(found) == 1 and found[0].pieces == (range(0, content.size),):
        found = [dataclasses.replace(found[0], pieces=None)]
    return streams.Walk("flac", tuple(found))


def _walk_stream(
    content: content_lib.Content, part: range
) -> tuple[streams.Stream | None, streams.Problem | None]:
    start = content.at(part.start, 42)
    if len(start) < 42:
        return None, streams.Problem("truncated", "in the header")
    if start[4] & 0x7F or start[5:8] != _FIRST_BLOCK[5:]:
        return None, streams.Problem("damaged", "no STREAMINFO behind its first bytes")
    info = _Info(int.from_bytes(start[18:26], "big"), int.from_bytes(start[10:12], "big"))
    if info.bits > _MAX_BITS:
        return None, streams.Problem("unsupported", f"FLAC of {info.bits} bits: make it 24")
    position, is_last = part.start + 4, False
    while not is_last:
        head = content.at(position, 4)
        if len(head) < 4 or position + 4 > part.stop:
            return None, streams.Problem("truncated", "in the header")
        if head[0] & 0x7F == 0x7F:
            return None, streams.Problem("damaged", f"no metadata block starts at byte {position}")
        is_last = head[0] >> 7
        position += 4 + int.from_bytes(head[1:], "big")
    if position >= part.stop:
        if not info.total and position == part.stop:
            return None, streams.Problem("no_samples", "a header and no frame")
        return None, streams.Problem("truncated", "a header and no frame")
    first = _frame(content.at(position, 16), info)
    if first is None:
        reason = "damaged" if part.stop - position >= 16 else "truncated"
        return None, streams.Problem(reason, f"no frame starts at byte {position}")
    is_variable = content.at(position + 1, 1) == b"\xf9"
    block = 1 if is_variable else first.num_frames
    end, stop = _end(content, range(position, part.stop), info, block)
    if end is None:
        return streams.Stream(None, (part,), info.layout), streams.Problem(
            "truncated", "no whole frame stands at its end"
        )
    pieces = (range(part.start, stop),)
    if end != info.total:
        pieces = (with_total(start, end), range(part.start + len(start), stop))
    stream = streams.Stream(end, pieces, info.layout)
    if end < info.total:
        detail = f"{end} of {info.total} samples are there"
        return stream, streams.Problem("truncated", detail)
    return stream, None


def with_total(head: bytes, total: int) -> bytes:
    """A header of at least 26 bytes, from the first byte of a file on, with another total."""
    packed = int.from_bytes(head[18:26], "big") & ~_TOTAL_MASK | total & _TOTAL_MASK
    return head[:18] + packed.to_bytes(8, "big") + head[26:]


def _end(
    content: content_lib.Content, frames: range, info: _Info, block: int
) -> tuple[int | None, int]:
    """Samples up to the end of the last frame, and where that is, before zero bytes.

    The samples are None where no whole frame ends where the file does.
    """
    most = info.max_block * info.layout[1] * (info.bits + 7) // 8
    begin = max(frames.stop - max(_LEAST_TAIL, 2 * most), frames.start)
    tail = content.at(begin, frames.stop - begin)
    sync = content.at(frames.start, 2)
    for place in _backwards(tail, sync):
        frame = _frame(tail[place : place + 16], info)
        if frame is None:
            continue
        end = frame.number * block + frame.num_frames
        if _sum(tail[place:]) == 0:
            stop = max(len(tail.rstrip(b"\0")), place)
            while _sum(tail[place:stop]):  # A sum may end in zeros.
                stop += 1
            return end, begin + stop
    return None, frames.stop


def _backwards(tail: bytes, pattern: bytes) -> Iterator[int]:
    place = tail.rfind(pattern)
    while place >= 0:
        yield place
        place = tail.rfind(pattern, 0, place + 1)


def _frame(head: bytes, info: _Info) -> _Frame | None:
    """Reads a frame's header; None where it is none or does not belong to the stream."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    block, rate, assignment, bits = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    channels = 2 if 8 <= assignment < 11 else assignment + 1
    if not block or rate == 15 or assignment > 10 or channels != info.layout[1]:
        return None
    if bits == 3 or bits and _BITS[bits] != info.bits:
        return None
    number, at = _number(head, 4)
    if number is None:
        return None
    num_frames = _BLOCK_FRAMES.get(block)
    if num_frames is None:
        size = block - 5
        num_frames = int.from_bytes(head[at : at + size], "big") + 1
        at += size
    hertz = _RATES.get(rate, info.layout[0])
    if rate >= 12:
        size = 1 if rate == 12 else 2
        hertz = int.from_bytes(head[at : at + size], "big") * {12: 1000, 13: 1, 14: 10}[rate]
        at += size
    if hertz != info.layout[0]:
        return None
    if at >= len(head) or _sum8(head[:at]) != head[at]:
        return None
    return _Frame(number, num_frames)


def _number(head: bytes, at: int) -> tuple[int | None, int]:
    """A number as UTF-8 writes one, of up to 7 bytes, and where it ends."""
    first = head[at]
    if first < 0x80:
        return first, at + 1
    count = 8 - (first ^ 0xFF).bit_length()  # leading ones
    if count < 2 or count > 7 or len(head) < at + count:
        return None, at
    number = first & (0x7F >> count)
    for byte in head[at + 1 : at + count]:
        if byte & 0xC0 != 0x80:
            return None, at
        number = number << 6 | byte & 0x3F
    return number, at + count


def _sum8(content: bytes) -> int:
    """CRC-8 of bytes."""
    value = 0
    for byte in content:
        value = _TABLE_8[value ^ byte]
    return value


def _sum(content: bytes) -> int:
    """CRC-16 of bytes: 0 of a whole frame, also where zero bytes follow it."""
    value, table = 0, _table_16()
    for pair in struct.unpack(f">{len(content) // 2}H", content[: len(content) & ~1]):
        value = table[value ^ pair]
    if len(content) % 2:
        value = value << 8 & 0xFFFF ^ table[value >> 8 ^ content[-1]]
    return value


def _table(polynomial: int, bits: int) -> list[int]:
    """What a remainder of that many bits becomes when as many follow it."""
    values, mask = np.arange(1 << bits), (1 << bits) - 1
    for _ in range(bits):
        values = (values << 1 ^ np.where(values >> bits - 1, polynomial, 0)) & mask
    return values.tolist()


_TABLE_8 = _table(0x07, 8)
_table_16 = functools.cache(lambda: _table(0x8005, 16))
