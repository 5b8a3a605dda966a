# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The split: by a hash of the key, by whole values of a label, with copies on one side."""

import collections
import contextlib
import dataclasses
import hashlib
import io

import numpy as np
import pytest

from data_pipelines.building import held_out_values
from data_pipelines.building import split
from data_pipelines.inputs import listing
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals


@dataclasses.dataclass(frozen=True)
class _Bytes:
    """An input of bytes by key; `inside` are labels that it knows on opening, None refuses."""

    contents: dict
    inside: dict = dataclasses.field(default_factory=dict)

    def listed(self, labels=None):
        items = [
            listing.Item(key, len(content), index, labels=(labels or {}).get(key, {}))
            for index, (key, content) in enumerate(sorted(self.contents.items()))
        ]
        return listing.Listing(tuple(items), {}, labels_inside=bool(self.inside))

    def encoded(self, item):
        return io.BytesIO(self.contents[item.key])

    @contextlib.contextmanager
    def opened(self, item):
        if self.inside[item.key] is None:
            raise refusals.Refused("undecodable", "damaged")
        yield audio_files.Sound(16_000, 0, iter(()), labels=self.inside[item.key])


def _split(source, fraction, label="", *, labels=None, together=(), num_workers=0):
    said = []
    holdout = split.Holdout(fraction, label)
    found = dataclasses.replace(source.listed(labels), together={label: tuple(together)})
    divided = split.split(source, found, holdout, num_workers=num_workers, say=said.append)
    parts, remarks = divided.parts, divided.remarks
    return {part: {item.key for item in items} for part, items in parts.items()}, remarks, said


def _of_speakers(sizes: dict[str, int]) -> tuple[_Bytes, dict]:
    keys = [(f"{name}/{take}", name) for name, size in sizes.items() for take in range(size)]
    source = _Bytes({key: key.encode() for key, _ in keys})
    return source, {key: {"speaker": name} for key, name in keys}


def test_sounds_without_copies_go_where_the_hash_of_their_key_says():
    source = _Bytes({f"{index}.wav": b"%03d" % index for index in range(300)})
    parts, remarks, _ = _split(source, 0.2)
    for key in source.contents:
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        assert (key in parts["test"]) == (place < int(0.2 * 2**64))
    assert not remarks


def test_copies_go_where_the_first_of_them_goes():
    contents = {f"{index}.wav": b"%03d" % index for index in range(100)}
    alone, _, _ = _split(_Bytes(contents), 0.3)
    copies = {f"z{key}": content for key, content in contents.items()}
    parts, remarks, _ = _split(_Bytes(contents | copies), 0.3)
    for part, keys in alone.items():
        assert parts[part] == keys | {f"z{key}" for key in keys}
    assert remarks == ("100 sounds are copies, byte by byte: they stay on the side of the first",)


def test_sounds_that_differ_anywhere_are_no_copies():
    # Equal in size and in the middle, where the partial hash looks.
    contents = {f"{place}": bytearray(100_000) for place in range(8)}
    for place, content in enumerate(contents.values()):
        content[place * 1000] = 1
    _, remarks, _ = _split(_Bytes({key: bytes(value) for key, value in contents.items()}), 0.5)
    assert not remarks


def test_only_sounds_of_one_size_are_read(monkeypatch):
    source = _Bytes({f"{index}": b"x" * index for index in range(1, 50)} | {"copy": b"x" * 7})
    read = []
    encoded = _Bytes.encoded
    monkeypatch.setattr(
        _Bytes, "encoded", lambda self, item: read.append(item.key) or encoded(self, item)
    )
    _split(source, 0.5)
    assert set(read) == {"7", "copy"}


def test_whole_values_meet_the_fraction_by_number_of_sounds():
    source, labels = _of_speakers({f"s{index}": 5 + index % 7 for index in range(40)})
    for fraction in (0.05, 0.1, 0.3, 0.5, 0.8):
        parts, remarks, _ = _split(source, fraction, "speaker", labels=labels)
        speakers = {part: {labels[key]["speaker"] for key in keys} for part, keys in parts.items()}
        assert not speakers["train"] & speakers["test"]
        # Half of the largest speaker at most.
        assert abs(len(parts["test"]) - fraction * len(labels)) <= 5.5
        assert remarks[-1] == (
            f"{len(speakers['train'])} values of 'speaker' lie in train, {len(speakers['test'])} "
            f"in test: {len(parts['test'])} of {len(labels)} sounds"
        )


@pytest.mark.parametrize("sizes", [(1, 99), (99, 1), (50, 50), (1, 1)])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_neither_side_is_empty(sizes, fraction):
    source, labels = _of_speakers({"ada": sizes[0], "bob": sizes[1]})
    parts, _, _ = _split(source, fraction, "speaker", labels=labels)
    assert sorted(len(keys) for keys in parts.values()) == sorted(sizes)


