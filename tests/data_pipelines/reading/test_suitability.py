# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sets that cannot teach what is asked are refused when they are opened: figure, key and remedy."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.building import builder
from data_pipelines.reading import arrangement
from data_pipelines.reading import suitability
from data_pipelines.reading import tasks
from data_pipelines.records import sound as sound_records
from tests.support import sounds

_NAMES = {
    "max_lost": "config.data.max_lost",
    "crop_length": "config.data.crop_frames",
    "max_tokens": "config.text.max_tokens",
    "examples": "config.packing.examples",
    "frames": "config.packing.frames",
    "positions": "config.packing.positions",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return sounds.tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Tones of 0.3 s and 0.11 s more each, all with a transcript: shards by the segment's length."""

    def build(segment_length, num_files=8, words="said", kind=sound_records.TRANSCRIPT):
        folder = tmp_path_factory.mktemp("set")
        source = sounds.TextsBesides(
            str(sounds.write_folder(folder / "sounds", num_files=num_files)),
            texts=(sound_records.Text(words, kind),) if words else (),
        )
        conversion = sounds.conversion(segment_length=segment_length)
        builder.build(source, folder / "shards", conversion, say=lambda line: None)
        return str(folder / "shards")

    return build


def _rows(examples=4, frames=0, positions=0, most=(55, 40)):
    """Rows as the stages make them, of latents of 400 samples."""

    def needs(num_frames, num_tokens):
        return {"frames": num_frames, "positions": num_tokens and num_tokens + 2 + num_frames}

    whole = needs(*most)
    room = {"frames": frames or examples * whole["frames"]}
    room["positions"] = positions or examples * whole["positions"]
    return arrangement.Rows(examples=examples, room=room, needs=needs, samples_per_frame=400)


def _open(shards, tokenizer, *, max_tokens=40, max_lost=0.05, weights=None, rows=None, **changes):
    text = tasks.TextTasks(tokenizer, weights or {"transcription": 1.0}, max_tokens)
    options = dict(sample_rate=16_000, crop_length=22_000, batch_size=8, random_crop=False)
    bound = suitability.Bound(max_lost=max_lost, names=_NAMES)
    return sounds.open_pipeline(
        shards, text=text, rows=rows or _rows(), bound=bound, **(options | changes)
    )


def test_what_fits_is_taken_and_nothing_is_lost(build, tokenizer):
    loader = _open(build(32_000), tokenizer)
    for step in range(4):
        loader.local_batch(step)
    sums = loader.covered(0, 4)
    assert sums["texts"] == sums["records"] == 32 and not sums["cut_seconds"]


def test_transcripts_that_were_cut_in_shards_are_named_with_the_segments_that_would_do(
    build, tokenizer
):
    message = (
        r"^75% of the transcripts of .*shards are lost with a part of their sound, more than "
        r"config.data.max_lost=0.05: build the shards with --segment_seconds=2, as sounds of up to "
        r"1.1 s were cut there$"
    )
    cut = build(8_000)
    with pytest.raises(ValueError, match=message):
        _open(cut, tokenizer)
    _open(cut, tokenizer, max_lost=0.75)
    _open(cut, tokenizer, train=False)  # what is held out may lack what is asked
    # Half of the mixture loses 6 transcripts of 15 records and keeps 2, the other none of 8.
    whole = build(32_000)
    with pytest.raises(ValueError, match="^26% of the transcripts of .*, .*shards are lost"):
        _open(f"{cut}=1,{whole}=1", tokenizer)
    _open(f"{cut}=1,{whole}=30", tokenizer)


def test_transcripts_that_a_crop_would_cut_are_named_with_a_crop_that_would_do(build, tokenizer):
    message = (
        r"^50% of the transcripts .*: set config.data.crop_frames=43, as longer records are cut"
    )
    shards = build(32_000)
    with pytest.raises(ValueError, match=message):
        _open(shards, tokenizer, crop_length=28 * 400)
    _open(shards, tokenizer, crop_length=43 * 400)
    _open(shards, tokenizer, crop_length=28 * 400, max_lost=0.5)


def test_captions_need_no_whole_sound(build, tokenizer):
    captions = build(8_000, kind=sound_records.CAPTION)
    _open(captions, tokenizer, weights={"caption": 1.0}, crop_length=4_000)


def test_records_that_never_had_a_text_lose_nothing(build, tokenizer):
    silent, told = build(8_000, num_files=12, words=""), build(32_000)
    _open(f"{silent}=9,{told}=1", tokenizer)


def test_texts_that_are_too_long_are_named_by_their_longest(build, tokenizer):
    brief, long = build(32_000), build(32_000, words="some more is said here")
    message = (
        r"^50% of the texts of .* have more than config.text.max_tokens=24 tokens with their "
        r"instruction and are left out, more than config.data.max_lost=0.05: raise the former; the "
        r"longest, of record '\d_\w+_\d.wav#00000', has 37$"
    )
    with pytest.raises(ValueError, match=message):
        _open(f"{brief}=1,{long}=1", tokenizer, max_tokens=24)
    _open(f"{brief}=1,{long}=1", tokenizer, max_tokens=37)
    _open(f"{brief}=1,{long}=1", tokenizer, max_tokens=24, max_lost=0.5)


@pytest.mark.parametrize("with_text", [True, False])
def test_rows_without_room_are_named_with_room_that_would_do(build, tokenizer, with_text):
    shards, room = build(32_000), dict(frames=60, positions=120)
    weights = {"transcription": 1.0} if with_text else None

    def open_with(**changes):
        rows, text = _rows(**(room | changes)), weights and tasks.TextTasks(tokenizer, weights, 40)
        options = dict(sample_rate=16_000, crop_length=22_000, batch_size=8, random_crop=False)
        bound = suitability.Bound(names=_NAMES)
        sounds.open_pipeline(shards, text=text, rows=rows, bound=bound, **options)

    with pytest.raises(ValueError) as error:
        open_with()
    said = str(error.value)
    assert "rows have no room for" in said and "more than config.data.max_lost=0.05" in said
    assert "with config.packing.examples=4 and config.packing.frames=60" in said
    proposed = [word for word in said.split("; set ")[1].split() if "=" in word]
    settings = dict(word.removeprefix("config.packing.").split("=") for word in proposed)
    settings = {name: int(value) for name, value in settings.items()}
    assert ("positions" in settings) == with_text
    # What is proposed holds, either way.
    open_with(examples=settings.pop("examples"))
    open_with(**settings)


def test_a_row_of_one_example_is_held_to_its_room_too(build):
    shards = build(32_000)

    def open_with(frames):
        rows = _rows(examples=1, frames=frames)
        options = dict(sample_rate=16_000, crop_length=22_000, batch_size=8, random_crop=False)
        return sounds.open_pipeline(shards, rows=rows, bound=suitability.Bound(), **options)

    with pytest.raises(
        ValueError, match=r"rows have no room for \d+% .*; set frames=\d+$"
    ) as error:
        open_with(20)
    named = int(str(error.value).rpartition("=")[2])
    assert open_with(named).fingerprint != open_with(55).fingerprint  # some are still left out
    assert open_with(56).fingerprint == open_with(55).fingerprint  # crops have 55 frames at most


def test_a_batch_of_a_prime_number_of_rows_is_named_where_nothing_can_be_arranged():
    needs = [{"frames": 20 + index, "positions": 0} for index in range(20)]
    sizes = dict(num_samples=12_000, is_whole=True, fits=True, transcript=False, num_tokens=0)
    seen = [suitability._Seen(weight=1.0, key="", lost="", needs=one, **sizes) for one in needs]
    for num_rows, is_prime in ((66, False), (67, True)):
        with pytest.raises(ValueError) as error:
            suitability._check_rows(
                _rows(frames=90), seen, 4 * num_rows, suitability.Bound(), "here"
            )
        remedy = " or a batch whose number of rows, now 67, has divisors"
        assert str(error.value).endswith(remedy) == is_prime


def test_the_estimate_is_that_of_what_is_then_counted(build, tokenizer):
    shards, rows = build(80_000, num_files=40), _rows(frames=340, positions=0, most=(430, 40))
    options = dict(batch_size=40, crop_length=172_000, rows=rows)
    with pytest.raises(ValueError, match="rows have no room") as error:
        _open(shards, tokenizer, max_lost=0.0, **options)
    estimated = int(str(error.value).split("no room for ")[1].split("%")[0]) / 100
    loader = _open(shards, tokenizer, max_lost=1.0, **options)
    for step in range(30):
        loader.local_batch(step)
    sums = loader.covered(0, 30)
    lost = max(sums["left_out_seconds"] / sums["seconds"], sums["left_out_texts"] / sums["records"])
    assert 0.0 < lost == pytest.approx(estimated, abs=0.03)


def test_the_bound_is_a_share():
    bound = dataclasses.replace(suitability.Bound(), max_lost=0.25)
    assert not bound.is_beyond(1, 3) and bound.is_beyond(1.01, 2.99) and not bound.is_beyond(0, 0)
    assert bound.name("frames") == "frames" and np.isclose(bound.max_lost, 0.25)
