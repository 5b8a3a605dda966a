# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""WAV in its dresses: RIFF and RIFX, RF64 and BW64 above 4 GiB, and Sony's W64."""

import dataclasses
import struct

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import mpeg
from data_pipelines.containers import samples
from data_pipelines.containers import streams

MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff")

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Tag -> bytes that a sample of it may have; of other tags, samples are compressed together.
_WIDTHS = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8), 6: (1,), 7: (1,)}
_MPEG = (0x50, 0x55)
_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of W64's chunks behind their names
_W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


@dataclasses.dataclass
class _Header:
    """What stands before the samples: places of sizes that may need to be mended."""

    order: str
    format: bytes = b""
    ds64_place: int = 0  # of the 64-bit sizes, 0 without
    ds64_size: int = 0  # of the samples
    data_place: int = 0  # of the samples' size
    data_size: int = 0
    is_even: bool = True  # whether every chunk of odd size has the byte behind it that is due


def walk(content: content_lib.Content, start: int) -> streams.Walk:
    """Walks a file whose first bytes are one of MAGICS."""
    magic = content.at(start, 4)
    if magic == b"riff":
        if content.at(start, 16) != _W64_RIFF:
            return streams.refused("w64", "damaged", "its first bytes are no W64 header")
        return _walk_w64(content, start)
    kind = "rf64" if magic in (b"RF64", b"BW64") else "wav"
    if content.at(start + 8, 4) != b"WAVE":
        form = content.at(start + 8, 4).decode("latin-1")
        return streams.refused(kind, "unsupported", f"RIFF of {form!r}, not of WAVE")
    header = _Header("big" if magic == b"RIFX" else "little")
    position = start + 12
    while True:
        head = content.at(position, 8)
        if len(head) < 8:
            return streams.refused(kind, "truncated", f"it ends before its samples, at {position}")
        name, size = head[:4], int.from_bytes(head[4:], header.order)
        if name == b"data":
            header.data_place, header.data_size = position + 4, size
            return _judged(kind, content, start, header)
        if not samples.chunk_name(name):
            return streams.refused(kind, "damaged", f"no chunk starts at byte {position}")
        if position + 8 + size > content.size:
            detail = f"the chunk at byte {position} reaches beyond the end, before any samples"
            return streams.refused(kind, "truncated", detail)
        if name == b"fmt ":
            header.format = content.at(position + 8, min(size, 64))
        if name == b"ds64" and size >= 24:
            header.ds64_place = position + 8
            header.ds64_size = int.from_bytes(content.at(position + 16, 8), "little")
        position += 8 + size
        # A writer may have forgotten the byte that makes the size even.
        is_due = size % 2 and not samples.chunk_name(content.at(position, 4))
        header.is_even &= is_due == size % 2
        position += is_due


def _judged(kind: str, content: content_lib.Content, start: int, header: _Header) -> streams.Walk:
    begin = header.data_place + 4
    frame_bytes, problem = _frame_bytes(header.format, header.order)
    if problem:
        return streams.Walk(kind, problem=problem)
    size, is_open = header.data_size, False
    if kind == "rf64" and header.ds64_place and size == 0xFFFFFFFF:
        size, is_open = header.ds64_size, samples.is_streaming(header.ds64_size, 64)
    elif samples.is_streaming(size):
        is_open = size == 0 or begin + size > content.size
    if not is_open and content.size > 2**32 and (content.size - begin - size) >> 32:
        # A size above 4 GiB, of which the header holds the lower half.
        size += (content.size - begin - size) >> 32 << 32
    tail = None
    if is_open and size == 0 and not samples.tail_problem(content, begin, header.order):
        is_open = False  # chunks alone, or nothing
    if is_open:
        size = content.size - begin
    else:
        tail = samples.tail_problem(content, min(begin + size, content.size), header.order)
    data = range(begin, begin + size)
    if _tag(header.format, header.order) in _MPEG:
        found = mpeg.walk(content, range(begin, min(data.stop, content.size)))
        cut = samples.stream(kind, content, data, None).problem
        return dataclasses.replace(found, problem=found.problem or cut or tail)
    pieces = None
    is_plain = header.is_even and not start and header.order == "little"
    if not is_plain or size != header.data_size or data.stop > content.size:
        pieces = _mended(content, start, header, range(begin, min(data.stop, content.size)))
    found = samples.stream(kind, content, data, frame_bytes, pieces=pieces, is_open=is_open)
    return dataclasses.replace(found, problem=found.problem or tail)


