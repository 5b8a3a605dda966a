# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is no sound that is read: told apart by its first bytes, whatever its name says."""

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import streams
from data_pipelines.records import git_lfs

# Sound or film of other kinds, by what stands at a place.
_UNSUPPORTED = (
    (4, b"ftyp", "MP4 or M4A"),
    (0, bytes.fromhex("3026b2758e66cf11"), "WMA or ASF"),
    (0, bytes.fromhex("1a45dfa3"), "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA", "TTA"),
    (0, b"DSD ", "DSF"),
    (0, b"FRM8", "DSDIFF"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"ajkg", "Shorten"),
    (0, b"\x0bw", "AC-3"),
    (0, b"ADIF", "AAC"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b".RMF", "RealAudio"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"Creative Voice File", "VOC"),
    (0, b" paf", "PAF"),
    (0, b"fap ", "PAF"),
    (0, bytes.fromhex("64a30100"), "IRCAM"),
    (0, bytes.fromhex("0001a364"), "IRCAM"),
    (0, bytes.fromhex("64a30200"), "IRCAM"),
    (0, bytes.fromhex("64a30300"), "IRCAM"),
    (0, b"2BIT", "AVR"),
    (0, b"PVF1", "PVF"),
    (0, b"Extended Instrument:", "XI"),
)
_OTHERS = (
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x89PNG", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"GIF8", "an image"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"MThd", "MIDI"),
)


def walk(content: content_lib.Content, start: int) -> streams.Walk:
    """Says why a file without a known container at `start` is not read."""
    head = content.at(start, 512)
    for place, magic, name in _UNSUPPORTED:
        if head[place : place + len(magic)] == magic:
            return streams.refused(name, "unsupported", f"{name}: convert it to flac")
    for place, magic, name in _OTHERS:
        if head[place : place + len(magic)] == magic:
            return streams.refused(name, "not_sound", f"{name}")
    if git_lfs.starts(head):
        return streams.refused("git_lfs", "git_lfs", "run git lfs pull in its repository")
    if content.is_zero(start, content.size):
        detail = f"{content.size} bytes, all of them zero" if not start else "tags and nothing else"
        return streams.refused("zeros", "not_sound", detail)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return streams.refused("text", "not_sound", "an HTML page")
    if text.startswith((b"<?xml", b"<error")):
        return streams.refused("text", "not_sound", "XML")
    if _is_text(head):
        name = "JSON" if text.startswith((b"{", b"[")) else "text"
        return streams.refused("text", "not_sound", name)
    detail = f"it starts with no known header: {head[:12].hex(' ')}"
    return streams.refused("unknown", "undecodable", detail)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)
