# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Ogg: every page by its sum and its number; streams one after the other, by their flags."""

import dataclasses
import zlib

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import flac
from data_pipelines.containers import streams
from data_pipelines.containers import tags

MAGIC = b"OggS"
_HEADER_BYTES = 27
_WINDOW = 2**17  # bytes that are walked together; a page has up to 65,307
_CONTINUED, _BEGINS, _ENDS = 1, 2, 4

# The sum of a page is that of zlib with the bits of each byte the other way round.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


@dataclasses.dataclass(frozen=True)
class _Page:
    """A page: its header's fields and its packets, the last of which may go on."""

    place: int
    num_bytes: int
    flags: int
    granule: int  # samples up to its end; -1 where no packet ends in it
    serial: int
    number: int
    head: bytes  # with the sizes of segments; where one is below 255 a packet ends
    body: bytes

    @property
    def lacing(self) -> bytes:
        return self.head[_HEADER_BYTES:]


@dataclasses.dataclass
class _Link:
    """One stream of a chain."""

    begin: int
    serial: int
    number: int  # of its last page
    codec: str
    layout: tuple[int, int]
    skip: int = 0  # samples before the sound, by its header
    step: int = 1  # granules of a sample
    most: int | None = 0  # granules of a packet, None where that is not to be known
    stop: int = 0
    granule: int = 0
    start: int | None = None  # granule of its first sample
    is_open: bool = True
    has_sound: bool = False
    head: bytes = b""  # what the decoder is shown in place of the first page
    bodies: list[range] = dataclasses.field(default_factory=list)  # and behind it, of FLAC

    @property
    def stream(self) -> streams.Stream:
        """It as the decoder is to see it."""
        num_frames = None
        if self.start is not None:
            num_frames = max(self.granule - self.start - self.skip, 0) // self.step
        pieces = (range(self.begin, self.stop),)
        if self.codec == "flac":
            # Read as if it had no pages: its header, and where its packets lie.
            pieces = (flac.with_total(self.head, num_frames), *self.bodies)
        elif self.head:
            pieces = (self.head, range(self.begin + len(self.head), self.stop))
        return streams.Stream(num_frames, pieces, self.layout)


def walk(content: content_lib.Content, start: int) -> streams.Walk:
    """Walks the pages of a file, of which the first stands at a place."""
    links = []
    problem = _walk_pages(content, start, links)
    if problem is None and links[-1].is_open:
        seconds = links[-1].granule / links[-1].step / links[-1].layout[0]
        problem = streams.Problem("truncated", f"no page with the end flag, after {seconds:.3f} s")
    found = [link.stream for link in links if link.has_sound]
    layouts = {stream.layout for stream in found}
    if problem is None and len(layouts) > 1:
        found = found[:1]
        problem = streams.Problem("several_streams", streams.several(layouts))
    if problem is None and not found:
        problem = streams.Problem("no_samples", "headers and no page with sound")
    if problem is None and len(found) == 1 and found[0].pieces == (range(0, content.size),):
        found = [dataclasses.replace(found[0], pieces=None)]
    return streams.Walk("ogg", tuple(found), problem)


def _walk_pages(
    content: content_lib.Content, start: int, links: list[_Link]
) -> streams.Problem | None:
    """Walks pages as long as they are whole, adding links; why it stopped before the end."""
    stop = tags.start(content, start, content.size, zeros=False)
    position = start
    while position < stop:
        window, place = content.at(position, min(_WINDOW, stop - position)), 0
        while place < len(window):
            page = _page(window, place, position + place)
            if page is None:
                break
            if isinstance(page, streams.Problem):
                if links and not links[-1].is_open and content.is_zero(position + place, stop):
                    return None  # padding
                return page
            problem = _add(page, links)
            if problem:
                return problem
            place += page.num_bytes
        if not place:
            return streams.Problem("truncated", f"in the page at byte {position}")
        position += place
    return None


def _page(window: bytes, at: int, place: int) -> _Page | streams.Problem | None:
    """Reads a page and checks its sum; None where the window ends before it does."""
    head = window[at : at + _HEADER_BYTES]
    if head[:4] != MAGIC[: len(head)]:
        return streams.Problem("damaged", f"no page starts at byte {place}")
    if len(head) < _HEADER_BYTES:
        return None
    lacing = window[at + _HEADER_BYTES : at + _HEADER_BYTES + head[26]]
    num_bytes = _HEADER_BYTES + head[26] + sum(lacing)
    whole = window[at : at + num_bytes]
    if len(lacing) < head[26] or len(whole) < num_bytes:
        return None
    if _summed(whole) != whole:
        return streams.Problem("damaged", f"the page at byte {place} differs from its sum")
    if head[4]:
        return streams.Problem("unsupported", f"Ogg of version {head[4]}")
    fields = [int.from_bytes(head[i:j], "little") for i, j in ((14, 18), (18, 22))]
    granule = int.from_bytes(head[6:14], "little", signed=True)
    split = _HEADER_BYTES + len(lacing)
    return _Page(place, num_bytes, head[5], granule, *fields, whole[:split], whole[split:])


