# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Noise in every container that is read, also as pipes, joiners and other writers leave it."""

from collections.abc import Callable
import dataclasses
import io
import struct

import numpy as np
import soundfile


@dataclasses.dataclass(frozen=True)
class Made:
    """A whole file.

    Attributes:
        content: its bytes.
        sound: [samples, channels], float32: exactly what is to come out; None of lossy kinds.
        num_frames: samples per channel that are to come out.
        rate: Hz.
        counts: whether it says how many samples it holds, so that a missing byte must show.
        sums: whether it has sums or numbers of its own, so that a changed byte must show.
        header: bytes at the front that nothing else in the file vouches for.
    """

    content: bytes
    sound: np.ndarray | None
    num_frames: int
    rate: int
    counts: bool = True
    sums: bool = False
    header: int = 0


def noise(rng: np.random.Generator, num_frames: int, channels: int) -> np.ndarray:
    """Noise, in which no stretch comes twice: [samples, channels], float32 on steps of 8 bits."""
    return rng.integers(-100, 100, (num_frames, channels)).astype(np.float32) / 128


def encoded(
    sound: np.ndarray, rate: int, form: str, subtype: str | None = None, **options
) -> bytes:
    """Returns the bytes of a file that libsndfile writes."""
    stream = io.BytesIO()
    with soundfile.SoundFile(
        stream, "w", rate, sound.shape[1], format=form, subtype=subtype, **options
    ) as file:
        for start in range(0, len(sound), 1024):  # libvorbis takes blocks onto its stack
            file.write(sound[start : start + 1024])
    return stream.getvalue()


def _size(rng: np.random.Generator, channels: int = 4) -> tuple[int, int]:
    return int(rng.integers(3_000, 12_000)), int(rng.integers(1, channels + 1))


_RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def _plain(form: str, *subtypes: str, **facts) -> Callable[[np.random.Generator], Made]:
    """Kinds of samples in a row, of which the steps of 8 bits come back exactly, but for laws."""

    def make(rng: np.random.Generator) -> Made:
        num_frames, channels = _size(rng)
        rate, subtype = int(rng.choice(_RATES)), str(rng.choice(subtypes))
        if form == "AIFF":  # libsndfile counts the byte that makes a chunk even
            num_frames += num_frames % 2
        sound = noise(rng, num_frames, channels)
        content = encoded(sound, rate, form, subtype)
        exact = None if "LAW" in subtype else sound
        return Made(content, exact, num_frames, rate, **facts)

    return make


_WAV = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_BIG = ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def _unsized(form: str, subtype: str, sizes: tuple[int, ...], place: bytes, skip: int, code: str):
    """As a pipe leaves it: a size that was never known."""

    def make(rng: np.random.Generator) -> Made:
        num_frames, channels = _size(rng)
        sound = noise(rng, num_frames, channels)
        content = bytearray(encoded(sound, 16_000, form, subtype))
        at = content.index(place) + skip
        content[at : at + struct.calcsize(code)] = struct.pack(code, int(rng.choice(sizes)))
        return Made(bytes(content), sound, num_frames, 16_000, counts=False, header=100)

    return make


def _flac(rng: np.random.Generator) -> Made:
    num_frames, channels = _size(rng, 8)
    sound, rate = noise(rng, num_frames, channels), int(rng.choice(_RATES))
    content = encoded(sound, rate, "FLAC", str(rng.choice(("PCM_S8", "PCM_16", "PCM_24"))))
    return Made(content, sound, num_frames, rate, sums=True)


def with_flac_total(content: bytes, total: int) -> bytes:
    """Returns a FLAC file that says it has that many samples."""
    packed = int.from_bytes(content[18:26], "big") & ~(2**36 - 1) | total
    return content[:18] + packed.to_bytes(8, "big") + content[26:]


def _flac_piped(rng: np.random.Generator) -> Made:
    made = _flac(rng)
    content = with_flac_total(made.content, int(rng.choice((0, 1_000))))
    return dataclasses.replace(made, content=content, counts=False)


