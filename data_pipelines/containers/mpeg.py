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
_WINDOW = 2**17  # bytes that are walked together
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
_WRITERS = (b"LAME3", b"Lavc5", b"Lavc6", b"Lavf5", b"Lavf6")
_FFMPEG_SUMMED = 190  # bytes
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
        summed: bytes of the frame that its own sum covers, 0 where it has none.
        is_sorted: whether its table of places to seek goes forward, as far as it has one, and
            nothing stands before the tag.
    """

    place: int
    frame: bytes
    tag: int
    count: int | None
    num_bytes: int | None
    trim: tuple[int, int]
    summed: int = 0
    is_sorted: bool = True

    def with_counts(self, count: int, num_bytes: int | None) -> bytes:
        """The frame with other counts in the fields that it has."""
        frame, at = bytearray(self.frame), self.tag + 8
        for value, there in ((count, self.count), (num_bytes, self.num_bytes)):
            if there is not None:
                frame[at : at + 4] = min(there if value is None else value, 2**32 - 1).to_bytes(
                    4, "big"
                )
                at += 4
        return bytes(frame)


@dataclasses.dataclass
class _Run:
    """Frames of one stream."""

    header: _Header
    info: _Info | None
    count: int = 0
    ranges: list[range] = dataclasses.field(default_factory=list)

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
            problem = _problem_at(content, position, stop, is_first=not runs)
            break
    kinds = {run.header.kind for run in runs}
    found = [_stream(run, runs, whole) for run in runs if run.count]
    if len(kinds) > 1:
        problem = streams.Problem("several_streams", streams.several({kind[2:] for kind in kinds}))
        found = found[:1]
    if problem is None:
        problem = next((wrong for run in runs if (wrong := _problem_of(run, content))), None)
    if problem is None and not found:
        problem = streams.Problem("no_samples", "no MPEG frame with sound")
    return streams.Walk("mpeg", tuple(found), problem)


def _problem_at(
    content: content_lib.Content, position: int, stop: int, *, is_first: bool
) -> streams.Problem:
    head = content.at(position, _HEADER_BYTES)
    if is_first and _is_free(head):
        return streams.Problem("unsupported", "MPEG audio of free format: convert it to flac")
    header = _header(head)
    is_cut = position + (header.num_bytes if header else _HEADER_BYTES) > stop
    if is_cut and (header or head[:1] == b"\xff"):
        return streams.Problem("truncated", f"in the frame at byte {position}")
    return streams.Problem("damaged", f"no frame starts at byte {position}")


def _walk_touching(content: content_lib.Content, part: range, runs: list[_Run]) -> int:
    """Walks frames that touch, adding them to the runs; the end of the last."""
    end = part.start
    for stretch, header, count, tag in _stretches(content, part):
        if tag is not None or not runs or header.kind != runs[-1].header.kind:
            info = _read_info(content, stretch, tag) if tag is not None else None
            runs.append(_Run(header, info))
        if tag is None:
            runs[-1].count += count
            runs[-1].ranges.append(stretch)
        end = stretch.stop
    return end


def _stretches(
    content: content_lib.Content, part: range
) -> Iterator[tuple[range, _Header, int, int | None]]:
    """Yields (place, header, count, None) of whole frames that touch and are of one kind.

    A frame with an Info tag comes by itself, with the place of the tag in it.
    """
    sizes, header, position = {}, None, part.start
    while True:
        window = content.at(position, min(_WINDOW, part.stop - position))
        tagged = _tagged(window)
        place = begin = count = 0
        is_over = False
        while True:  # a turn for each frame: 38 a second
            head = window[place : place + _HEADER_BYTES]
            size = sizes.get(head)
            if size is None:
                found = _header(head)
                is_over = found is None
                if is_over:
                    break
                if header is None or found.kind != header.kind:
                    # One header that differs is damage; two are another stream.
                    after = content.at(position + place + found.num_bytes, _HEADER_BYTES)
                    following = _header(after)
                    is_over = header and (following is None or following.kind != found.kind)
                    if is_over:
                        break
                    if count:
                        yield range(position + begin, position + place), header, count, None
                    sizes, header, begin, count = {}, found, place, 0
                sizes[head] = size = found.num_bytes
            end = place + size
            if end > len(window):
                break
            if place in tagged:
                if count:
                    yield range(position + begin, position + place), header, count, None
                yield range(position + place, position + end), header, 0, tagged[place]
                begin, count = end, 0
            else:
                count += 1
            place = end
        if count:
            yield range(position + begin, position + place), header, count, None
        if is_over or not place:
            return
        position += place


def _tagged(window: bytes) -> dict[int, int]:
    """Places of frames with an Info tag to the place of the tag in them, 0 of VBRI."""
    found = {}
    for name in (b"Xing", b"Info", b"VBRI"):
        at = window.find(name)
        while at >= 0:
            for tag in (36,) if name == b"VBRI" else (13, 21, 36):
                header = _header(window[at - tag : at - tag + 4]) if at >= tag else None
                if header and name == b"VBRI":
                    found[at - tag] = 0
                elif header and header.tag == tag:
                    found[at - tag] = tag
            at = window.find(name, at + 4)
    return found


def _read_info(content: content_lib.Content, part: range, tag: int) -> _Info:
    place, frame = part.start, content.at(part.start, len(part))
    if not tag:
        num_bytes, count = (int.from_bytes(frame[at : at + 4], "big") for at in (46, 50))
        return _Info(place, frame, 0, count, num_bytes, (0, 0))
    flags, at = int.from_bytes(frame[tag + 4 : tag + 8], "big"), tag + 8
    has_sum = not frame[1] & 1  # of the header and what should be zero, behind it
    values, is_sorted = {}, not any(frame[6 if has_sum else 4 : tag])
    for flag, size in ((1, 4), (2, 4), (4, 100), (8, 4)):
        if flags & flag:
            is_sorted &= flag != 4 or list(frame[at : at + size]) == sorted(frame[at : at + size])
            values[flag] = int.from_bytes(frame[at : at + size], "big")
            at += size
    trim, summed = (0, 0), 0
    ours = frame[at : at + 36]  # what LAME and those who follow it add
    if len(ours) == 36 and any(ours):
        both = int.from_bytes(ours[21:24], "big")
        trim = (both >> 12, both & 0xFFF)
        # LAME had no sum before 3.90, and writers who follow it may leave it out.
        summed = at + 34 if any(ours[34:]) and not ours.startswith(b"LAME3.8") else 0
    return _Info(place, frame, tag, values.get(1), values.get(2), trim, summed, is_sorted)


def _sum_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


_SUM_TABLE = tuple(map(_sum_of, range(256)))


def _sum(content: bytes) -> int:
    value = 0
    for byte in content:
        value = value >> 8 ^ _SUM_TABLE[(value ^ byte) & 0xFF]
    return value


def _is_true(frame: bytes, summed: int) -> bool:
    """Whether an Info frame has its sum, a CRC-16, or none.

    ffmpeg sums 190 bytes of a frame of any size, with zeros where the frame ends and the sum goes.
    """
    without = frame[:summed] + bytes(2) + frame[summed + 2 :]
    wanted = int.from_bytes(frame[summed : summed + 2], "big")
    return not summed or wanted in (
        _sum(frame[:summed]),
        _sum(without.ljust(_FFMPEG_SUMMED, b"\0")[:_FFMPEG_SUMMED]),
    )


def _problem_of(run: _Run, content: content_lib.Content) -> streams.Problem | None:
    """Whether the Info frame lies, or counts frames that are missing: its bytes tell that from a lie."""
    info = run.info
    if not info and run.ranges:
        # A writer's name stands 120 bytes behind the start of a tag, and the tag is gone.
        place = run.ranges[0].start
        if content.at(place + run.header.tag + 120, 5) in _WRITERS:
            return streams.Problem("damaged", f"the Info frame at byte {place} has lost its tag")
    if info and not info.is_sorted:
        return streams.Problem("damaged", f"the Info frame at byte {info.place} has no order")
    if info and not any(
        _is_true(info.with_counts(*counts), info.summed)
        for counts in (
            (info.count or 0, info.num_bytes),
            (run.count, info.num_bytes),
            (run.count, run.num_bytes),
        )
    ):
        return streams.Problem(
            "damaged", f"the Info frame at byte {info.place} differs from its sum"
        )
    if not info or not info.count or run.count == info.count:
        return None
    if run.count > info.count:
        if info.num_bytes and run.num_bytes > info.num_bytes:
            extra = f"{run.count - info.count} frames behind the {info.count} that its Info frame"
            return streams.Problem("damaged", f"{extra} counts")
        return None
    # Some writers count the Info frame itself, but then no bytes are missing.
    is_there = run.num_bytes >= info.num_bytes if info.num_bytes else run.count == info.count - 1
    if is_there:
        return None
    return streams.Problem("truncated", f"{run.count} of {info.count} frames are there")


def _stream(run: _Run, runs: list[_Run], whole: range) -> streams.Stream:
    """A run as the decoder is to see it: behind an Info frame with the right count."""
    info, header = run.info, run.header
    num_frames, layout = run.count * header.num_frames, header.kind[2:]
    if header.kind[1] != 3:
        return streams.Stream(num_frames, _long_enough(run), layout)
    delay, padding = info.trim if info and info.count else (0, 0)
    # Where there is an Info frame, the decoder takes off its own delay, out of the padding if any.
    num_frames = max(num_frames - delay - max(padding, _DECODER_DELAY), 0)
    right = info and info.tag and (info.count, info.num_bytes) == (run.count, run.num_bytes)
    if right and len(runs) == len(streams.joined(run.ranges)) == 1 and whole.start == 0:
        return streams.Stream(num_frames, None, layout)
    if info and info.tag and info.count:
        frame = info.with_counts(run.count, run.num_bytes)
    else:
        frame = _fresh_info(run)
    return streams.Stream(num_frames, (frame, *streams.joined(run.ranges)), layout)


def _long_enough(run: _Run) -> streams.Pieces:
    """Frames of layers I and II, which have no Info frame, and a tag behind them if need be.

    The decoder divides the size by that of the first frame, and stops at what it makes of it.
    """
    pieces = streams.joined(run.ranges)
    missing = (run.count + 1) * run.header.num_bytes - sum(map(len, pieces))
    if missing <= run.header.num_bytes:
        return pieces
    size = bytes(missing >> shift & 0x7F for shift in (21, 14, 7, 0))
    return (*pieces, b"ID3\4\0\0" + size + bytes(missing))


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
