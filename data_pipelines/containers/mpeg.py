# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""MPEG audio, versions 1, 2 and 2.5 of layers I to III: every frame by its header.

A stream is shown to the decoder as its frames alone, behind an Info frame that counts them right.
"""

from collections.abc import Iterator
import dataclasses

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import streams
from data_pipelines.containers import tags

_HEADER_BYTES = 4
_WINDOW = 2**20  # bytes that are walked together
_RATES = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}
# kbit/s by the header's index from 1 on, for (version 1 or not, layer).
_BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_DECODER_DELAY = 529  # samples that libmpg123 takes off the front besides the encoder's delay


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a frame's four bytes say; `kind` is the same throughout a stream."""

    num_bytes: int
    num_frames: int  # samples per channel
    kind: tuple[int, int, int, int]  # version, layer, Hz, channels
    tag: int  # where an Info tag would start


@dataclasses.dataclass(frozen=True)
class _Info:
    """A Xing, Info or VBRI frame: what it claims, None where it does not say.

    Attributes:
        place: of the frame.
        frame: its bytes.
        tag: where its Xing or Info tag starts in the frame, 0 of VBRI.
        count: frames behind it.
        num_bytes: of it and those frames.
        trim: samples that the encoder put before and behind the sound, 0 where it does not say.
    """

    place: int
    frame: bytes
    tag: int
    count: int | None
    num_bytes: int | None
    trim: tuple[int, int]


@dataclasses.dataclass
class _Run:
    """Frames of one stream."""

    header: _Header
    info: _Info | None
    count: int = 0
    ranges: list[range] = dataclasses.field(default_factory=list)
    claimed_end: int = 0  # of as many frames as the Info frame claims

    @property
    def num_bytes(self) -> int:
        return sum(len(part) for part in self.ranges) + len(self.info.frame if self.info else b"")


