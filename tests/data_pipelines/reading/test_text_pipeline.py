# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Packed documents: their forms, what is scored, and that a batch is a function of seed and step."""

import numpy as np
import pytest
import tokenizers

from data_pipelines.reading import replaced
from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.reading import text_pipeline
from tests.support import sounds

_LENGTH = 120


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return str(sounds.labelled_set(folder / "set")), sounds.tokenizer(folder / "tokenizer")


@pytest.fixture
def make(files):
    """Opens a pipeline; the tokenizer's tokens are bytes."""

    def open_pipeline(*, context=0.5, weights=None, folder=files[0], **options):
        weights = weights or {"transcription": 1.0, "digit": 1.0, "voice": 1.0}
        fields = dict(
            text=tasks.TextTasks(files[1], weights, _LENGTH),
            forms=text_pipeline.Forms(context, 3),
            length=_LENGTH,
            documents_per_row=6,
            batch_size=4,
            seed=3,
        )
        return sounds.open_pipeline(folder, kind=text_pipeline.TextPipeline, **(fields | options))

    return open_pipeline


def _documents(files, batch) -> list[tuple[str, str, set[int]]]:
    """What is scored and what is not of each document, as text, and the values of "scored"."""
    tokenizer = tokenizers.Tokenizer.from_file(str(files[1] / "tokenizer.json"))
    found = []
    for text, segments, scored in zip(batch["text"], batch["segments"], batch["scored"]):
        assert not text[segments == 0].any() and not scored[segments == 0].any()
        for number in range(1, segments.max() + 1):
            own, how = text[segments == number], scored[segments == number]
            assert tokenizer.id_to_token(own[-1]) == "<|endoftext|>" and how[-1] > 0
            parts = [tokenizer.decode(own[how == 0]), tokenizer.decode(own[how > 0])]
            found.append((*parts, set(how.tolist())))
    return found


def test_documents_without_context_are_instruction_and_answer(make, files):
    batch = make(context=0.0).local_batch(0)
    documents = _documents(files, batch)
    assert len(documents) > 8
    for before, text, how in documents:
        assert (before, how) == ("", {text_pipeline.SCORED})
        instruction, _, answer = text.partition(": ")
        assert instruction in ("what is said", "digit", "voice") and answer


def test_the_answer_stands_in_its_context(make, files):
    documents = _documents(files, make(context=1.0).local_batch(1))
    assert len(documents) > 4
    several = 0
    for before, text, how in documents:
        assert how == {text_pipeline.NOT_SCORED, text_pipeline.SCORED_IN_CONTEXT}
        context = before.rpartition("what is said:" if "tone" in text else "digit:")[0]
        context = context or before.rpartition("voice:")[0]
        # Bytes are tokens here: each is said once, twice or three times.
        assert any("".join(c * times for c in text) in context for times in (1, 2, 3)), (
            before,
            text,
        )
        several += "tone" in text and len(context) > 2 * len(text)
    assert several  # other answers of the record stand there too


def test_a_batch_is_a_function_of_seed_and_step_on_any_number_of_hosts(make):
    one, again = make(), make()
    assert one.fingerprint == again.fingerprint
    again.local_batch(7)
    parts = [make(process_index=index, process_count=2).local_batch(5) for index in range(2)]
    for name, array in one.local_batch(5).items():
        np.testing.assert_array_equal(array, again.local_batch(5)[name])
        np.testing.assert_array_equal(array, np.concatenate([part[name] for part in parts]))
    assert (one.local_batch(4)["text"] != one.local_batch(5)["text"]).any()
    (step, batch), *_ = one.iterate(5, 6)
    assert step == 5
    np.testing.assert_array_equal(batch["text"], again.local_batch(5)["text"])
    assert (make(seed=4).local_batch(5)["text"] != batch["text"]).any()
    for changes in (dict(seed=4), dict(context=0.4), dict(documents_per_row=5)):
        assert make(**changes).fingerprint != one.fingerprint


def test_what_stands_in_for_a_damaged_record_counts_wherever_it_is_tried(make, tmp_path):
    folder = sounds.labelled_set(tmp_path)
    (shard,) = folder.glob("*.array_record")
    data = bytearray(shard.read_bytes())
    data[data.index(sources.ShardSet(folder)[0].waveform.tobytes()) + 100] ^= 0xFF
    shard.write_bytes(data)
    whole, damaged = make(), make(folder=str(folder))
    assert damaged.fingerprint == whole.fingerprint
    for step in range(3):
        damaged.local_batch(step)
        tried = zip(whole.example_keys(step), damaged.example_keys(step))
        differing = sum(one.split(":")[1] != other.split(":")[1] for one, other in tried)
        before = damaged.replaced_before(step).count
        assert (
            damaged.replaced_before(step + 1).count - before == differing > 0
        )  # read once, remembered
    hosts = [make(folder=str(folder), process_index=index, process_count=2) for index in (0, 1)]
    for host in hosts:
        list(host.iterate(0, 3))
    assert replaced.Replaced.sum(
        [host.replaced_before(3) for host in hosts]
    ) == damaged.replaced_before(3)
    # Keys are of all hosts' rows: a host that may not replace any can still name them.
    strict = make(folder=str(folder), max_replaced=0)
    assert strict.example_keys(0) == damaged.example_keys(0)
    with pytest.raises(ValueError, match="more than max_replaced=0 records could not be read"):
        [strict.local_batch(step) for step in range(3)]


def test_spec_keys_and_epochs(make):
    data = make(train=False)
    batch = data.local_batch(0)
    assert {name: (a.shape, a.dtype) for name, a in batch.items()} == data.batch_spec
    keys = data.example_keys(0)
    epoch = data.num_records
    assert len(keys) == 24 > epoch == len(set(keys[:epoch]))
    assert keys[epoch:] == keys[: 24 - epoch]
    assert data.replaced_before(1) == (0, 0)


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(context=1.5), "contexts in .*got 1.5"),
        (dict(documents_per_row=0), "documents_per_row"),
        (dict(process_count=3), "must be a multiple of the 3 hosts"),
        (dict(weights={"instrument": 1.0}), "'instrument' needs records with the label"),
    ],
)
def test_impossible_settings_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("context", [0.0, 1.0])
def test_a_document_takes_one_of_several_captions(context, files, tmp_path):
    captions = ("a dog", "it barks", "an animal")
    shards = sounds.captioned_set(tmp_path, *captions)
    pipeline = sounds.open_pipeline(
        shards,
        kind=text_pipeline.TextPipeline,
        text=tasks.TextTasks(files[1], {"caption": 1.0}, _LENGTH),
        forms=text_pipeline.Forms(context, 1),
        length=_LENGTH,
        documents_per_row=6,
        batch_size=4,
    )
    found = [one for step in range(4) for one in _documents(files, pipeline.local_batch(step))]
    seen = set()
    for before, scored, _ in found:
        text = before + scored
        assert text.count("what is heard:") == 1
        asked = text.partition("what is heard:")[2].strip()
        assert asked in captions
        # What stands in the context is what is asked for.
        assert text.partition("what is heard:")[0].strip() == (asked if context else "")
        seen.add(asked)
    assert seen == set(captions)
