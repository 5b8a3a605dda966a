# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the columns of a table mean by their names: the file, transcripts, captions, labels."""

import ast
from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import functools
import json
import re

from data_pipelines.records import sound as sound_records

# Which column names the sound, the surest first. Of several, the one whose cells name sounds is it.
_FILES = (
    *("audio_filepath", "audio_file_path", "audio_path", "audio_file", "audio_filename"),
    *("wav_path", "wav_file", "wav_filename", "sound_file", "file_path", "filepath"),
    *("file_name", "filename", "file", "path", "audio", "wav", "sound", "clip", "clip_path"),
    *(
        "fname",
        "slice_file_name",
        "recording",
        "utterance_id",
        "utt_id",
        "utterance",
        "utt",
        "youtube_id",
        "ytid",
    ),
    *("audio_id", "clip_id", "segment_id", "uid", "id", "key", "name"),
)
_NEUTRAL = ("text", "sentence")  # what is said, unless a kind says that it is a caption
_SPEECH = (*_NEUTRAL, "transcript", "transcription")
_MARKS = {"normalized": 1, "normalised": 1, "raw": 3, "original": 3}  # 2 is between them
_RANKS = {name: 2 for name in _SPEECH} | {"normalized": 1, "normalised": 1}
_RANKS |= {f"{mark}_{name}": rank for mark, rank in _MARKS.items() for name in _SPEECH}
_RANKS |= {f"{name}_{mark}": rank for mark, rank in _MARKS.items() for name in _SPEECH}
_CAPTION = re.compile(r"(audio_|sound_|music_)?(captions?|descriptions?|text_description)(_\d+)?")
_KINDS = ("kind", "text_kind", "text_type", "task")
_KIND_OF = dict.fromkeys(
    ("transcript", "transcription", "transcribe", "speech", "asr", "tts"), sound_records.TRANSCRIPT
) | dict.fromkeys(
    ("caption", "captions", "captioning", "music", "events", "sound", "audio"),
    sound_records.CAPTION,
)
_LEFT_OUT = ("", "_")
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LISTED = re.compile(rf"\[\s*{_STRING}(?:\s*,\s*{_STRING})*\s*\]", re.DOTALL).fullmatch


@dataclasses.dataclass(frozen=True)
class _Roles:
    """Names of columns by what they hold; those of speech by how near they are to what is said.

    `neutral` are those of texts that may be of either kind.
    """

    speech: tuple[tuple[str, ...], ...]
    captions: tuple[str, ...]
    kind: str
    labels: tuple[str, ...]
    neutral: tuple[str, ...]


def files(names: Sequence[str]) -> tuple[str, ...]:
    """Those of a table's columns that may name its sounds, the surest first."""
    plain = {_plain(name): name for name in reversed(names)}
    return tuple(plain[name] for name in _FILES if name in plain)


def is_header(names: Sequence[str]) -> bool:
    """Whether cells are names of columns: that of the file, and one of texts or of their kind."""
    known = any(is_text(name) or _plain(name) in _KINDS for name in names)
    return known and bool(files(names))


def is_text(name: str) -> bool:
    """Whether a column of that name holds transcripts or captions."""
    plain = _plain(name)
    return plain in _RANKS or bool(_CAPTION.fullmatch(plain))


def texts_and_labels(
    fields: Mapping[str, object], *, text_kind: str = "", where: str = "the row"
) -> tuple[tuple[sound_records.Text, ...], dict[str, str]]:
    """Returns the texts and labels in one row of a table, without the column of its file.

    Args:
        fields: name of a column -> its value: words, numbers or, for texts, a list of words.
        text_kind: of the texts whose column does not say it; "" for transcripts.
        where: of the row, for messages.

    Returns:
        Texts without the white space around them, and labels; what is empty is left out, as are
        the columns "" and "_" and labels that are neither words nor numbers.

    Raises:
        ValueError: if a kind is unknown, a text is none, or there are two of what is said.
    """
    roles = _roles(tuple(fields))
    said = _kind(fields[roles.kind], roles.kind, where) if roles.kind else ""
    texts = []
    name, spoken = _spoken(fields, roles, where)
    captions = [text for name in roles.captions for text in _all_words(fields[name], name, where)]
    if spoken:
        fixed = "" if name in roles.neutral else sound_records.TRANSCRIPT
        if fixed and said and said != fixed:
            raise ValueError(f"{where} has a {name} and says that it is a {said}")
        # The same words in a column of captions say what they are, too.
        told = "" if set(spoken) - set(captions) else sound_records.CAPTION
        kind = said or fixed or text_kind or told or sound_records.TRANSCRIPT
        if kind == sound_records.TRANSCRIPT and len(spoken) > 1:
            raise ValueError(
                f"{where} must have one transcript in its column {name}, got {len(spoken)} texts: "
                "if they are captions, say --text_kind=caption"
            )
        texts = [sound_records.Text(words, kind) for words in spoken]
    elif captions and said == sound_records.TRANSCRIPT:
        raise ValueError(f"{where} has a {roles.captions[0]} and says that it is a {said}")
    texts += [sound_records.Text(text, sound_records.CAPTION) for text in captions]
    labels = {name.strip(): _words(fields[name], name, where) for name in roles.labels}
    return tuple(dict.fromkeys(texts)), {name: value for name, value in labels.items() if value}


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().casefold())


