# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches with text, and batches of latents: the same examples as those of the sound."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.building import builder
from data_pipelines.building import latent_writer
from data_pipelines.building import plan as build_plan
from data_pipelines.reading import sources
from data_pipelines.reading import suitability
from data_pipelines.reading import tasks
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from tests.support import seals
from tests.support import sounds

_HOP, _DIM = 400, 3  # samples per latent, and their width
_LATENTS = manifest.Latents("abc", _DIM, _HOP, "")


def _with_gains(waveforms):
    """Latents, and gains of 1, 2, ..."""
    return _encode(waveforms), [1.0 + index for index in range(len(waveforms))]


def _encode(waveforms):
    """Sums of powers of the samples of each hop: any function that is causal will do."""
    padded = [np.pad(w, (0, -len(w) % _HOP)).reshape(-1, _HOP) for w in waveforms]
    return [
        np.stack([(w**power).sum(1) for power in (1, 2, 3)], -1).astype(np.float32) for w in padded
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_plan, "_MIN_SHARD_BYTES", 80_000)  # several shards
        return sounds.labelled_set(tmp_path_factory.mktemp("labelled"), num_files=12)


@pytest.fixture(scope="module")
def latents(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("latents")
    sound = sources.ShardSet(shards)
    latent_writer.build(sound, folder, _with_gains, latents=_LATENTS, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return sounds.tokenizer(tmp_path_factory.mktemp("tokenizer"))


def _text(tokenizer, max_tokens=40, **weights):
    return tasks.TextTasks(tokenizer, weights or {"transcription": 1.0, "digit": 1.0}, max_tokens)


def _pipeline(mixture, **changes):
    # Most transcripts of these sets are cut.
    options = dict(sample_rate=16_000, crop_length=12_000, batch_size=8, seed=3, random_crop=False)
    options["bound"] = suitability.Bound(max_lost=1.0)
    return sounds.open_pipeline(mixture, **(options | changes))


def _of_all_hosts(mixture, step, num_hosts, **changes):
    parts = [
        _pipeline(mixture, process_index=i, process_count=num_hosts, **changes).local_batch(step)
        for i in range(num_hosts)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_every_row_has_the_text_of_its_own_record(shards, tokenizer):
    text = _text(tokenizer)
    loader = _pipeline(shards, text=text)
    spec = loader.batch_spec
    assert {name: shape for name, (shape, _) in spec.items()} == {
        "waveform": (8, 12_000),
        "mask": (8, 12_000),
        "begins": (8,),
        "ends": (8,),
        "text": (8, 40),
        "answer": (8, 40),
        "text_mask": (8, 40),
    }
    source = sources.ShardSet(shards)
    by_key = {record.key: record for record in (source[i] for i in range(len(source)))}
    seen = set()
    for step in range(6):
        batch = loader.local_batch(step)
        assert batch.keys() == spec.keys()
        for name, (shape, dtype) in spec.items():
            assert batch[name].shape == shape and batch[name].dtype == dtype
        for row, key in enumerate(loader.example_keys(step)):
            record = by_key[key]
            count = batch["mask"][row].sum()
            assert count == min(record.waveform.size, 12_000)
            np.testing.assert_array_equal(
                batch["waveform"][row, :count], record.waveform[:count] / np.float32(32768)
            )
            said = text.decode(batch["text"][row][batch["text_mask"][row]])
            name, _, answer = said.partition(":")
            seen.add(name)
            if name == "digit":
                assert (answer.strip(),) == tasks.find("digit").answers(record, is_whole=True)
            else:
                assert name == "what is said" and answer.strip() == record.texts[0].content
                assert "#00000" in key and record.waveform.size <= 12_000
    assert seen == {"digit", "what is said"}


def test_which_task_comes_is_a_function_of_seed_and_step(shards, tokenizer):
    def texts(step, **changes):
        return _pipeline(shards, text=_text(tokenizer), **changes).local_batch(step)["text"]

    np.testing.assert_array_equal(texts(4), texts(4))
    np.testing.assert_array_equal(
        texts(4, train=False),
        _pipeline(shards, text=_text(tokenizer), train=False).local_batch(4)["text"],
    )
    whole = _of_all_hosts(shards, 4, 1, text=_text(tokenizer))
    for num_hosts in (2, 4):
        parts = _of_all_hosts(shards, 4, num_hosts, text=_text(tokenizer))
        for name, array in whole.items():
            np.testing.assert_array_equal(parts[name], array)


def test_text_changes_neither_order_nor_sound(shards, tokenizer):
    with_text, without = _pipeline(shards, text=_text(tokenizer)), _pipeline(shards)
    np.testing.assert_array_equal(
        with_text.local_batch(2)["waveform"], without.local_batch(2)["waveform"]
    )
    prints = [
        with_text.fingerprint,
        without.fingerprint,
        _pipeline(shards, random_crop=True).fingerprint,
        _pipeline(shards, text=_text(tokenizer, 41)).fingerprint,
    ]
    assert len(set(prints)) == 4


def test_what_is_cut_or_unasked_goes_without_text_and_is_counted(shards, tokenizer):
    loader = _pipeline(shards, text=_text(tokenizer, transcription=1.0))
    made = [loader.local_batch(step) for step in range(6)]
    has_text = [batch["text_mask"].any(1) for batch in made]
    sums = loader.covered(0, 6)
    assert sums["cut"] + sums["no_text"] == np.size(has_text) - np.sum(has_text) > 0
    assert sums["cut"] > 0 and sums["no_text"] > 0 and not sums.get("too_long")
    assert sums["records"] == 48 and sums["texts"] == np.sum(has_text)
    assert sums["kept_tokens"] == sum(batch["answer"].sum() for batch in made)
    assert sums["used/sound"] == sum(batch["mask"].sum() for batch in made)
    assert sums["room/sound"] == 48 * 12_000
    assert sums["seconds"] - sums["cut_seconds"] == pytest.approx(sums["used/sound"] / 16_000)
    # Those that were asked for last, whatever is made ahead or again; then they are forgotten.
    loader.local_batch(5)
    assert loader.covered(0, 6) == sums and loader.covered(6, 9) == {}


def test_shards_without_what_is_asked_are_refused_when_opened(shards, tmp_path, tokenizer):
    with pytest.raises(ValueError, match="task 'instrument' needs records with the label instrum"):
        _pipeline(shards, text=_text(tokenizer, instrument=1.0, digit=1.0))
    silent = sounds.labelled_set(tmp_path, num_files=8, texts=False)
    with pytest.raises(ValueError, match="task 'transcription' needs records with a transcript"):
        _pipeline(silent, text=_text(tokenizer))
    _pipeline(f"{shards}=1,{silent}=1", text=_text(tokenizer))


def test_text_needs_whole_records(shards, tokenizer):
    with pytest.raises(ValueError, match="give random_crop=False with text"):
        _pipeline(shards, text=_text(tokenizer), random_crop=True)


def test_batches_of_latents_are_those_of_the_same_sound(shards, latents, tokenizer):
    sound = _pipeline(shards, text=_text(tokenizer))
    cached = _pipeline(latents, text=_text(tokenizer), autoencoder="abc")
    assert cached.batch_spec["latents"] == ((8, 30, _DIM), np.dtype(np.float32))
    for step in range(4):
        live, stored = sound.local_batch(step), cached.local_batch(step)
        assert stored.keys() == cached.batch_spec.keys()
        assert sound.example_keys(step) == cached.example_keys(step)
        expected = np.stack(_encode(live["waveform"]))
        frames = live["mask"].reshape(8, 30, _HOP).any(-1)
        np.testing.assert_array_equal(stored["mask"], frames)
        np.testing.assert_allclose(stored["latents"][frames], expected[frames], rtol=1e-6)
        assert not stored["latents"][~frames].any()
        for name in ("text", "answer", "text_mask"):
            np.testing.assert_array_equal(live[name], stored[name])
    assert sound.covered(0, 4) == cached.covered(0, 4) != {}
    plain = _pipeline(latents)
    np.testing.assert_array_equal(plain.local_batch(1)["latents"], cached.local_batch(1)["latents"])
    short = _pipeline(latents, crop_length=5 * _HOP)
    np.testing.assert_array_equal(
        short.local_batch(1)["latents"], plain.local_batch(1)["latents"][:, :5]
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(autoencoder="other"), "were made by autoencoder abc, the run uses other"),
        (dict(random_crop=True), "latents cannot be cropped at random"),
        (dict(gain_db=(-6.0, 6.0)), "or made louder"),
        (dict(crop_length=8_100), "crop_length=8100 must be a multiple of the 400 samples"),
        (dict(sample_rate=24_000), "16000 Hz, the model needs 24000 Hz"),
    ],
)
def test_latents_that_do_not_fit_are_refused(changes, message, latents):
    with pytest.raises(ValueError, match=message):
        _pipeline(latents, **changes)


def test_sound_and_latents_do_not_mix(shards, latents):
    with pytest.raises(ValueError, match="a mixture is of sound or of latents"):
        _pipeline(f"{shards}=1,{latents}=1")
    with pytest.raises(ValueError, match="hold latents, and sound is needed"):
        sources.ShardSet(latents)
    with pytest.raises(ValueError, match="hold sound, and latents are needed"):
        sources.LatentSet(shards)


def test_a_set_of_latents_is_built_once_and_continued(shards, tmp_path):
    sound, said, calls = sources.ShardSet(shards), [], []
    first = dataclasses.replace(_LATENTS, autoencoder="x")
    num_shards = len(sound.manifest.shards)
    assert num_shards > 2

    def encode(waveforms):
        calls.append(len(waveforms))
        return _with_gains(waveforms)

    def fails_later(waveforms):
        if calls:
            raise KeyboardInterrupt
        return encode(waveforms)

    with pytest.raises(KeyboardInterrupt):
        latent_writer.build(sound, tmp_path, fails_later, latents=first, say=said.append)
    with pytest.raises(ValueError, match="not a finished shard set"):
        manifest.read(tmp_path)
    content = latent_writer.build(sound, tmp_path, encode, latents=first, say=said.append)
    assert len(calls) == num_shards and sum(calls) == len(sound) == content.num_records
    assert content.latents.sound == sound.fingerprint
    written = sources.LatentSet(tmp_path)
    gains = [1.0 + index for count in calls for index in range(count)]
    np.testing.assert_allclose([one.gain for one in written], gains, rtol=1e-12)
    assert content.num_texts == sound.manifest.num_texts > 0
    assert manifest.read(tmp_path) == content
    found = sources.LatentSet(tmp_path, checksums=True)
    assert [found[i].key for i in range(len(found))] == [sound[i].key for i in range(len(sound))]
    again = latent_writer.build(sound, tmp_path, fails_later, latents=first, say=said.append)
    assert again == content and "already encoded" in said[-1]
    with pytest.raises(ValueError, match="holds another build: autoencoder is 'x' there"):
        latent_writer.build(sound, tmp_path, encode, latents=_LATENTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "refusals.jsonl",
        *(shard.name for shard in content.shards),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("autoencoder"),
        lambda fields: fields.update(autoencoder=7),
        lambda fields: fields.update(latent_dim=0),
        lambda fields: fields.update(samples_per_latent="400"),
        lambda fields: fields.update(more=1),
    ],
)
def test_manifests_that_do_not_say_whose_latents_are_refused(change, latents, tmp_path):
    fields = json.loads((latents / manifest.FILE_NAME).read_text())
    change(fields["latents"])
    path = tmp_path / manifest.FILE_NAME
    path.write_text(json.dumps(fields))
    seals.change(path)
    with pytest.raises(ValueError, match="is not a whole manifest .*(latents|autoencoder|more)"):
        manifest.read(tmp_path)