def test_a_sound_more_of_a_speaker_moves_nobody():
    source, labels = _of_speakers({f"s{index}": 10 for index in range(30)})
    before, _, _ = _split(source, 0.2, "speaker", labels=labels)
    key = "s3/more"
    more = _Bytes(source.contents | {key: b"more"})
    after, _, _ = _split(more, 0.2, "speaker", labels=labels | {key: {"speaker": "s3"}})
    assert {part: keys - {key} for part, keys in after.items()} == before


def test_sounds_that_may_be_of_one_speaker_stay_together_and_need_none():
    source, labels = _of_speakers({f"s{index}": 4 for index in range(10)})
    unnamed = {f"u/{take}": b"u%d" % take for take in range(3)}
    source = _Bytes(source.contents | unnamed)
    group = ("s1/0", "s2/0", *unnamed)
    for fraction in (0.1, 0.3, 0.5, 0.9):
        parts, _, _ = _split(source, fraction, "speaker", labels=labels, together=[group])
        speakers = {part: {key.partition("/")[0] for key in keys} for part, keys in parts.items()}
        assert not speakers["train"] & speakers["test"]
        assert sum({"s1", "s2", "u"} <= found for found in speakers.values()) == 1
    # Each by itself: they are spread as sounds are.
    alone = [(key,) for key in unnamed]
    parts, _, _ = _split(source, 0.5, "speaker", labels=labels, together=alone)
    assert abs(len(parts["test"]) - 21.5) <= 2.5
    with pytest.raises(ValueError, match="3 of 43 have none, such as u/0"):
        _split(source, 0.5, "speaker", labels=labels)
    with pytest.raises(ValueError, match="2 of 43 have none, such as u/1"):
        _split(source, 0.5, "speaker", labels=labels, together=[("u/0", "s1/0")])


