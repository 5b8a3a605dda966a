# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recognisers, words as they write them, and error rates of what they hear."""

import csv
import json
import threading

import numpy as np
import pytest
import soundfile
import tokenizers

from f3tok_jax.evaluation.judges import intelligibility
from f3tok_jax.evaluation.judges import judge
from tests.support import sounds

_missing = intelligibility.Pocketsphinx.package.missing()


class _Hearing(intelligibility._Recogniser):
    """Hears what it is told."""

    name, package = "hearing", intelligibility.Pocketsphinx.package
    figures = intelligibility._figures("hearing")
    _languages = ("en",)

    def _hear(self, sound):
        raise NotImplementedError


@pytest.mark.parametrize(
    "text, language, wanted",
    [
        ("Printing, in the only sense;", "", "printing in the only sense"),
        ("Forty-two lines -- don’t 'stop'!", "en", "forty two lines don't stop"),
        ("In 1455, 7 of 42", "en", "in one thousand four hundred fifty five seven of forty two"),
        ("3 1 4", "", "three one four"),
        ("Straße Nr. 21", "de", "strasse nr einundzwanzig"),
        ("Ему 12345 лет", "ru", "ему 12345 лет"),
        ("¿…?", "es", ""),
    ],
)
def test_words_are_as_recognisers_write_them(text, language, wanted):
    assert intelligibility.spoken_words(text, language) == wanted


def test_rates_are_of_words_and_weigh_by_them():
    found = _Hearing().verdict("the cat sat", reference="the cat sat down", text="The cat, sat on!")
    assert found.values == {"word_error_rate": 0.25, "word_error_rate_to_recording": 0.25}
    assert found.weights == {"word_error_rate": 4.0, "word_error_rate_to_recording": 4.0}
    assert not found.undefined


def test_nothing_heard_is_all_wrong_and_nothing_said_has_no_rate():
    judged = _Hearing().verdict
    assert judged("", text="two words").values == {"word_error_rate": 1.0}
    found = judged("word", reference="", text="")
    assert found.undefined == {
        "word_error_rate": "there is no transcript",
        "word_error_rate_to_recording": "hearing hears nothing in the recording",
    }
    assert judged("word", text="...").undefined == {"word_error_rate": "the text has no words"}


@pytest.mark.parametrize(
    "language, is_known",
    [("", True), ("en", True), ("en-us", True), ("English", True), ("de", False), ("ru_RU", False)],
)
def test_other_languages_are_not_judged_and_that_is_said(language, is_known):
    found = _Hearing().verdict("a", text="a", language=language)
    assert bool(found.values) == is_known
    if not is_known:
        reason = f"hearing knows the language en, the sound is in {language}"
        assert set(found.undefined.values()) == {reason}


@pytest.mark.skipif(bool(_missing), reason=_missing or "it is here")
def test_a_recording_is_understood_better_than_what_noise_leaves_of_it(shared_data):
    folder = shared_data / "read_speech"
    with open(folder / "metadata.csv", newline="") as file:
        rows = dict(row[:2] for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE))
    sound, rate = soundfile.read(folder / "LJ001-0002.flac", dtype="float32")
    hearer = intelligibility.Pocketsphinx()
    noise = 0.1 * np.random.default_rng(0).normal(size=len(sound))
    clean, noisy = (
        hearer(one, rate, reference=sound, text=rows["LJ001-0002"]).values
        for one in (sound, sound + noise)
    )
    # Of four words; which of two it mishears turns on the last bit of a sample.
    assert clean["word_error_rate"] <= 0.5 and clean["word_error_rate_to_recording"] == 0.0
    assert (
        noisy["word_error_rate"] > clean["word_error_rate"]
        and noisy["word_error_rate_to_recording"] > 0.5
    )
    # What was heard before changes nothing.
    assert hearer(sound, rate, reference=sound, text=rows["LJ001-0002"]).values == clean


