# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which column is what, by its name, and what a row says."""

import pytest

from data_pipelines.inputs import columns


def _texts(fields, **options):
    texts, _ = columns.texts_and_labels(fields, **options)
    return [(text.kind[0], text.content) for text in texts]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"text": " Hello ", "speaker": "a"}, [("t", "Hello")]),
        ({"Transcription": "Hello"}, [("t", "Hello")]),
        ({"sentence": "Hello", "sentence_id": "s"}, [("t", "Hello")]),
        ({"raw_text": "1", "normalized_text": "one"}, [("t", "one")]),
        ({"text_original": "1", "text_normalized": " "}, [("t", "1")]),
        ({"text": "1", "Normalised Text": "one"}, [("t", "one")]),
        ({"text": "same", "transcript": "same"}, [("t", "same")]),
        ({"caption_1": "a", "caption_2": "b", "caption_3": ""}, [("c", "a"), ("c", "b")]),
        ({"captions": ["a", "b", "a"]}, [("c", "a"), ("c", "b")]),
        ({"audio_caption": "a", "text": "b"}, [("t", "b"), ("c", "a")]),
        ({"description": b"na\xc3\xafve"}, [("c", "na\u00efve")]),
        ({"text": "a dog barks", "kind": "Caption"}, [("c", "a dog barks")]),
        ({"text": "a dog barks", "task": "captioning"}, [("c", "a dog barks")]),
        ({"text": "a", "kind": ""}, [("t", "a")]),
        ({"text": None, "caption": float("nan")}, []),
        ({"text": " \n"}, []),
        ({"text": ["hello"]}, [("t", "hello")]),
        # As CSV holds lists that Python or JSON have written.
        ({"captions": "['a dog', \"a cat's\"]"}, [("c", "a dog"), ("c", "a cat's")]),
        ({"captions": '["a dog", "na\\u00efve"]'}, [("c", "a dog"), ("c", "na\u00efve")]),
        ({"caption": "['a' 'b'\n 'c']"}, [("c", "['a' 'b'\n 'c']")]),
        ({"text": "[laughs] ['twas]"}, [("t", "[laughs] ['twas]")]),
        ({"caption": "[1, 2]"}, [("c", "[1, 2]")]),
        ({"text": ["a dog", "a bark"], "kind": "caption"}, [("c", "a dog"), ("c", "a bark")]),
        # The text of audio2dataset, and that of the caption it is a copy of.
        ({"text": "a dog", "caption": "a dog"}, [("c", "a dog")]),
        ({"text": "a dog", "captions": ["a dog", "a bark"]}, [("c", "a dog"), ("c", "a bark")]),
        ({"transcript": "a dog", "caption": "a dog"}, [("t", "a dog"), ("c", "a dog")]),
        ({"text": "a dog", "caption": "a dog", "kind": "asr"}, [("t", "a dog"), ("c", "a dog")]),
    ],
)
def test_texts_have_the_kind_that_their_column_says(fields, expected):
    assert _texts(fields) == expected


def test_the_kind_that_is_asked_for_holds_where_no_column_says_it():
    assert _texts({"text": "a"}, text_kind="caption") == [("c", "a")]
    assert _texts({"text": "a", "kind": "speech"}, text_kind="caption") == [("t", "a")]
    assert _texts({"transcript": "a"}, text_kind="caption") == [("t", "a")]
    assert _texts({"caption": "a"}, text_kind="transcript") == [("c", "a")]
    several = {"text": ["a dog", "a bark"]}
    assert _texts(several, text_kind="caption") == [("c", "a dog"), ("c", "a bark")]


def test_all_other_columns_are_labels():
    fields = {"text": "a", "speaker": "ann", "age": 30, "": "x", "_": "y", "noisy": True}
    fields |= {"empty": " ", "segments": [1, 2], "none": None, "gain": 0.5}
    _, labels = columns.texts_and_labels(fields)
    assert labels == {"speaker": "ann", "age": "30", "noisy": "true", "gain": "0.5"}
    # Where there is no text it cannot have a kind.
    assert columns.texts_and_labels({"kind": "drum"}) == ((), {"kind": "drum"})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"text": "a", "kind": "drum"}, "a.csv, line 3 must have transcript or caption .* 'drum'"),
        ({"text": "a", "sentence": "b"}, "line 3 says different words in text and sentence"),
        ({"caption": "a", "kind": "transcript"}, "line 3 has a caption .* it is a transcript"),
        ({"transcript": "a", "kind": "caption"}, "line 3 has a transcript .* it is a caption"),
        ({"text": "a\0b"}, "line 3 must have text"),
        ({"text": "\ud800"}, "line 3 must have text"),
        ({"text": ["a", "b"]}, "line 3 must have one transcript in its column text, got 2"),
        ({"text": {"en": "a"}}, "line 3 must have text in its column text, got {'en': 'a'}"),
        ({"captions": [{"text": "a"}]}, "line 3 must have text in its column captions, got {"),
        ({"caption": b"\xff"}, "line 3 must have UTF-8 in its column caption"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_by_line(fields, message):
    with pytest.raises(ValueError, match=message):
        columns.texts_and_labels(fields, where="a.csv, line 3")


def test_the_column_of_the_file_is_found_the_surest_first():
    assert columns.files(["client_id", "path", "sentence_id", "sentence"]) == ("path",)
    assert columns.files(["id", "File-Name", "audio"]) == ("File-Name", "audio", "id")
    assert columns.files(["speaker", "text"]) == ()


def test_a_header_names_the_file_and_a_text():
    assert columns.is_header(["file_name", "caption_1", "caption_2"])
    assert columns.is_header(["ID ", "Text"])
    assert not columns.is_header(["u1", "text"])
    assert not columns.is_header(["file", "speaker"])  # nor is it none: that is for others to judge
