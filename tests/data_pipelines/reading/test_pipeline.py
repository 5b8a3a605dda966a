# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches: the same for any number of hosts and threads and on every replay; masks and damage."""

import collections
import hashlib
import itertools

import numpy as np
import pytest
import soundfile

from data_pipelines.building import builder
from data_pipelines.building import plan as build_plan
from data_pipelines.inputs import folders
from data_pipelines.reading import arrangement
from data_pipelines.reading import replaced
from data_pipelines.reading import sources
from data_pipelines.reading import suitability
from data_pipelines.records import manifest
from tests.support import sounds


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(sounds.shard_set(tmp_path_factory.mktemp("shards"), num_files=12))


@pytest.fixture(scope="module")
def more_shards(tmp_path_factory):
    return str(sounds.shard_set(tmp_path_factory.mktemp("more"), num_files=5, segment_length=5_000))


def _pipeline(mixture, **changes):
    options = dict(sample_rate=16_000, crop_length=4_000, batch_size=8, seed=3, gain_db=(-6.0, 6.0))
    return sounds.open_pipeline(mixture, **(options | changes))


def _hash(batch) -> str:
    digest = hashlib.sha256()
    for name in sorted(batch):
        digest.update(np.ascontiguousarray(batch[name]).tobytes())
    return digest.hexdigest()


