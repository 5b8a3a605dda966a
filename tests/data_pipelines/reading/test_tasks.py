# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Text tasks: which record can be asked what, and the tokens of question and answer."""

import collections

import numpy as np
import pytest
import tokenizers

from data_pipelines.embedded import corpora
from data_pipelines.reading import tasks
from data_pipelines.records import sound as sound_records
from tests.support import sounds


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return sounds.tokenizer(tmp_path_factory.mktemp("tokenizer"))


def _record(**changes) -> sound_records.Record:
    fields = dict(key="k", waveform=np.ones(10, np.int16), sample_rate=16_000)
    return sound_records.Record(**(fields | changes))


def _batch(rows=1, width=60):
    return {
        "text": np.zeros((rows, width), np.int32),
        "answer": np.zeros((rows, width), bool),
        "text_mask": np.zeros((rows, width), bool),
    }


_TEXTS = (sound_records.Text("one two", "transcript"),)
_SPOKEN = dict(texts=_TEXTS, labels={"language": "de", "speaker": "ada"})
_HEARD = dict(texts=(sound_records.Text("a dog", "caption"),))


@pytest.mark.parametrize(
    "fields, name, answer",
    [
        (_SPOKEN, "transcription", "one two"),
        (_HEARD, "transcription", None),
        (_HEARD, "caption", "a dog"),
        (_SPOKEN, "caption", None),
        (_SPOKEN, "language", "german"),
        (dict(labels={"language": "tlh"}), "language", "tlh"),
        (_SPOKEN, "voice", "ada"),
        (dict(labels={"voice": "en+f1", "speaker": "x"}), "voice", "en+f1"),
        (dict(labels={"digit": "7"}), "digit", "seven"),
        (dict(labels={"class": "rain"}), "event", "rain"),
        (dict(labels={"instrument": "harp"}), "instrument", "harp"),
        (dict(labels={"tempo": "90"}), "label:tempo", "90"),
        (dict(labels={"tempo": "90"}), "label:mode", None),
    ],
)
def test_a_record_answers_what_its_text_and_labels_can(fields, name, answer, tokenizer):
    found = tasks.TextTasks(tokenizer, {name: 1.0}, 60).answers(_record(**fields), is_whole=True)
    assert found == ({} if answer is None else {name: (answer,)})


def test_the_embedded_corpora_are_asked_something_everywhere(tokenizer):
    mixture = dict.fromkeys(set(tasks.TASKS) - {"digit"}, 1.0)
    text = tasks.TextTasks(tokenizer, mixture, 200)
    expected = {
        "speech": {"transcription", "language", "voice", "gender"},
        "music": {"caption", "instrument"},
        "events": {"caption", "event"},
    }
    for name, wanted in expected.items():
        if corpora.available(name):
            continue
        clip = corpora.generate(name, 3, seed=0, sample_rate=8_000)
        record = _record(texts=(sound_records.Text(clip.text, clip.text_kind),), labels=clip.labels)
        assert set(text.answers(record, is_whole=True)) == wanted


def test_a_part_of_a_sound_has_no_transcript(tokenizer):
    text = tasks.TextTasks(tokenizer, {"transcription": 1.0, "language": 1.0}, 60)
    assert set(text.answers(_record(**_SPOKEN), is_whole=False)) == {"language"}


def test_rows_hold_instruction_answer_and_end(tokenizer):
    text = tasks.TextTasks(tokenizer, {"transcription": 1.0}, 60)
    batch = _batch(rows=2)
    text.row(_record(**_SPOKEN), 0.5, is_whole=True).write(batch, 1)
    ids, mask, answer = (batch[name][1] for name in ("text", "text_mask", "answer"))
    assert text.decode(ids[mask]) == "what is said: one two"
    assert text.decode(ids[answer]) == " one two"
    assert ids[mask][-1] == text.vocabulary_size - 1  # the end of text is to be predicted
    assert answer[mask][-1] and mask.sum() == len("what is said: one two") + 1
    assert not ids[~mask].any() and not any(array[0].any() for array in batch.values())