def test_speakers_who_share_a_sound_stay_together():
    source, labels = _of_speakers({f"s{index}": 4 for index in range(10)})
    contents = source.contents | {
        "s1/0": b"shared",
        "s5/3": b"shared",
        "s5/0": b"and",
        "s8/1": b"and",
    }
    parts, _, _ = _split(_Bytes(contents), 0.3, "speaker", labels=labels)
    together = [part for part, keys in parts.items() if keys & {"s1/1", "s5/1", "s8/2"}]
    assert len(together) == 1 and {"s1/1", "s5/1", "s8/2"} <= parts[together[0]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_labels_that_are_known_on_opening_are_asked_for_and_what_is_damaged_has_none(num_workers):
    inside = {f"{index:03d}": {"speaker": f"s{index // 10}"} for index in range(200)}
    inside["007"] = None
    source = _Bytes({key: key.encode() for key in inside}, inside)
    parts, remarks, said = _split(source, 0.25, "speaker", num_workers=num_workers)
    assert said == ["opening 200 sounds for their label 'speaker'"]
    speakers = {
        part: {inside[key]["speaker"] for key in keys if inside[key]}
        for part, keys in parts.items()
    }
    assert not speakers["train"] & speakers["test"]
    assert len(speakers["train"]) + len(speakers["test"]) == 20
    assert "007" in parts["train"]
    assert f"{len(speakers['test'])} in test" in remarks[0]


def _crossed(seed: int, num_sounds: int, num_texts: int) -> listing.Listing:
    """Sounds of twelve voices, a few of them without text, some of two texts, few or many of these."""
    rng = np.random.default_rng(seed)
    items = []
    for index in range(num_sounds):
        # As many say a text as its number is small.
        said = rng.integers(0, rng.integers(1, num_texts + 1), rng.choice((0, 1, 1, 1, 1, 1, 1, 2)))
        texts = tuple(sound_records.Text(f"Text {number}!", "transcript") for number in said)
        voice = rng.integers(12)
        room = 4 * voice + rng.integers(4) if rng.uniform() < 0.9 else rng.integers(48)
        labels = {"voice": f"v{voice}", "room": f"r{room}"}
        items.append(listing.Item(f"{seed}-{index}", 1, index, texts, labels))
    return listing.Listing(tuple(items), {})


def _divided(found, holdout):
    source = _Bytes({item.key: item.key.encode() for item in found.items})
    return split.split(source, found, holdout, num_workers=0, say=print)


def _values_of(items, label):
    return {value for item in items for value in held_out_values.of(label, item.texts, item.labels)}


@pytest.mark.parametrize("by", ["voice,text", "voice, transcript", "voice,transcript,room", "text"])
@pytest.mark.parametrize("seed", range(5))
def test_no_value_of_any_label_is_on_two_sides(by, seed):
    found = _crossed(seed, num_sounds=300, num_texts=200)
    holdout = split.Holdout(0.2, by)
    divided = _divided(found, holdout)
    train, test = divided.parts["train"], divided.parts["test"]
    assert train and test
    for label in holdout.labels:
        assert not _values_of(train, label) & _values_of(test, label)
    kept = {item.key for item in (*train, *test)}
    num_left_out = len(found.items) - len(kept)
    assert len(kept) == len(train) + len(test)
    assert sum(divided.skipped.values()) == num_left_out
    assert bool(divided.skipped) == (len(holdout.labels) > 1)
    # Whoever lacks a text is left out by nothing.
    if by == "voice,text":
        assert {item.key for item in found.items if not item.texts} <= kept


def test_of_several_labels_the_first_meets_the_fraction_and_others_go_with_most_of_their_sounds():
    texts = [("a", "one"), ("a", "two"), ("b", "two"), ("b", "two"), ("b", "three"), ("b", "Two.")]
    texts += [("a", "four"), ("b", "four")]
    items = [
        listing.Item(str(i), 1, i, (sound_records.Text(text, "transcript"),), {"voice": voice})
        for i, (voice, text) in enumerate(texts)
    ]
    found = listing.Listing(tuple(items), {})
    holdout = split.Holdout(0.375, "voice,text")
    divided = _divided(found, holdout)
    parts = {part: [item.key for item in of_part] for part, of_part in divided.parts.items()}
    # As many say four here as there: test, which is small, keeps its own.
    assert parts == {"train": ["2", "3", "4", "5"], "test": ["0", "6"]}
    assert divided.skipped == {"sound on two sides by voice and text": 2}
    assert divided.remarks == (
        "1 values of 'voice' lie in train, 1 in test: 2 of 8 sounds",
        "2 values of 'text' lie in train, 2 in test: 2 of 8 sounds",
    )


def test_a_few_words_that_all_say_cannot_be_held_out_with_voices():
    items = [
        listing.Item(
            f"{voice}{text}", 1, 0, (sound_records.Text(text, "transcript"),), {"voice": voice}
        )
        for voice in "abcdefgh"
        for text in ("yes", "no")
    ]
    found = listing.Listing(tuple(items), {})
    with pytest.raises(ValueError, match="got none for test of 16: what is held out by voice"):
        _divided(found, split.Holdout(0.2, "voice,text"))


def test_each_stratum_has_its_own_fraction():
    items = tuple(
        listing.Item(f"{language}-{index}", 1, index, (), {"voice": f"{language}{index // 2}"})
        for language, count in (("de", 40), ("en", 200), ("it", 4))
        for index in range(count)
    )
    found = listing.Listing(items, {}, stratum=lambda item: item.labels["voice"][:2])
    divided = _divided(found, split.Holdout(0.1, "voice"))
    counts = collections.Counter(item.labels["voice"][:2] for item in divided.parts["test"])
    assert counts == {"de": 4, "en": 20}


def test_what_cannot_be_split_is_said_in_a_sentence():
    source, labels = _of_speakers({"ada": 3, "bob": 2})
    one = {key: {"speaker": "ada"} for key in labels}
    for given, label, message in (
        (one, "speaker", "needs two different values of 'speaker', the input of 5 has one: leave"),
        (labels, "voice", "needs a label 'voice' of every sound, 5 of 5 have none, such as ada/0:"),
        (labels | {"bob/1": {}}, "speaker", "1 of 5 have none, such as bob/1: give it"),
    ):
        with pytest.raises(ValueError, match=f"--holdout.*{message}"):
            _split(source, 0.5, label, labels=given)
    with pytest.raises(ValueError, match="needs two different sounds, the input of 3 has one"):
        _split(_Bytes(dict.fromkeys("abc", b"same")), 0.5)
    shared = _Bytes(source.contents | {"ada/0": b"shared", "bob/0": b"shared"})
    with pytest.raises(
        ValueError, match="of 'speaker', the input of 5 has 2 that share sounds: leave"
    ):
        _split(shared, 0.5, "speaker", labels=labels)
    with pytest.raises(ValueError, match="--holdout_by=speaker needs a fraction"):
        split.Holdout(0.0, "speaker")
    for by in ("speaker,", ",", "voice,voice"):
        with pytest.raises(ValueError, match="must be a label, or different ones with commas"):
            split.Holdout(0.1, by)
    with pytest.raises(ValueError, match="=caption needs sounds with a caption, none of 5 has one"):
        _split(source, 0.5, "speaker,caption", labels=labels)
    with pytest.raises(ValueError, match="--holdout=1.0 must be a fraction"):
        split.Holdout(1.0)
