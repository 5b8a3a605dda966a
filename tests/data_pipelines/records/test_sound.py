# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Records survive the trip to bytes and back, and damaged bytes are refused."""

import json
import struct

import numpy as np
import pytest

from data_pipelines.records import sound as sound_records


def _record(**changes) -> sound_records.Record:
    fields = dict(
        key="a/b.wav#00001",
        waveform=np.arange(-50, 50, dtype=np.int16),
        sample_rate=24_000,
        source="a/b.wav",
        offset=96_000,
        ends=True,
        texts=(
            sound_records.Text("Grüße, 你好", "transcript"),
            sound_records.Text("a bell", "caption"),
        ),
        labels={"speaker": "ada", "language": "de"},
        levels={"peak_db": -1.5, "bandwidth": 8000.0},
    )
    return sound_records.Record(**(fields | changes))


def test_round_trip_keeps_every_field():
    record = sound_records.decode(sound_records.encode(_record()))
    np.testing.assert_array_equal(record.waveform, _record().waveform)
    assert record.waveform.dtype == np.int16 and not record.waveform.flags.writeable
    for name in ("key", "sample_rate", "source", "offset", "ends", "texts", "labels", "levels"):
        assert getattr(record, name) == getattr(_record(), name)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("offset", [0, 7])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"key": '"ends":true', "source": ',"offset":3'},
        {"texts": (sound_records.Text('{"ends":true,"offset":1}', "caption"),)},
        {"labels": {"ends": "true", "offset": "1", '"ends"': ":true"}},
        {"levels": {"ends": 1.0, "offset": 1.0}},
    ],
)
def test_a_clip_is_what_the_whole_record_says(version, ends, offset, changes):
    data = bytearray(sound_records.encode(_record(ends=ends, offset=offset, **changes)))
    data[4:8] = struct.pack("<I", version)
    record, clip = (
        decode(bytes(data)) for decode in (sound_records.decode, sound_records.decode_clip)
    )
    np.testing.assert_array_equal(clip.waveform, record.waveform)
    found = (clip.num_samples, clip.offset, clip.ends)
    assert found == (record.num_samples, record.offset, record.ends)


def test_a_clip_of_a_header_that_is_written_otherwise_is_the_same():
    header = json.dumps({"key": "k", "sample_rate": 8, "num_samples": 4, "ends": True, "offset": 2})
    data = sound_records.MAGIC + struct.pack("<II", 2, len(header)) + header.encode() + bytes(8)
    clip = sound_records.decode_clip(data)
    assert (clip.num_samples, clip.offset, clip.ends) == (4, 2, True)


def test_defaults_are_not_stored_and_come_back():
    plain = sound_records.Record(key="k", waveform=np.ones(1, np.int16), sample_rate=8_000)
    assert not any(name in sound_records.encode(plain) for name in (b"labels", b"levels"))
    assert sound_records.decode(sound_records.encode(plain)).labels == {}


def test_samples_are_aligned_and_labels_have_one_order():
    for length in range(1, 20):
        header_bytes = struct.unpack_from("<4sII", sound_records.encode(_record(key="k" * length)))[
            2
        ]
        assert (12 + header_bytes) % 16 == 0
    data = sound_records.encode(_record())
    assert data == sound_records.encode(_record(labels={"language": "de", "speaker": "ada"}))


def test_names_that_are_not_unicode_survive():
    key = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    assert sound_records.decode(sound_records.encode(_record(key=key))).key == key


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(waveform=np.zeros(4, np.float32)), "int16"),
        (dict(waveform=np.zeros((4, 2), np.int16)), "int16"),
        (dict(waveform=np.zeros(0, np.int16)), "samples"),
        (dict(sample_rate=0), "sample_rate"),
        (dict(offset=-1), "offset"),
        (dict(labels={"speaker": 7}), "labels"),
        (dict(levels={"peak_db": 0}), "levels of .* must be floats"),
        (dict(levels={"peak_db": float("-inf")}), "levels"),
        (dict(texts=(sound_records.Text(b"bytes", "caption"),)), "texts"),
        (dict(texts=(sound_records.Text("words", "speech"),)), "transcript or caption"),
        (dict(texts=(sound_records.Text("x" * 2**20, "caption"),)), "shorten"),
    ],
)
def test_encode_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        sound_records.encode(_record(**changes))


def _with_header(header: bytes, *, claimed: int | None = None, payload=bytes(200)) -> bytes:
    claimed = len(header) if claimed is None else claimed
    return struct.pack("<4sII", b"F3TR", 1, claimed) + header + payload


def _header(**changes) -> bytes:
    fields = {"key": "k", "sample_rate": 8_000, "num_samples": 100}
    return json.dumps(fields | changes).encode()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "at least 12 bytes"),
        (b"RIFF" + bytes(100), "starts with"),
        (b"F3TR" + struct.pack("<II", 9, 0), "version 9"),
        (_with_header(_header(), claimed=2**31), "claims 2147483648 bytes"),
        (_with_header(b"{" * 20), "not JSON"),
        (_with_header(b"[" * 5000), "not JSON"),
        (_with_header(b"[1, 2]"), "JSON object"),
        (_with_header(b"{}"), "'key'"),
        (_with_header(_header(num_samples=2**40)), "samples"),
        (_with_header(_header(num_samples=101)), "101 samples"),
        (_with_header(_header(num_samples="100")), "num_samples"),
        (_with_header(_header(num_samples=True)), "num_samples"),
        (_with_header(_header(labels={"a": 1})), "labels"),
        (_with_header(_header(levels={"a": "1"})), "levels"),
        (_with_header(_header(levels={"a": float("nan")})), "levels"),
        (_with_header(_header(levels=[1.0])), "levels"),
        (_with_header(_header(), payload=b"\0" * 199), "199 bytes"),
    ],
)
def test_decode_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        sound_records.decode(data)


def test_any_damage_is_a_value_error_or_harmless():
    data = sound_records.encode(_record())
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data)
        for place in rng.integers(0, max(len(damaged), 1), 3):
            if damaged:
                damaged[place] = rng.integers(256)
        try:
            sound_records.decode(bytes(damaged))
        except ValueError:
            pass


@pytest.mark.parametrize(
    "task, kind", [("speech", "transcript"), ("music", "caption"), ("caption", "caption")]
)
def test_texts_of_version_1_keep_their_kind(task, kind):
    record = sound_records.decode(_with_header(_header(text="words", task=task)))
    assert record.texts == (sound_records.Text("words", kind),) and not record.ends


def test_a_text_of_version_1_that_answered_nothing_still_answers_nothing():
    assert sound_records.decode(_with_header(_header(text="words", task="poem"))).texts == ()


@pytest.mark.parametrize(
    ("content", "words"),
    (
        ("Don't SHOUT,  please!", "don t shout please"),
        ("Stra\u00dfe, caf\u00e9 cafe\u0301", "strasse caf\u00e9 caf\u00e9"),
        ("\u0915\u093f \u0915\u0940?", "\u0915\u093f \u0915\u0940"),  # Hindi, told apart by vowels
        ("\u0e01\u0e48\u0e32", "\u0e01\u0e48\u0e32"),  # Thai, one word with its tone
        ("... ?!", ""),
    ),
)
def test_the_words_of_a_text_are_what_is_heard(content, words):
    assert sound_records.Text(content, "transcript").words == words