def _spoken(folder, length):
    """Eight tones of 0.3 to 1.07 s with a transcript each, in records of `length` samples."""
    texts = (sound_records.Text("said", "transcript"),)
    source = sounds.TextsBesides(str(sounds.write_folder(folder / "sounds")), texts=texts)
    conversion = sounds.conversion(segment_length=length)
    return builder.build(source, folder / "shards", conversion, say=lambda line: None)[""]


@pytest.mark.parametrize(
    "weights, without",
    [({"transcription": 1.0}, {"cut": 13}), ({"caption": 1.0}, {"no_text": 15})],
)
def test_what_was_cut_when_shards_were_built_counts_as_cut(weights, without, tmp_path):
    content = _spoken(tmp_path, 8_000)
    assert content.lost_transcripts == 6 and content.num_records == 15
    text = tasks.TextTasks(sounds.tokenizer(tmp_path / "text"), weights, 60)
    options = dict(batch_size=5, sample_rate=16_000, crop_length=16_000, train=False)
    found = sounds.open_pipeline(tmp_path / "shards", text=text, **options)
    for step in range(3):
        found.local_batch(step)
    sums = found.covered(0, 3)
    assert {name: sums[name] for name in ("cut", "no_text") if name in sums} == without


@pytest.mark.parametrize(
    "task, length, message",
    [
        (
            "transcription",
            4_000,
            "a transcript, .* records of up to 1.1 s .--segment_seconds., they",
        ),
        ("caption", 16_000, "needs records with a caption, and the shards have none"),
    ],
)
def test_a_task_that_no_record_answers_is_refused_with_the_cause(task, length, message, tmp_path):
    content = _spoken(tmp_path, length)
    text = tasks.TextTasks(sounds.tokenizer(tmp_path / "text"), {task: 1.0}, 60)
    with pytest.raises(ValueError, match=message):
        text.check([content])