def _mended(
    content: content_lib.Content, start: int, header: _Header, data: range
) -> streams.Pieces:
    """A header of few chunks with the right sizes, and the samples."""
    order = "<" if header.order == "little" else ">"
    fmt = struct.pack(f"{order}4sI", b"fmt ", len(header.format)) + header.format
    fmt += b"\0" * (len(fmt) % 2)
    fact = b""
    if _tag(header.format, header.order) not in _WIDTHS:
        places = content.find(b"fact", start + 12, header.data_place - 4)
        fact = next((content.at(place, 12) for place in places), b"")
    size = 4 + len(fmt) + len(fact) + 8 + len(data)
    if size + 36 < 2**32:
        magic = b"RIFF" if order == "<" else b"RIFX"
        head = struct.pack(f"{order}4sI4s", magic, size, b"WAVE")
        tail = struct.pack(f"{order}4sI", b"data", len(data))
    else:
        sizes = struct.pack("<QQQI", size + 36, len(data), 0, 0)
        head = struct.pack("<4sI4s4sI", b"RF64", 2**32 - 1, b"WAVE", b"ds64", 28) + sizes
        tail = struct.pack("<4sI", b"data", 2**32 - 1)
    return (head + fmt + fact + tail, data) if len(data) else (head + fmt + fact + tail,)


def _tag(form: bytes, order: str) -> int:
    tag = int.from_bytes(form[:2], order)
    return int.from_bytes(form[24:26], order) if tag == _EXTENSIBLE and len(form) >= 40 else tag


def _frame_bytes(form: bytes, order: str) -> tuple[int | None, streams.Problem | None]:
    """Bytes of a sample of all channels, None of compressed ones, and what is wrong with that."""
    if len(form) < 14:
        return None, streams.Problem("damaged", "no fmt chunk before the samples")
    channels, rate, speed, align = struct.unpack(
        ("<" if order == "little" else ">") + "HIIH", form[2:14]
    )
    tag = _tag(form, order)
    if not channels or not align and tag in _WIDTHS:
        detail = f"its fmt chunk says {channels} channels and samples of {align} bytes"
        return None, streams.Problem("damaged", detail)
    if tag not in _WIDTHS:
        return None, None
    bits, width = int.from_bytes(form[14:16], order), align // channels
    # Some writers count bytes per second without the bits that fill a sample up, or not at all.
    speeds = (0, rate * align, rate * channels * bits // 8)
    if align % channels or width not in _WIDTHS[tag] or speed not in speeds:
        detail = (
            f"its fmt chunk says {bits} bits, {channels} channels in {align} bytes and {rate} Hz"
        )
        return None, streams.Problem("damaged", f"{detail} in {speed} bytes")
    problem = samples.width_problem(bits, width) if tag in (_PCM, _FLOAT) else None
    return align, problem


def _walk_w64(content: content_lib.Content, start: int) -> streams.Walk:
    position, form = start + 40, b""
    while True:
        head = content.at(position, 24)
        if len(head) < 24:
            return streams.refused("w64", "truncated", f"it ends before its samples, at {position}")
        size = int.from_bytes(head[16:], "little")
        if head[4:16] != _GUID_TAIL:
            return streams.refused("w64", "damaged", f"no chunk starts at byte {position}")
        if head[:4] == b"data":
            break
        if size < 24 or position + size > content.size:
            detail = f"the chunk at byte {position} says {size} bytes"
            return streams.refused("w64", "damaged" if size < 24 else "truncated", detail)
        if head[:4] == b"fmt ":
            form = content.at(position + 24, min(size - 24, 64))
        position += -(-size // 8) * 8
    frame_bytes, problem = _frame_bytes(form, "little")
    if problem:
        return streams.Walk("w64", problem=problem)
    begin = position + 24
    is_open = size in (0, 24) or samples.is_streaming(size, 64)
    is_open &= content.size > begin
    stop = content.size if is_open else position + max(size, 24)

    def counts(there: int) -> dict[int, bytes]:
        return {at + 16: struct.pack("<Q", there - at) for at in (start, position)}

    pieces = samples.shown(content, start, stop, is_open=is_open, counts=counts)
    found = samples.stream(
        "w64", content, range(begin, stop), frame_bytes, pieces=pieces, is_open=is_open
    )
    tail = None if is_open else _w64_tail(content, position + -(-max(size, 24) // 8) * 8)
    return dataclasses.replace(found, problem=found.problem or tail)


def _w64_tail(content: content_lib.Content, position: int) -> streams.Problem | None:
    """Judges what lies behind the samples: chunks of any name, or zero bytes."""
    while position + 24 <= content.size:
        if content.at(position, 16) == _W64_RIFF:
            return samples.another_file(position)
        size = int.from_bytes(content.at(position + 16, 8), "little")
        if size < 24 or position + size > content.size:
            break
        position += -(-size // 8) * 8
    return samples.tail_problem(content, min(position, content.size), "little", header=0)
