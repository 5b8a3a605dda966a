# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tags before and behind sound: ID3v1, ID3v2, APEv2, Lyrics3, and padding."""

from data_pipelines.containers import content as content_lib

_ID3V1_BYTES = 128


def end(content: content_lib.Content, offset: int) -> int:
    """The end of the tags that start at a place: that place where none does.

    Tags that are cut end behind the end of the file.
    """
    while size := _size(content.at(offset, 32)):
        offset += size
    return offset


def _size(head: bytes) -> int:
    """Bytes of a tag by its first 32 bytes, 0 where there is none."""
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128 and head[3] < 0xFF:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        # The size leaves out the header, which flag 29 says this is.
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    if head[:3] == b"TAG":
        return _ID3V1_BYTES
    return 0


def start(content: content_lib.Content, begin: int, stop: int, *, zeros: bool = True) -> int:
    """The start of the tags, and of zero bytes where asked, that end at `stop`, not before `begin`."""
    while (before := _before(content, stop, zeros)) != stop:
        if before < begin:
            return begin if content.is_zero(begin, stop) else stop
        stop = before
    return stop


def _before(content: content_lib.Content, stop: int, zeros: bool) -> int:
    tail = content.at(max(stop - _ID3V1_BYTES, 0), min(_ID3V1_BYTES, stop))
    if len(tail) == _ID3V1_BYTES and tail[:3] == b"TAG":
        return stop - _ID3V1_BYTES
    if tail[-32:-24] == b"APETAGEX":
        size = int.from_bytes(tail[-20:-16], "little")
        return stop - size - (32 if tail[-9] & 0x80 else 0)
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return stop - int(tail[-15:-9]) - 15
    if tail[-10:-7] == b"3DI":
        size = 0
        for byte in tail[-4:]:
            size = size << 7 | byte & 0x7F
        return stop - size - 20
    return stop - len(tail) + len(tail.rstrip(b"\0")) if zeros else stop