def _header(head: bytes) -> _Header | None:
    """Reads a frame's first four bytes; None where they are none, or of free format."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or not 0 < bit_rate < 15 or rate == 3 or head[3] & 3 == 2:
        return None
    kilobits = _BIT_RATES[version == 3, layer][bit_rate - 1]
    hertz, padding = _RATES[version][rate], head[2] >> 1 & 1
    channels = 1 if head[3] >> 6 == 3 else 2
    num_frames = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    if layer == 1:
        num_bytes = (12_000 * kilobits // hertz + padding) * 4
    else:
        num_bytes = num_frames // 8 * 1000 * kilobits // hertz + padding
    tag = 4 + {True: (17, 32), False: (9, 17)}[version == 3][channels - 1]
    return _Header(num_bytes, num_frames, (version, layer, hertz, channels), tag)


def _is_free(head: bytes) -> bool:
    return (
        len(head) == 4 and not head[2] >> 4 and _header(head[:2] + b"\x10" + head[3:]) is not None
    )


def starts(content: content_lib.Content, offset: int) -> bool:
    """Whether MPEG audio starts at a place: two frames, or one up to the end, or of free format."""
    head = content.at(offset, _HEADER_BYTES)
    header = _header(head)
    if header is None:
        return _is_free(head) and any(
            _is_free(content.at(place, _HEADER_BYTES))
            for place in content.find(head[:2], offset + 24, min(offset + 8192, content.size))
        )
    place = offset + header.num_bytes
    following = _header(content.at(place, _HEADER_BYTES))
    if following is None:
        return tags.start(content, min(place, content.size), content.size) <= place
    return following.kind == header.kind


def walk(content: content_lib.Content, whole: range) -> streams.Walk:
    """Walks the frames of a range of a file."""
    position = tags.end(content, whole.start)
    stop = tags.start(content, position, whole.stop, zeros=False)
    runs, problem = [], None
    while position < stop:
        end = _walk_touching(content, range(position, stop), runs)
        position = tags.end(content, end)
        if position >= stop or content.is_zero(position, stop):
            break
        if position == end:
            problem = _problem_at(content, position, stop)
            break
    runs = [part for run in runs for part in _parts(run)]
    kinds = {run.header.kind for run in runs}
    found = [_stream(run, runs, whole) for run in runs if run.count]
    if len(kinds) > 1:
        problem = streams.Problem("several_streams", streams.several({kind[2:] for kind in kinds}))
        found = found[:1]
    if problem is None:
        problem = next((cut for run in runs if (cut := _cut(run))), None)
    if problem is None and not found:
        problem = streams.Problem("no_samples", "no MPEG frame with sound")
    return streams.Walk("mpeg", tuple(found), problem)


def _problem_at(content: content_lib.Content, position: int, stop: int) -> streams.Problem:
    head = content.at(position, _HEADER_BYTES)
    if _is_free(head):
        return streams.Problem("unsupported", "MPEG audio of free format: convert it to flac")
    header = _header(head)
    if header and position + header.num_bytes > stop:
        return streams.Problem("truncated", f"in the frame at byte {position}")
    return streams.Problem("damaged", f"no frame starts at byte {position}")


def _walk_touching(content: content_lib.Content, part: range, runs: list[_Run]) -> int:
    """Walks frames that touch, adding them to the runs; the end of the last."""
    run, begin, end = runs[-1] if runs else None, part.start, part.start
    for place, header, tag in _frames(content, part):
        if tag is not None or run is None or header.kind != run.header.kind:
            if begin < place:
                run.ranges.append(range(begin, place))
            info = _read_info(content, place, header, tag) if tag is not None else None
            run, begin = _Run(header, info), place
            runs.append(run)
        end = place + header.num_bytes
        if tag is not None:
            begin = end
            continue
        run.count += 1
        if run.info and run.count == run.info.count:
            run.claimed_end = end
    if begin < end:
        run.ranges.append(range(begin, end))
    return end


def _frames(content: content_lib.Content, part: range) -> Iterator[tuple[int, _Header, int | None]]:
    """Yields (place, header, place of an Info tag in it or None) of whole frames that touch."""
    headers, position, kind = {}, part.start, None
    while True:
        window, place = content.at(position, min(_WINDOW, part.stop - position)), 0
        while len(head := window[place : place + _HEADER_BYTES]) == _HEADER_BYTES:
            header = headers.get(head)
            if header is None:
                headers[head] = header = _header(head)
                if header is None:
                    return
            end = place + header.num_bytes
            if end > len(window):
                break
            if header.kind != kind:
                # One header that differs is damage; two are another stream.
                next_place = position + end
                following = _header(content.at(next_place, _HEADER_BYTES))
                if kind and (following is None or following.kind != header.kind):
                    return
                kind = header.kind
            tag = None
            if window[place + header.tag : place + header.tag + 4] in (b"Xing", b"Info"):
                tag = header.tag
            elif window[place + 36 : place + 40] == b"VBRI":
                tag = 0
            yield position + place, header, tag
            place = end
        if not place:
            return
        position += place


def _read_info(content: content_lib.Content, place: int, header: _Header, tag: int) -> _Info:
    frame = content.at(place, header.num_bytes)
    if not tag:
        num_bytes, count = (int.from_bytes(frame[at : at + 4], "big") for at in (46, 50))
        return _Info(place, frame, 0, count, num_bytes, (0, 0))
    flags, at = int.from_bytes(frame[tag + 4 : tag + 8], "big"), tag + 8
    values = {}
    for flag, size in ((1, 4), (2, 4), (4, 100), (8, 4)):
        if flags & flag:
            values[flag] = int.from_bytes(frame[at : at + size], "big")
            at += size
    trim = (0, 0)
    if len(frame) >= at + 24 and frame[at]:
        both = int.from_bytes(frame[at + 21 : at + 24], "big")
        trim = (both >> 12, both & 0xFFF)
    return _Info(place, frame, tag, values.get(1), values.get(2), trim)


def _parts(run: _Run) -> list[_Run]:
    """A run, in two where its Info frame is right and frames of another file follow its own."""
    info = run.info
    if not info or not run.claimed_end or run.count == info.count:
        return [run]
    own, others = [], []
    for part in run.ranges:
        middle = min(max(run.claimed_end, part.start), part.stop)
        own += [range(part.start, middle)] if middle > part.start else []
        others += [range(middle, part.stop)] if part.stop > middle else []
    first = _Run(run.header, info, info.count, own, run.claimed_end)
    if first.num_bytes != info.num_bytes:
        return [run]
    return [first, _Run(run.header, None, run.count - info.count, others)]


def _cut(run: _Run) -> streams.Problem | None:
    """Whether frames are missing that the Info frame counts; its bytes tell a lie from a cut."""
    info = run.info
    # Some writers count the Info frame itself.
    if not info or not info.count or run.count >= info.count - 1:
        return None
    if info.num_bytes and run.num_bytes >= info.num_bytes:
        return None
    return streams.Problem("truncated", f"{run.count} of {info.count} frames are there")


def _stream(run: _Run, runs: list[_Run], whole: range) -> streams.Stream:
    """A run as the decoder is to see it: behind an Info frame with the right count."""
    info, header = run.info, run.header
    num_frames, layout = run.count * header.num_frames, header.kind[2:]
    if header.kind[1] != 3:
        return streams.Stream(num_frames, streams.joined(run.ranges), layout)
    delay, padding = info.trim if info and info.count else (0, 0)
    # Where there is an Info frame, the decoder takes off its own delay, out of the padding if any.
    num_frames = max(num_frames - delay - max(padding, _DECODER_DELAY), 0)
    right = info and info.tag and (info.count, info.num_bytes) == (run.count, run.num_bytes)
    if right and len(runs) == len(run.ranges) == 1 and whole.start == 0:
        return streams.Stream(num_frames, None, layout)
    if info and info.tag and info.count:
        frame = bytearray(info.frame)
        flags = int.from_bytes(frame[info.tag + 4 : info.tag + 8], "big")
        frame[info.tag + 8 : info.tag + 12] = run.count.to_bytes(4, "big")
        if flags & 2:
            frame[info.tag + 12 : info.tag + 16] = run.num_bytes.to_bytes(4, "big")
    else:
        frame = _fresh_info(run)
    return streams.Stream(num_frames, (bytes(frame), *streams.joined(run.ranges)), layout)


def _fresh_info(run: _Run) -> bytes:
    """An Info frame that counts the frames of a run and says no more."""
    version, _, hertz, channels = run.header.kind
    rate, mode = _RATES[version].index(hertz), 0xC0 if channels == 1 else 0
    for bit_rate in range(1, 15):
        head = bytes((0xFF, 0xE3 | version << 3, bit_rate << 4 | rate << 2, mode))
        header = _header(head)
        if header.num_bytes >= header.tag + 16:
            break
    num_bytes = header.num_bytes + sum(len(part) for part in run.ranges)
    tag = (
        b"Xing"
        + (3).to_bytes(4, "big")
        + b"".join(value.to_bytes(4, "big") for value in (run.count, min(num_bytes, 2**32 - 1)))
    )
    return (head + b"\0" * (header.tag - 4) + tag).ljust(header.num_bytes, b"\0")