def _global_hash(mixture, step, num_hosts, **changes) -> str:
    hosts = [
        _pipeline(mixture, process_index=index, process_count=num_hosts, **changes)
        for index in range(num_hosts)
    ]
    parts = [host.local_batch(step) for host in hosts]
    return _hash({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def test_batches_are_as_published(shards):
    loader = _pipeline(shards, process_index=1, process_count=4)
    batch = loader.local_batch(0)
    assert batch.keys() == loader.batch_spec.keys() == {"waveform", "mask", "begins", "ends"}
    for name, (shape, dtype) in loader.batch_spec.items():
        assert shape in ((8, 4_000), (8,))
        assert batch[name].shape == (2, *shape[1:]) and batch[name].dtype == dtype
    assert np.abs(batch["waveform"]).max() <= 1.0


@pytest.mark.reliability("R25")
@pytest.mark.parametrize("train", [True, False])
def test_global_batches_do_not_depend_on_the_number_of_hosts(shards, more_shards, train):
    mixture = f"{shards}=0.7,{more_shards}=0.3"
    for step in (0, 1, 63, 64, 10**9):
        hashes = {_global_hash(mixture, step, hosts, train=train) for hosts in (1, 2, 4, 8)}
        assert len(hashes) == 1


def test_batches_depend_on_seed_and_step_alone(shards):
    loader = _pipeline(shards)
    forward = [_hash(loader.local_batch(step)) for step in range(20)]
    again = _pipeline(shards)
    assert [_hash(again.local_batch(step)) for step in reversed(range(20))] == forward[::-1]
    assert len(set(forward)) == 20
    assert _hash(_pipeline(shards, seed=4).local_batch(0)) != forward[0]


@pytest.mark.reliability("R25")
@pytest.mark.parametrize("num_threads", [0, 2, 3])
def test_background_threads_change_nothing(shards, num_threads):
    loader = _pipeline(shards, num_threads=num_threads)
    for step, batch in itertools.islice(loader.iterate(5), 40):
        assert _hash(batch) == _hash(loader.local_batch(step))
    assert step == 44
    assert [step for step, _ in loader.iterate(2, 5)] == [2, 3, 4]


def test_prefetching_stays_within_its_buffer(shards, monkeypatch):
    loader = _pipeline(shards, num_threads=2, num_prefetched=3)
    made = []
    monkeypatch.setattr(loader, "local_batch", made.append)
    next(loader.iterate(0))
    # The one returned, those in the buffer, and those in the threads' hands.
    assert len(made) <= 1 + 3 + 2


def test_every_epoch_has_every_record_once(shards):
    loader = _pipeline(shards, batch_size=4)
    length = loader.num_records
    keys = list(itertools.chain.from_iterable(map(loader.example_keys, range(8 * length // 4))))
    epochs = [keys[start : start + length] for start in range(0, len(keys), length)]
    assert len(epochs) == 8
    assert all(len(set(epoch)) == length for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_keys_are_those_of_the_rows(shards):
    loader = _pipeline(shards, train=False, crop_length=8_000)
    shard_set = sources.ShardSet(shards)
    by_key = {shard_set[index].key: shard_set[index] for index in range(len(shard_set))}
    batch = loader.local_batch(1)
    for row, key in enumerate(loader.example_keys(1)):
        waveform = by_key[key].waveform
        assert batch["mask"][row].sum() == waveform.size
        np.testing.assert_array_equal(batch["waveform"][row, : waveform.size] * 32768, waveform)


def test_evaluation_goes_in_order_from_the_start_and_wraps(shards):
    loader = _pipeline(shards, train=False, batch_size=3)
    shard_set = sources.ShardSet(shards)
    in_order = [shard_set[index].key for index in range(len(shard_set))]
    keys = list(itertools.chain.from_iterable(loader.example_keys(step) for step in range(40)))
    assert keys == list(itertools.islice(itertools.cycle(in_order), 120))
    # More rows than records is no error here: a held-out set may be small.
    many = _pipeline(shards, train=False, batch_size=1000).local_batch(0)["waveform"]
    np.testing.assert_array_equal(many[0], many[loader.num_records])


def test_short_records_are_padded_and_masked(shards):
    batch = _pipeline(shards, crop_length=12_000).local_batch(0)
    lengths = batch["mask"].sum(axis=1)
    assert (lengths >= 1).all() and (lengths < 12_000).all()
    for row, length in enumerate(lengths):
        assert batch["mask"][row, :length].all() and not batch["waveform"][row, length:].any()
        assert batch["waveform"][row, :length].any()


def test_crops_and_gains_vary_and_stay_in_range(shards):
    loader = _pipeline(shards, crop_length=1_000, gain_db=(-6.0, 3.0))
    peaks, keys = [], []
    for step in range(30):
        batch = loader.local_batch(step)
        keys += loader.example_keys(step)
        peaks += np.abs(batch["waveform"]).max(axis=1).tolist()
        assert batch["mask"].sum(axis=1).min() >= 1
    full = [peak for key, peak in zip(keys, peaks) if key.endswith("#00000")]
    # The tones peak at -6 dB.
    assert 20 * np.log10(min(full)) >= -12.1 and 20 * np.log10(max(full)) <= -2.9
    assert np.std(full) > 0.05


def test_mixture_is_exact_in_every_batch_that_holds_a_period(shards, more_shards):
    loader = _pipeline(f"{shards}=3,{more_shards}=1", batch_size=8)
    for step in range(20):
        keys = loader.example_keys(step)
        assert sum(key.startswith(f"{shards}:") for key in keys) == 6
        assert sum(key.startswith(f"{more_shards}:") for key in keys) == 2


@pytest.mark.reliability("R23")
@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(sample_rate=24_000), "16000 Hz, the model needs 24000 Hz"),
        (dict(batch_size=1000), "records, fewer than the batch of 1000"),
        (dict(batch_size=6, process_count=4), "batch_size=6 must be a multiple of the 4 hosts"),
        (dict(process_index=2, process_count=2), "process_index=2"),
        (dict(gain_db=(3.0, -3.0)), "gain_db"),
        (dict(crop_length=0), "crop_length"),
        (dict(salient_db=40.0), "salient_db and level_db must be below 0"),
        (dict(level_db=1.0), "salient_db and level_db must be below 0"),
        (dict(seed=-1), "seed"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, shards):
    with pytest.raises(ValueError, match=message):
        _pipeline(shards, **changes)


def test_fingerprint_tells_what_decides_the_order(shards, more_shards):
    mixture = f"{shards}=0.5,{more_shards}=0.5"
    variants = [
        _pipeline(mixture),
        _pipeline(f"{shards}=0.6,{more_shards}=0.4"),
        _pipeline(shards),
        _pipeline(more_shards),
        _pipeline(mixture, seed=4),
        _pipeline(mixture, crop_length=3_999),
        _pipeline(mixture, batch_size=16),
        _pipeline(mixture, gain_db=(0.0, 0.0)),
        _pipeline(mixture, train=False),
        _pipeline(mixture, salient_db=-40.0),
        _pipeline(mixture, level_db=-40.0),
        _pipeline(mixture, rows=_shared(), **_ARRANGED),
        _pipeline(mixture, rows=_shared(2), **_ARRANGED),
        _pipeline(mixture, rows=_shared(room=30_000), **_ARRANGED),
        _pipeline(mixture, **_ARRANGED),
    ]
    fingerprints = [variant.fingerprint for variant in variants]
    assert len(set(fingerprints)) == len(fingerprints)
    same = _pipeline(mixture, process_index=1, process_count=2, num_threads=0, max_replaced=5)
    assert same.fingerprint == fingerprints[0]


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A set of several shards of which the first record is damaged: (folder, its key)."""
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 30_000)
    folder = sounds.shard_set(tmp_path)
    shard = folder / manifest.read(folder).shards[0].name
    record = sources.ShardSet(folder)[0]
    data = bytearray(shard.read_bytes())
    data[data.index(record.waveform.tobytes()) + 100] ^= 0xFF
    shard.write_bytes(data)
    return str(folder), record.key


@pytest.mark.reliability("R23")
def test_unreadable_records_are_replaced_the_same_on_every_replay(damaged):
    folder, key = damaged
    loader = _pipeline(folder)
    batches = [_hash(loader.local_batch(step)) for step in range(12)]
    assert loader.replaced_before(12).count > 0
    again = _pipeline(folder)
    assert [_hash(again.local_batch(step)) for step in range(12)] == batches
    assert again.replaced_before(12) == loader.replaced_before(12)
    assert _global_hash(folder, 1, 4) == _global_hash(folder, 1, 1)
    assert all(key not in loader.example_keys(step) for step in range(12))


def test_replaced_rows_are_those_of_the_batches_that_differ(damaged, tmp_path):
    whole, broken = _pipeline(str(sounds.shard_set(tmp_path / "whole"))), _pipeline(damaged[0])
    assert whole.fingerprint == broken.fingerprint  # of what the manifest says
    before = broken.replaced_before(0)
    for step in range(12):
        are_equal = _hash(whole.local_batch(step)) == _hash(broken.local_batch(step))
        after = broken.replaced_before(step + 1)
        assert (after == before) == are_equal
        assert (after.digest == before.digest) == are_equal
        before = after
    assert 0 < before.count < 12 * 8 and whole.replaced_before(12) == (0, 0)


@pytest.mark.parametrize("process_count", [2, 4])
def test_replaced_rows_are_the_same_on_any_number_of_hosts_and_restarts(damaged, process_count):
    one = _pipeline(damaged[0])
    list(one.iterate(0, 12))
    parts = []
    for index in range(process_count):
        host = dict(process_index=index, process_count=process_count)
        for start, stop in ((0, 5), (5, 6), (6, 12)):
            loader = _pipeline(damaged[0], **host)
            batches = loader.iterate(start)  # which makes some ahead
            while next(batches)[0] < stop - 1:
                pass
            parts.append(loader.replaced_before(stop))
    assert replaced.Replaced.sum(parts) == one.replaced_before(12) != (0, 0)


def test_a_row_that_is_made_again_is_replaced_once(damaged):
    loader = _pipeline(damaged[0])
    list(loader.iterate(2, 12))
    seen = loader.replaced_before(12)
    for step in (0, 1, *range(12)):  # such as for sounds to listen to
        loader.local_batch(step)
    assert loader.replaced_before(12) == seen != (0, 0) == loader.replaced_before(2)


@pytest.mark.reliability("R23")
def test_too_many_unreadable_records_are_an_error(damaged):
    loader = _pipeline(damaged[0], max_replaced=2)
    with pytest.raises(ValueError, match="more than max_replaced=2 records.*shard-00000"):
        for step in range(1000):
            loader.local_batch(step)


def test_the_error_reaches_whoever_iterates(damaged):
    with pytest.raises(ValueError, match="max_replaced=0"):
        for step, _ in _pipeline(damaged[0], max_replaced=0).iterate(0):
            assert step < 1000


def _shared(examples=4, room=24_000):
    """Rows that hold less than their examples could ask for: 4 of up to 8,000 samples."""
    return arrangement.Rows(
        examples=examples,
        room={"frames": room // 400},
        needs=lambda frames, tokens: {"frames": frames},
        samples_per_frame=400,
    )


_ALL = suitability.Bound(max_lost=1.0)
_ARRANGED = dict(crop_length=8_000, random_crop=False, gain_db=(0.0, 0.0), bound=_ALL)


@pytest.mark.reliability("R25")
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("group_rows", [64, 2, 1])
def test_arranged_batches_do_not_depend_on_the_number_of_hosts(
    shards, more_shards, train, group_rows, monkeypatch
):
    monkeypatch.setattr(arrangement, "_MAX_ROWS", group_rows)
    mixture = f"{shards}=0.7,{more_shards}=0.3"
    options = dict(batch_size=16, rows=_shared(), train=train, **_ARRANGED)
    for step in (0, 1, 63, 64, 10**9):
        # Each with some of four rows, and with a part of one.
        hashes = {_global_hash(mixture, step, hosts, **options) for hosts in (1, 2, 16)}
        assert len(hashes) == 1


def test_arranged_rows_hold_what_was_drawn_and_lose_nothing_that_has_room(shards):
    drawn, loader = (
        _pipeline(shards, batch_size=16, **_ARRANGED, **more) for more in ({}, {"rows": _shared()})
    )
    lost = 0
    for step in range(12):
        batch, keys = loader.local_batch(step), loader.example_keys(step)
        lengths = batch["mask"].sum(axis=1)
        assert (lengths.reshape(4, 4).sum(axis=1) <= 24_000).all()
        plain, drawn_keys = drawn.local_batch(step), drawn.example_keys(step)
        row_of = {key: row for row, key in enumerate(drawn_keys)}
        assert set(keys) - {""} <= set(row_of) and drawn.places(step) and len(keys) == 16
        for row, key in enumerate(keys):
            if key:
                for name in batch:
                    np.testing.assert_array_equal(batch[name][row], plain[name][row_of[key]])
            else:  # left out as a whole
                assert not any(np.any(array[row]) for array in batch.values())
        # A record may be drawn twice, at the end of one epoch and early in the next.
        gone = collections.Counter(drawn_keys) - collections.Counter(keys)
        missing = [int(plain["mask"][row_of[key]].sum()) for key in gone.elements()]
        lost += sum(missing)
        sums = loader.covered(step, step + 1)
        assert sums["left_out_seconds"] == pytest.approx(sum(missing) / 16_000)
        assert sums["room/frames"] == 4 * 60 and sums["used/frames"] == -(-lengths // 400).sum()
    # In the order in which they were drawn, rows would lose more, though they lose no whole ones.
    order = [drawn.local_batch(step)["mask"].sum(axis=1).reshape(4, 4) for step in range(12)]
    assert lost < sum(np.maximum(rows.sum(axis=1) - 24_000, 0).sum() for rows in order)


def test_what_is_left_out_counts_once_over_all_hosts(shards):
    options = dict(batch_size=16, rows=_shared(), **_ARRANGED)
    one = _pipeline(shards, **options)
    hosts = [_pipeline(shards, process_index=i, process_count=4, **options) for i in range(4)]
    for step in range(6):
        for loader in (one, *hosts):
            loader.local_batch(step)
    parts = [host.covered(0, 6) for host in hosts]
    whole = one.covered(0, 6)
    assert whole["left_out_seconds"] > 0
    for name in whole:
        assert sum(part.get(name, 0) for part in parts) == pytest.approx(whole[name]), name


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_what_cannot_be_read_counts_once_where_it_was_drawn(damaged, process_count):
    plain = _pipeline(damaged[0], **_ARRANGED)
    list(plain.iterate(0, 12))
    parts = []
    for index in range(process_count):
        host = dict(process_index=index, process_count=process_count)
        loader = _pipeline(damaged[0], rows=_shared(2, 10_000), **_ARRANGED, **host)
        list(loader.iterate(0, 12))
        parts.append(loader.replaced_before(12))
    assert replaced.Replaced.sum(parts) == plain.replaced_before(12) != (0, 0)


@pytest.fixture(scope="module")
def faint(tmp_path_factory):
    """Recordings of two seconds, of which the last quarter is loud and the rest nearly silent."""
    folder = tmp_path_factory.mktemp("faint")
    (folder / "sounds").mkdir()
    for index in range(8):
        sound = sounds.tone(2.0, hertz=300.0 + 50.0 * index) * 0.2
        sound[:24_000] *= 1e-3
        soundfile.write(folder / "sounds" / f"{index}.wav", sound, 16_000, subtype="PCM_16")
    source = folders.Folder(str(folder / "sounds"))
    made = sounds.conversion(segment_length=32_000)
    builder.build(source, folder / "shards", made, say=lambda line: None)
    return str(folder / "shards")


def _levels(loader, steps=20):
    batches = [loader.local_batch(step)["waveform"] for step in range(steps)]
    power = np.concatenate(
        [np.mean(np.square(batch, dtype=np.float64), axis=1) for batch in batches]
    )
    return 10.0 * np.log10(np.maximum(power, 1e-12)), max(np.abs(batch).max() for batch in batches)


def test_crops_fall_on_sound_where_quiet_ones_are_drawn_again(faint):
    options = dict(gain_db=(0.0, 0.0), crop_length=4_000)
    plain, _ = _levels(_pipeline(faint, **options))
    salient, _ = _levels(_pipeline(faint, salient_db=-40.0, **options))
    assert np.mean(plain < -40.0) > 0.5 and np.mean(salient < -40.0) < 0.15
    one = _global_hash(faint, 3, 1, salient_db=-40.0, **options)
    assert one == _global_hash(faint, 3, 4, salient_db=-40.0, **options)
    # The first place is the one where it would lie anyway; in evaluation nothing is drawn.
    held = [
        _hash(_pipeline(faint, train=False, salient_db=db).local_batch(0)) for db in (0.0, -40.0)
    ]
    assert held[0] == held[1]


def test_crops_are_brought_to_a_level_unless_they_would_clip_or_are_silence(faint):
    options = dict(gain_db=(0.0, 0.0), crop_length=4_000, salient_db=-40.0)
    found, peak = _levels(_pipeline(faint, level_db=-16.0, **options))
    loud = found[found > -40.0]
    # All but those that would clip, of which a short part is loud.
    assert loud.max() < -15.9 and np.mean(loud > -16.1) > 0.9
    assert np.mean(found < -40.0) < 0.15 and peak < 1.0
    limited, peak = _levels(_pipeline(faint, level_db=-1.0, **options))
    # Nothing clips: a sine of full scale has -3 dB.
    assert 0.99 < peak <= 1.0 and np.median(limited) == pytest.approx(-3.0, abs=1.0)
