# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""AIFF and AIFC, AU, CAF and NIST SPHERE: a header that says where the samples lie and how many."""

import dataclasses
import struct

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import samples
from data_pipelines.containers import streams

# AIFC's kinds -> bits of a sample, None for those of the header. Others are compressed.
_AIFC_BITS = {
    **{name: None for name in (b"NONE", b"twos", b"sowt", b"raw ")},
    **{name: 8 for name in (b"ulaw", b"ULAW", b"alaw", b"ALAW")},
    **{b"in24": 24, b"in32": 32, b"fl32": 32, b"FL32": 32, b"fl64": 64, b"FL64": 64},
}
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # encoding -> bytes of a sample


@dataclasses.dataclass
class _Aiff:
    """What the chunks of AIFF say; places are those of the chunks."""

    common: bytes = b""
    common_place: int = 0
    sound_place: int = 0
    sound_size: int = 0
    is_open: bool = False
    position: int = 0  # where the walk ended


def _aiff_chunks(content: content_lib.Content, start: int) -> _Aiff:
    found, position = _Aiff(), start + 12
    while len(head := content.at(position, 8)) == 8 and samples.chunk_name(head[:4]):
        size = int.from_bytes(head[4:], "big")
        if head[:4] == b"COMM":
            found.common, found.common_place = content.at(position + 8, min(size, 22)), position
        if head[:4] == b"SSND":
            found.sound_place, found.sound_size = position, max(size, 8)
            is_beyond = position + 8 + size > content.size
            found.is_open = samples.is_streaming(size) and (size == 0 or is_beyond) or size == 8
            if found.is_open or is_beyond:
                break
        position += 8 + size + size % 2
    found.position = min(position, content.size)
    return found