@functools.lru_cache(maxsize=256)
def _roles(names: tuple[str, ...]) -> _Roles:
    names = [name for name in names if name.strip() not in _LEFT_OUT]
    speech = tuple(
        tuple(name for name in names if _RANKS.get(_plain(name)) == rank) for rank in (1, 2, 3)
    )
    captions = tuple(name for name in names if _CAPTION.fullmatch(_plain(name)))
    texts = {*captions, *(name for group in speech for name in group)}
    by_name = {_plain(name): name for name in reversed(names)}
    kind = next((by_name[name] for name in _KINDS if name in by_name), "") if texts else ""
    labels = tuple(name for name in names if name not in texts and name != kind)
    neutral = tuple(name for name in texts if set(_NEUTRAL) & set(_plain(name).split("_")))
    return _Roles(speech, captions, kind, labels, neutral)


def _spoken(fields: Mapping[str, object], roles: _Roles, where: str) -> tuple[str, tuple[str, ...]]:
    """The column of what is said, and its words: the normalised ones where there are any."""
    for group in roles.speech:
        found = {name: tuple(_all_words(fields[name], name, where)) for name in group}
        found = {name: texts for name, texts in found.items() if texts}
        if len(set(found.values())) > 1:
            raise ValueError(
                f"{where} says different words in {' and '.join(found)}: choose one and leave the "
                "others out, as _ in --metadata_columns"
            )
        if found:
            return next(iter(found.items()))
    return "", ()


def _kind(value: object, name: str, where: str) -> str:
    words = _words(value, name, where)
    if words and words.casefold() not in _KIND_OF:
        kinds = " or ".join(sound_records.TEXT_KINDS)
        raise ValueError(
            f"{where} must have {kinds} in its column {name}, got {words!r}: mend it, or call the "
            "column otherwise in --metadata_columns if it is not about the text"
        )
    return _KIND_OF.get(words.casefold(), "")


def _all_words(value: object, name: str, where: str) -> list[str]:
    """One or several texts, of a list or of one as CSV holds it, in brackets."""
    if isinstance(value, str) and _LISTED(value.strip()):
        value = _from_list(value.strip())
    values = value if isinstance(value, (list, tuple)) else (value,)
    for value in values:
        if isinstance(value, (dict, list, tuple)):
            raise ValueError(f"{where} must have text in its column {name}, got {str(value)[:40]}")
    return [words for value in values if (words := _words(value, name, where))]


def _from_list(value: str) -> list[str] | str:
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return read(value)
    return value


def _words(value: object, name: str, where: str) -> str:
    if type(value) is str and value.isascii() and "\0" not in value:
        return value.strip()
    if value is None or isinstance(value, (dict, list, tuple)) or value != value:
        return ""
    if isinstance(value, bytes):
        value = _decoded(value, name, where)
    if not isinstance(value, str):
        value = json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)
    words = value.strip()
    # Half of a character of two, as JSON can write it, is no text.
    if "\0" in words or not words.isascii() and any("\ud800" <= mark <= "\udfff" for mark in words):
        raise ValueError(f"{where} must have text in its column {name}, got {words[:40]!r}")
    return words


def _decoded(value: bytes, name: str, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"{where} must have UTF-8 in its column {name}, got {value[:40]!r}"
        ) from None