def _flac_joined(rng: np.random.Generator) -> Made:
    channels = int(rng.integers(1, 3))
    parts = [noise(rng, _size(rng)[0], channels) for _ in range(2)]
    content = b"".join(encoded(part, 16_000, "FLAC", "PCM_16") for part in parts)
    sound = np.concatenate(parts)
    return Made(content, sound, len(sound), 16_000, counts=False, sums=True)


def _vorbis(rng: np.random.Generator) -> Made:
    num_frames, channels = _size(rng, 2)
    rate = int(rng.choice(_RATES))
    content = encoded(noise(rng, num_frames, channels), rate, "OGG", "VORBIS")
    return Made(content, None, num_frames, rate, sums=True)


def _opus(rng: np.random.Generator) -> Made:
    num_frames, channels = _size(rng, 2)
    rate = int(rng.choice((8_000, 12_000, 16_000, 24_000, 48_000)))
    content = encoded(noise(rng, num_frames, channels), rate, "OGG", "OPUS")
    return Made(content, None, num_frames, rate, sums=True)


def _chained(rng: np.random.Generator) -> Made:
    parts = [_vorbis(np.random.default_rng(seed)) for seed in rng.integers(0, 2**32, 40)]
    same = [part for part in parts if part.rate == parts[0].rate]
    layouts = [ogg_channels(part.content) for part in same]
    same = [part for part, layout in zip(same, layouts) if layout == layouts[0]][:3]
    content = b"".join(part.content for part in same)
    return Made(
        content, None, sum(part.num_frames for part in same), parts[0].rate, counts=False, sums=True
    )


def ogg_channels(content: bytes) -> int:
    """Channels of an Ogg Vorbis file."""
    return content[content.index(b"\x01vorbis") + 11]


def ogg_page(body: bytes, lacing: bytes, flags: int, granule: int, number: int) -> bytes:
    """Returns a page of stream 1 with its sum, written as the format's text has it."""
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, 1, number, 0, len(lacing))
    page, value = bytearray(head + lacing + body), 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", value)
    return bytes(page)


def ogg_packet(packet: bytes, flags: int, granule: int, number: int) -> bytes:
    """Returns a page that holds one packet."""
    lacing = b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,))
    return ogg_page(packet, lacing, flags, granule, number)


def _ogg_flac(rng: np.random.Generator) -> Made:
    num_frames = 4096 * int(rng.integers(1, 3)) + int(rng.integers(100, 4000))
    sound = noise(rng, num_frames, 1)
    native = encoded(sound, 16_000, "FLAC", "PCM_S8")
    frames, place = [], native.index(b"\xff\xf8", 42)
    while place >= 0:  # frames of noise, of 4096 samples: by their numbers, which are below 128
        number = len(frames) + 1
        after = native.find(native[place : place + 2], place + 2)
        while after >= 0 and native[after + 4] != number:
            after = native.find(native[place : place + 2], after + 1)
        frames.append(native[place : after if after >= 0 else len(native)])
        place = after
    pages = [ogg_packet(b"\x7fFLAC\x01\x00\x00\x01" + native[:42], 2, 0, 0)]
    comment = b"\x84" + struct.pack(">I", 8)[1:] + struct.pack("<II", 0, 0)
    pages.append(ogg_packet(comment, 0, 0, 1))
    for index, frame in enumerate(frames):
        is_last = index == len(frames) - 1
        granule = num_frames if is_last else 4096 * (index + 1)
        pages.append(ogg_packet(frame, 4 if is_last else 0, granule, index + 2))
    return Made(b"".join(pages), sound, num_frames, 16_000, sums=True)


def mp3(sound: np.ndarray, rate: int, mode: str = "VARIABLE") -> bytes:
    """Returns an MP3 file of LAME, with its Info frame."""
    return encoded(sound, rate, "MP3", bitrate_mode=mode, compression_level=0.5)


def _mp3_arguments(rng: np.random.Generator) -> tuple[np.ndarray, int, str]:
    num_frames, channels = _size(rng, 2)
    rate, mode = int(rng.choice(_RATES)), str(rng.choice(("VARIABLE", "CONSTANT", "AVERAGE")))
    return noise(rng, num_frames, channels), rate, mode


