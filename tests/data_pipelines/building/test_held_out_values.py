# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Values by which a sound is held out."""

import pytest

from data_pipelines.building import held_out_values
from data_pipelines.records import sound


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("speaker", ("ann",)),
        ("transcript", ("yes", "a label that is called so")),
        ("caption", ("a voice",)),
        ("text", ("yes", "a voice")),
        ("language", ()),
    ],
)
def test_of_labels_and_of_texts(label, values):
    texts = [
        sound.Text(content="yes", kind="transcript"),
        sound.Text(content="a voice", kind="caption"),
        sound.Text(content="a voice", kind="caption"),
    ]
    labels = {"speaker": "ann", "transcript": "a label that is called so"}
    assert held_out_values.of(label, texts, labels) == values