def _summed(page: bytes) -> bytes:
    """A page with its sum."""
    bare = page[:22] + b"\0\0\0\0" + page[26:]
    found = zlib.crc32(bare.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    # As the bytes, so the sum: it lies the other way round.
    return page[:22] + found.to_bytes(4, "big").translate(_REVERSED) + page[26:]


def _add(page: _Page, links: list[_Link]) -> streams.Problem | None:
    """Adds a page to the stream that it goes on with, or begins."""
    link = links[-1] if links else None
    if page.flags & _BEGINS:
        if link and link.is_open:
            if not link.has_sound:
                detail = "several streams at the same time in one file: split it"
                return streams.Problem("several_streams", detail)
            detail = f"another stream begins at byte {page.place} before the first has its end flag"
            return streams.Problem("truncated", detail)
        begun = _begun(page)
        if isinstance(begun, streams.Problem):
            return begun
        link = begun
        links.append(link)
    elif not link or not link.is_open or page.serial != link.serial:
        return streams.Problem("damaged", f"the page at byte {page.place} belongs to no stream")
    elif page.number != (link.number + 1) % 2**32:
        detail = f"page {page.number} at byte {page.place} follows page {link.number}"
        return streams.Problem("damaged", detail)
    link.number, link.stop = page.number, page.place + page.num_bytes
    if link.codec == "flac" and not page.flags & _BEGINS:
        link.bodies.append(range(link.stop - len(page.body), link.stop))
    link.is_open = not page.flags & _ENDS
    if page.granule > 0 or page.granule == 0 and link.has_sound:
        if not link.has_sound:
            link.start = _start(page, link)
        link.has_sound, link.granule = True, page.granule
    return None


def _begun(page: _Page) -> _Link | streams.Problem:
    """The stream that a first page begins, by its first packet."""
    head = page.body

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], "little")

    fields = dict(begin=page.place, serial=page.serial, number=page.number)
    if head[:7] == b"\x01vorbis" and len(head) >= 29:
        most = 1 << (head[28] >> 4) >> 1
        return _Link(**fields, codec="vorbis", layout=(number(12, 4), head[11]), most=most)
    if head[:8] == b"OpusHead" and len(head) >= 19:
        # libsndfile decodes at the lowest rate of Opus that holds what was encoded.
        wanted = number(12, 4)
        rate = next((rate for rate in _OPUS_RATES if rate >= wanted > 0), 48_000)
        fields |= dict(
            codec="opus", layout=(rate, head[9]), skip=number(10, 2), step=48_000 // rate
        )
        if not wanted:  # which is allowed, and taken for the lowest by libsndfile
            body = head[:12] + rate.to_bytes(4, "little") + head[16:]
            fields["head"] = _summed(page.head + body)
        return _Link(**fields)
    if head[:5] == b"\x7fFLAC" and len(head) >= 51:
        packed = int.from_bytes(head[27:35], "big")
        layout = (packed >> 44, (packed >> 41 & 7) + 1)
        return _Link(**fields, codec="flac", layout=layout, head=head[9:])
    name = "".join(chr(byte) if 0x20 < byte < 0x7F else " " for byte in head[:8]).strip()
    return streams.Problem("unsupported", f"Ogg with a stream of {name!r}: convert it to flac")


def _start(page: _Page, link: _Link) -> int | None:
    """The granule at which the first page with sound starts, None where that is not to be known.

    Sound that was cut out of a longer stream keeps the granules that it had there.
    """
    packets, sizes = [], 0
    begin = 0
    for size in page.lacing:
        sizes += size
        if size < 255:
            packets.append(page.body[begin:sizes])
            begin = sizes
    if link.codec == "vorbis":
        return 0 if page.granule <= len(packets) * link.most else None
    if link.codec == "opus" and not page.flags & _ENDS:
        return max(page.granule - sum(_opus_samples(packet) for packet in packets), 0)
    return 0


def _opus_samples(packet: bytes) -> int:
    """Samples at 48 kHz of a packet, by its first bytes."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        samples = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        samples = (480, 960)[config & 1]
    else:
        samples = (120, 240, 480, 960)[config & 3]
    count = (1, 2, 2, packet[1] & 0x3F if len(packet) > 1 else 0)[code]
    return samples * count