@pytest.mark.parametrize("is_old", [True, False])
def test_a_llama_begins_an_answer_with_the_word_that_it_knows(is_old, tmp_path):
    words = {word: index for index, word in enumerate("\u2581abcdefghijklmnopqrstuvwxyz:")}
    merges = [("\u2581", "o"), ("\u2581o", "n"), ("\u2581on", "e"), ("\u2581", "\u2581")]
    words |= {left + right: len(words) + index for index, (left, right) in enumerate(merges)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(words, merges))
    if is_old:
        prepend = tokenizers.normalizers.Prepend("\u2581")
        replace = tokenizers.normalizers.Replace(" ", "\u2581")
        made.normalizer = tokenizers.normalizers.Sequence([prepend, replace])
    else:
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
            prepend_scheme="first", split=False
        )
    made.decoder = tokenizers.decoders.Metaspace()
    made.add_special_tokens(["</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    text = tasks.TextTasks(tmp_path, {"transcription": 1.0}, 60)
    ids, start = text.tokens("transcription", "one one", key="k")
    assert [made.id_to_token(token) for token in ids[start:]] == ["\u2581one"] * 2 + ["</s>"]
    assert text.decode(ids) == "what is said: one one"


def test_tasks_come_by_their_weights(tokenizer):
    text = tasks.TextTasks(tokenizer, {"voice": 3.0, "digit": 1.0, "language": 1.0}, 60)
    batch, record = _batch(rows=400), _record(**_SPOKEN)  # has no digit
    draws = np.random.default_rng(0).random(400)
    for row, draw in enumerate(draws):
        text.row(record, draw, is_whole=True).write(batch, row)
    counts = collections.Counter(
        text.decode(ids[mask & ~answer])
        for ids, mask, answer in zip(batch["text"], batch["text_mask"], batch["answer"])
    )
    assert counts.keys() == {"voice:", "language:"}
    assert counts["voice:"] / 400 == pytest.approx(0.75, abs=0.07)  # three standard errors
    for draw in (0.0, np.nextafter(1.0, 0.0)):
        text.row(record, draw, is_whole=True).write(_batch(), 0)


def test_rows_without_text_are_empty_and_say_why(tokenizer):
    text = tasks.TextTasks(tokenizer, {"transcription": 1.0}, 20)
    spoken, brief = _record(**_SPOKEN), _record(texts=(sound_records.Text("no", "transcript"),))
    assert text.row(_record(), 0.5, is_whole=True) == tasks.Row(lost=tasks.NO_TASK)
    assert text.row(_record(), 0.5, is_whole=False, lost_text=True) == tasks.Row(lost=tasks.CUT)
    # What is lost is known as far as its text is: " no", " one two", and the end of the text.
    cut = text.row(brief, 0.5, is_whole=False, lost_text=True)
    assert cut == tasks.Row(lost=tasks.CUT, num_tokens=17, num_wanted=4)
    too_long = text.row(spoken, 0.5, is_whole=True)
    assert too_long == tasks.Row(lost=tasks.TOO_LONG, num_tokens=22, num_wanted=9)
    batch = _batch(width=20)
    for row in (cut, too_long):
        row.write(batch, 0)
    assert not any(array.any() for array in batch.values())  # never cut
    message = "record 'k' has 22 tokens for the task 'transcription', more than max_tokens=20"
    with pytest.raises(tasks.TextTooLong, match=message):
        text.tokens("transcription", "one two", key="k")


@pytest.mark.parametrize(
    "weights, options, message",
    [
        ({"translation": 1.0}, {}, "text task must be one of transcription, .*, got 'translation'"),
        ({"label:": 1.0}, {}, "label:NAME, got 'label:'"),
        ({"voice": 0.0}, {}, "weights above 0"),
        ({}, {}, "weights above 0"),
        ({"voice": 1.0}, dict(max_tokens=1), "max_tokens"),
    ],
)
def test_what_is_no_mixture_of_tasks_is_refused(weights, options, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        tasks.TextTasks(tokenizer, weights, **(dict(max_tokens=60) | options))


@pytest.mark.parametrize("content", [None, "", "not json", "{}", '{"model": {"type": "x"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="must be a tokenizer.json of the tokenizers library"):
        tasks.TextTasks(tmp_path, {"voice": 1.0}, 60)


def test_the_fingerprint_tells_what_decides_the_text(tokenizer):
    def fingerprint(weights=(("voice", 1.0),), max_tokens=60):
        return tasks.TextTasks(tokenizer, dict(weights), max_tokens).fingerprint

    variants = [fingerprint(), fingerprint((("voice", 2.0),)), fingerprint(max_tokens=61)]
    assert len({str(variant) for variant in variants}) == 3 and variants[0] == fingerprint()


_CAPTIONS = dict(
    texts=tuple(sound_records.Text(words, "caption") for words in ("a dog", "barks", "an animal"))
)


def test_each_of_several_captions_has_its_turn(tokenizer):
    text = tasks.TextTasks(tokenizer, {"caption": 1.0, "event": 1.0}, 60)
    record = _record(**_CAPTIONS, labels={"class": "dog"})
    batch = _batch(rows=600)
    for row, draw in enumerate(np.random.default_rng(0).random(600)):
        text.row(record, draw, is_whole=True).write(batch, row)
    counts = collections.Counter(
        text.decode(ids[answer]).strip() for ids, answer in zip(batch["text"], batch["answer"])
    )
    assert counts.keys() == {"a dog", "barks", "an animal", "dog"}
    assert counts["dog"] / 600 == pytest.approx(0.5, abs=0.07)
    for caption in ("a dog", "barks", "an animal"):
        assert counts[caption] / 600 == pytest.approx(1 / 6, abs=0.05)
    again = _batch(rows=600)
    for row, draw in enumerate(np.random.default_rng(0).random(600)):
        text.row(record, draw, is_whole=True).write(again, row)
    np.testing.assert_array_equal(again["text"], batch["text"])


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.5, 0.7, np.nextafter(1.0, 0.0)])
def test_every_draw_falls_on_an_answer(draw, tokenizer):
    text = tasks.TextTasks(tokenizer, {"caption": 0.1, "event": 0.2, "voice": 0.3}, 60)
    answers = {"caption": ("a", "b", "c"), "event": ("d",), "voice": ("e", "f")}
    name, chosen = text.choose(answers, draw)
    assert chosen.keys() == answers.keys() and chosen[name] in answers[name]
    assert text.choose({"caption": ("a", "b", "c")}, draw)[1]["caption"] == "abc"[int(draw * 3)]


_CONTROL = "stop <|endoftext|> and <unk></s> on"


def _unigram(folder):
    """A model whose own vocabulary has the special tokens as words, as SentencePiece's has."""
    letters = [(letter, -1.0) for letter in sorted(set("▁" + _CONTROL + "what is said:one two"))]
    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), ("<|endoftext|>", 0.0), *letters]
    model = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, 0, False))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    model.decoder = tokenizers.decoders.Metaspace(prepend_scheme="never")
    model.add_special_tokens(["<unk>", "</s>", "<|endoftext|>"])
    folder.mkdir()
    model.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_a_special_token_that_somebody_wrote_is_text(kind, tokenizer, tmp_path):
    path = tokenizer if kind == "bytes" else _unigram(tmp_path / "unigram")
    text = tasks.TextTasks(path, {"transcription": 1.0}, 100)
    ids, num_instruction = text.tokens("transcription", _CONTROL, key="k")
    assert text.decode(ids) == f"what is said: {_CONTROL}"
    assert ids.count(text.end_of_text) == 1 and ids[-1] == text.end_of_text
    assert num_instruction == len("what is said:")


def test_texts_without_special_tokens_keep_their_ids(tmp_path):
    text = tasks.TextTasks(_unigram(tmp_path / "unigram"), {"transcription": 1.0}, 100)
    model = tokenizers.Tokenizer.from_file(str(tmp_path / "unigram" / "tokenizer.json"))
    for answer in ("one two", "one ☃☃☃ two"):  # a snowman is unknown
        ids, num_instruction = text.tokens("transcription", answer, key="k")
        assert ids[num_instruction:-1] == model.encode(f" {answer}", add_special_tokens=False).ids


def test_half_a_character_of_json_is_a_question_mark(tokenizer):
    text = tasks.TextTasks(tokenizer, {"transcription": 1.0}, 100)
    assert text.decode(text.tokens("transcription", "a\ud83d b", key="k")[0]).endswith("a? b")