def _mp3(rng: np.random.Generator) -> Made:
    sound, rate, mode = _mp3_arguments(rng)
    return Made(mp3(sound, rate, mode), None, len(sound), rate)


def without_info(content: bytes) -> bytes:
    """Returns an MP3 file of LAME without its Info frame."""
    header = int.from_bytes(content[:4], "big")
    # The frame behind starts with the same version, layer and rate.
    place = 40
    while int.from_bytes(content[place : place + 4], "big") & 0xFFFE0C00 != header & 0xFFFE0C00:
        place += 1
    return content[place:]


def _mp3_without_info(rng: np.random.Generator) -> Made:
    sound, rate, mode = _mp3_arguments(rng)
    per_frame = 1152 if rate >= 32_000 else 576
    content = mp3(sound, rate, mode)
    # What LAME put before and behind stays; the delay of the decoder itself does not.
    num_frames = lame_count(content) * per_frame - 529
    return Made(without_info(content), None, num_frames, rate, counts=False)


def lame_count(content: bytes) -> int:
    """The frames that an Info frame of LAME counts."""
    place = next(content.find(tag, 0, 64) for tag in (b"Xing", b"Info") if tag in content[:64])
    return int.from_bytes(content[place + 8 : place + 12], "big")


def with_sum_of_ffmpeg(content: bytes) -> bytes:
    """Returns an MP3 file of LAME with its Info frame as ffmpeg writes one, name and sum."""
    at = content.index(b"LAME3")
    content = content[:at] + b"Lavf59.37" + content[at + 9 :]
    place = at + 34
    size = len(content) - len(without_info(content))
    frame = (content[:place] + bytes(2) + content[place + 2 : size]).ljust(190, b"\0")
    value = 0
    for byte in frame[:190]:  # CRC-16, the low bit first
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return content[:place] + value.to_bytes(2, "big") + content[place + 2 :]


def _mp3_as_of_ffmpeg(rng: np.random.Generator) -> Made:
    made = _mp3(rng)
    return dataclasses.replace(made, content=with_sum_of_ffmpeg(made.content))


def _mp3_joined(rng: np.random.Generator) -> Made:
    sound, rate, mode = _mp3_arguments(rng)
    other = noise(rng, _size(rng)[0], sound.shape[1])
    tags = b"TAG" + b"x" * 125, b"ID3\x04\x00\x00\x00\x00\x00\x0a" + b"y" * 10, b""
    between = tags[int(rng.integers(0, 3))]
    content = mp3(sound, rate, mode) + between + mp3(other, rate, mode)
    return Made(content, None, len(sound) + len(other), rate, counts=False)


KINDS = {
    "wav": _plain("WAV", *_WAV),
    "wavex": _plain("WAVEX", *_WAV),
    "rf64": _plain("RF64", *_WAV),
    "w64": _plain("W64", *_WAV),
    "aiff": _plain("AIFF", *_BIG, header=60),
    "au": _plain("AU", *_BIG, header=24),
    "caf": _plain("CAF", *_BIG),
    "sphere": _plain("NIST", "PCM_16", "PCM_24", "PCM_32", header=1024),
    "wav_piped": _unsized("WAV", "PCM_16", (0, 2**32 - 1, 2**31 - 1, 0x7FFFF000), b"data", 4, "<I"),
    "aiff_piped": _unsized("AIFF", "PCM_16", (0, 2**32 - 1, 0x7F000008), b"SSND", 4, ">I"),
    "au_piped": _unsized("AU", "PCM_24", (2**32 - 1,), b".snd", 8, ">I"),
    "caf_piped": _unsized("CAF", "PCM_16", (-1,), b"data", 4, ">q"),
    "flac": _flac,
    "flac_piped": _flac_piped,
    "flac_joined": _flac_joined,
    "vorbis": _vorbis,
    "opus": _opus,
    "ogg_flac": _ogg_flac,
    "ogg_chained": _chained,
    "mp3": _mp3,
    "mp3_of_ffmpeg": _mp3_as_of_ffmpeg,
    "mp3_without_info": _mp3_without_info,
    "mp3_joined": _mp3_joined,
}