@pytest.mark.skipif(bool(_missing), reason=_missing or "it is here")
def test_silence_and_clicks_are_heard():
    hearer = intelligibility.Pocketsphinx()
    for sound in (np.zeros(8_000), np.ones(1), np.zeros(1)):
        assert hearer(sound, judge.RATE, text="two words").values["word_error_rate"] >= 1.0


def _tiny_recogniser(folder) -> None:
    """A network of random weights that writes letters, in the format of Hugging Face."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    letters = {letter: place for place, letter in enumerate("_|abcdefghijklmnopqrstuvwxyz'?")}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(letters))
    options = dict(pad_token="_", word_delimiter_token="|", unk_token="?")
    transformers.Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), bos_token=None, eos_token=None, **options
    ).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(10, 32),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)


def _tiny_whisper(folder) -> None:
    """A Whisper of random weights, whose vocabulary is bytes and what Whisper adds to them."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    marks = ["endoftext", "startoftranscript", "en", "translate", "transcribe", "startoflm"]
    marks += ["startofprev", "nospeech", "notimestamps"]
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    folder.mkdir()
    (folder / "vocab.json").write_text(
        json.dumps({one: place for place, one in enumerate(letters)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.WhisperTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{one}|>" for one in marks]})
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    number = {one: tokenizer.convert_tokens_to_ids(f"<|{one}|>") for one in marks}
    sizes = dict(d_model=8, encoder_layers=1, decoder_layers=1, max_target_positions=32)
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 8 for side in ("encoder", "decoder")}
    ends = {f"{one}_token_id": number["endoftext"] for one in ("pad", "bos", "eos")}
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(tokenizer),
            decoder_start_token_id=number["startoftranscript"],
            suppress_tokens=None,
            begin_suppress_tokens=None,
            **sizes,
            **ends,
        )
    )
    model.generation_config = transformers.GenerationConfig(
        is_multilingual=True,
        lang_to_id={"<|en|>": number["en"]},
        task_to_id={task: number[task] for task in ("transcribe", "translate")},
        no_timestamps_token_id=number["notimestamps"],
        prev_sot_token_id=number["startofprev"],
        decoder_start_token_id=number["startoftranscript"],
        max_length=20,
        **ends,
    )
    model.save_pretrained(folder)


@pytest.mark.parametrize("make", [_tiny_recogniser, _tiny_whisper])
def test_a_folder_of_the_users_own_hears_too(tmp_path, make):
    make(tmp_path / "model")
    hearer = intelligibility.FolderRecogniser(tmp_path / "model")
    assert str(tmp_path / "model") in hearer.source.package and hearer.source.version
    sound = sounds.speechlike(1.0, 24_000)
    heard = hearer.hear(sound, 24_000)
    assert isinstance(heard, str) and hearer.hear(sound, 24_000) == heard
    known = "words" if make is _tiny_whisper else heard  # bytes at random are no words
    found = hearer.verdict(known, reference=known, text="words", language="ru")
    assert found.values["word_error_rate_to_recording"] == 0.0


@pytest.mark.parametrize(
    "kind, wanted",
    [("ctc", {"chunk_length_s": 30}), ("seq2seq_whisper", {"return_timestamps": True})],
)
def test_what_is_longer_than_half_a_minute_is_heard_in_pieces(kind, wanted):
    seen = []

    def recognise(sound, **options):
        seen.append(options)
        return {"text": f" {len(sound['raw'])}"}

    hearer = object.__new__(intelligibility.FolderRecogniser)
    recognise.type, hearer._recognise, hearer._lock = kind, recognise, threading.Lock()
    assert hearer.hear(np.ones(30 * 8_000), 8_000).strip() == str(30 * judge.RATE)
    hearer.hear(np.ones(30 * judge.RATE + 1), judge.RATE)
    assert seen == [{}, wanted]


@pytest.mark.parametrize("content", [None, "{}", '{"model_type": "qwen2"}'])
def test_a_folder_without_a_recogniser_is_refused(tmp_path, content):
    pytest.importorskip("transformers")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"--recogniser must be a folder.*{tmp_path}"):
        intelligibility.FolderRecogniser(tmp_path)
