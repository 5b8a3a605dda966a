# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a walk through a container answers."""

from collections.abc import Iterable
import dataclasses

Pieces = tuple[bytes | range, ...]  # bytes as they are, and ranges of a file's


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a container is not whole: a reason (see `sound/refusals.py`), one clause for people."""

    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Stream:
    """One stream of sound, as a decoder is to be shown it.

    Attributes:
        num_frames: samples per channel that it holds, None where only the decoder knows.
        pieces: what the decoder reads, one after the other; None for the file as it is.
        layout: sample rate in Hz and channels, None where only the decoder knows.
    """

    num_frames: int | None
    pieces: Pieces | None = None
    layout: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Walk:
    """What a file holds.

    Attributes:
        kind: of container, such as "wav".
        streams: sound that stands whole before the problem, in order.
        problem: what follows the streams, None where the file is whole.
    """

    kind: str
    streams: tuple[Stream, ...] = ()
    problem: Problem | None = None


def refused(kind: str, reason: str, detail: str) -> Walk:
    """A file without any sound to read, and why."""
    return Walk(kind, problem=Problem(reason, detail))


def joined(ranges: Iterable[range]) -> Pieces:
    """Ranges in order, those that touch made one."""
    pieces = []
    for part in ranges:
        if pieces and pieces[-1].stop == part.start:
            pieces[-1] = range(pieces[-1].start, part.stop)
        else:
            pieces.append(part)
    return tuple(pieces)


def patched(whole: range, patches: dict[int, bytes]) -> Pieces:
    """A range of a file in which other bytes stand at some places; place -> bytes."""
    pieces, position = [], whole.start
    for place, content in sorted(patches.items()):
        pieces += [range(position, place), content]
        position = place + len(content)
    return tuple(piece for piece in (*pieces, range(position, whole.stop)) if len(piece))


def several(layouts: Iterable[tuple[int, int]]) -> str:
    """One clause about streams that do not fit together, by their rates in Hz and channels."""
    said = " and ".join(f"{rate} Hz in {channels} channels" for rate, channels in sorted(layouts))
    return f"streams of {said} in one file: split it"