def _walk_aiff(content: content_lib.Content, start: int) -> streams.Walk:
    form = content.at(start + 8, 4)
    if form not in (b"AIFF", b"AIFC"):
        return streams.refused("aiff", "unsupported", f"FORM of {form!r}, not of AIFF or AIFC")
    found = _aiff_chunks(content, start)
    if len(found.common) < 18 or not found.sound_place:
        reason = "truncated" if found.position == content.size else "damaged"
        where = f"no COMM and SSND chunks before byte {found.position}"
        return streams.refused("aiff", reason, where)
    channels, wanted, bits = struct.unpack(">HIH", found.common[:8])
    kind = found.common[18:22] if form == b"AIFC" else b"NONE"
    frame_bytes = None
    if kind in _AIFC_BITS:
        bits = _AIFC_BITS[kind] or bits
        frame_bytes = channels * -(-bits // 8)
        if not frame_bytes or bits > 64:
            detail = f"its COMM chunk says {channels} channels of {bits} bits"
            return streams.refused("aiff", "damaged", detail)
    place = found.sound_place
    begin = place + 16 + int.from_bytes(content.at(place + 8, 4), "big")
    end = place + 8 + found.sound_size
    if begin > max(end, place + 16) and not found.is_open:
        return streams.refused("aiff", "damaged", f"its samples start behind their end, at {begin}")
    is_open = found.is_open and content.size > begin
    stop = content.size if is_open else max(end, begin)

    def counts(there: int) -> dict[int, bytes]:
        sizes = {start + 4: there - start - 8, place + 4: there - place - 8}
        if frame_bytes:
            sizes[found.common_place + 10] = max(there - begin, 0) // frame_bytes
        return {at: min(size, 2**32 - 1).to_bytes(4, "big") for at, size in sizes.items()}

    pieces = samples.shown(content, start, stop, is_open=is_open, counts=counts)
    walk = samples.stream(
        "aiff", content, range(begin, stop), frame_bytes, pieces=pieces, is_open=is_open
    )
    if is_open or walk.problem:
        return walk
    problem = samples.tail_problem(content, min(end, content.size), "big")
    if frame_bytes and wanted != walk.streams[0].num_frames:
        detail = f"{wanted} samples by COMM, {walk.streams[0].num_frames} by SSND"
        problem = streams.Problem("damaged", detail)
    return dataclasses.replace(walk, problem=problem)


def _walk_au(content: content_lib.Content, start: int) -> streams.Walk:
    head = content.at(start, 24)
    order = ">" if head[:4] == b".snd" else "<"
    if len(head) < 24:
        return streams.refused("au", "truncated", f"its header has {len(head)} of 24 bytes")
    offset, size, encoding, _, channels = struct.unpack(order + "5I", head[4:])
    if offset < 24 or not channels:
        detail = f"its header says {channels} channels from byte {offset}"
        return streams.refused("au", "damaged", detail)
    begin = start + offset
    is_open = samples.is_streaming(size) and (size == 0 or begin + size > content.size)
    is_open &= content.size > begin
    frame_bytes = channels * _AU_BYTES[encoding] if encoding in _AU_BYTES else None
    stop = content.size if is_open else begin + size

    def counts(there: int) -> dict[int, bytes]:
        return {start + 8: struct.pack(order + "I", min(max(there - begin, 0), 2**32 - 1))}

    pieces = samples.shown(content, start, stop, is_open=is_open, counts=counts)
    found = samples.stream(
        "au", content, range(begin, stop), frame_bytes, pieces=pieces, is_open=is_open
    )
    tail = samples.tail_problem(content, min(stop, content.size), "big", header=0)
    return dataclasses.replace(found, problem=found.problem or tail)


def _walk_caf(content: content_lib.Content, start: int) -> streams.Walk:
    position, description = start + 8, b""
    while True:
        head = content.at(position, 12)
        if len(head) < 12:
            return streams.refused("caf", "truncated", f"it ends before its samples, at {position}")
        size = int.from_bytes(head[4:], "big", signed=True)
        if not samples.chunk_name(head[:4]):
            return streams.refused("caf", "damaged", f"no chunk starts at byte {position}")
        if head[:4] == b"data":
            break
        if size < 0 or position + 12 + size > content.size:
            detail = f"the chunk at byte {position} says {size} bytes"
            return streams.refused("caf", "damaged" if size < 0 else "truncated", detail)
        if head[:4] == b"desc":
            description = content.at(position + 12, 32)
        position += 12 + size
    if len(description) < 32:
        return streams.refused("caf", "damaged", "no desc chunk before its samples")
    _, kind, _, packet_bytes, packet_frames, channels, bits = struct.unpack(">d4s5I", description)
    frame_bytes = None
    if kind in (b"lpcm", b"ulaw", b"alaw"):
        frame_bytes = packet_bytes
        if packet_frames != 1 or not channels or packet_bytes % channels or not packet_bytes:
            detail = f"its desc chunk says {channels} channels in {packet_bytes} bytes"
            return streams.refused("caf", "damaged", detail)
        problem = samples.width_problem(bits, packet_bytes // channels)
        if problem:
            return streams.Walk("caf", problem=problem)
    begin = position + 16
    # -1 is the format's own word for samples up to the end.
    is_open = size in (-1, 0) and content.size > begin
    stop = content.size if is_open else position + 12 + max(size, 4)

    def counts(there: int) -> dict[int, bytes]:
        return {position + 4: struct.pack(">q", there - position - 12)}

    pieces = samples.shown(content, start, stop, is_open=is_open, counts=counts)
    found = samples.stream(
        "caf", content, range(begin, stop), frame_bytes, pieces=pieces, is_open=is_open
    )
    tail = samples.tail_problem(content, min(stop, content.size), "big", header=12)
    return dataclasses.replace(found, problem=found.problem or tail)


def _walk_sphere(content: content_lib.Content, start: int) -> streams.Walk:
    size = content.at(start + 8, 8).strip()
    if not size.isdigit() or not 16 < int(size) <= 2**20:
        return streams.refused("sphere", "damaged", "its header does not say how long it is")
    begin = start + int(size)
    fields = {}
    for line in content.at(start + 16, int(size) - 16).decode("latin-1").splitlines():
        words = line.split(None, 2)
        if words[:1] == ["end_head"]:
            break
        if len(words) == 3:
            fields[words[0]] = words[2].strip()
    coding = fields.get("sample_coding", "pcm")
    if coding not in ("pcm", "ulaw", "mu-law", "alaw"):
        detail = f"SPHERE with {coding} samples: convert it to flac, for instance with sph2pipe"
        return streams.refused("sphere", "unsupported", detail)
    try:
        count, channels, width = (
            int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes")
        )
    except (KeyError, ValueError):
        detail = "its header does not say sample_count, channel_count and sample_n_bytes"
        return streams.refused("sphere", "damaged", detail)
    if min(count, channels, width) < 0 or not channels * width:
        detail = f"its header says {count} samples of {width} bytes in {channels} channels"
        return streams.refused("sphere", "damaged", detail)
    data = range(begin, begin + count * channels * width)
    pieces = (range(start, min(data.stop, content.size)),) if start else None
    found = samples.stream("sphere", content, data, channels * width, pieces=pieces)
    tail = samples.tail_problem(content, min(data.stop, content.size), "little", header=0)
    return dataclasses.replace(found, problem=found.problem or tail)


WALKS = {
    b"FORM": _walk_aiff,
    b".snd": _walk_au,
    b"dns.": _walk_au,
    b"caff": _walk_caf,
    b"NIST": _walk_sphere,
}
