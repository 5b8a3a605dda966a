# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that a language model reads, against examples put together one by one."""

import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import sequences as sequences_lib

_WIDTH, _VOCABULARY = 4, 11


_RNG = np.random.default_rng(0)


_TABLE = jnp.array(_RNG.normal(size=(_VOCABULARY, _WIDTH)), jnp.float32)


_BOUNDARIES = jnp.array(_RNG.normal(size=(2, _WIDTH)), jnp.float32)


# Two audio tokens, three, none of text, one; three text tokens, four, none, two.
_AUDIO_LENGTHS, _TEXT_LENGTHS, _ANSWER_LENGTHS = (2, 3, 3, 1), (3, 4, 0, 2), (1, 2, 0, 2)


def _batch():
    audio = jnp.array(_RNG.normal(size=(4, 3, _WIDTH)), jnp.float32)
    position = jnp.arange(5)[None]
    lengths, answers = jnp.array(_TEXT_LENGTHS)[:, None], jnp.array(_ANSWER_LENGTHS)[:, None]
    text_mask = position < lengths
    return dict(
        audio=audio,
        audio_mask=jnp.arange(3)[None] < jnp.array(_AUDIO_LENGTHS)[:, None],
        boundaries=_BOUNDARIES,
        text=jnp.where(text_mask, jnp.array(_RNG.integers(1, _VOCABULARY, (4, 5))), 0),
        text_mask=text_mask,
        answer=text_mask & (position >= lengths - answers),
    )


def _make(batch, **options) -> sequences_lib.Sequences:
    return sequences_lib.make_sequences(**batch, embed=lambda ids: _TABLE[ids], **options)


def _expected_example(batch, row: int) -> np.ndarray:
    if not _TEXT_LENGTHS[row]:
        return np.zeros((0, _WIDTH))
    audio = np.array(batch["audio"])[row, : _AUDIO_LENGTHS[row]]
    text = np.array(_TABLE)[np.array(batch["text"])[row, : _TEXT_LENGTHS[row]]]
    start, end = np.array(_BOUNDARIES)
    return np.concatenate([start[None], audio, end[None], text])


@pytest.mark.parametrize("examples_per_row", [1, 2, 4])
def test_rows_hold_audio_between_its_boundaries_then_text(examples_per_row):
    batch = _batch()
    sequences = _make(batch, examples_per_row=examples_per_row)
    for row in range(4 // examples_per_row):
        members = range(row * examples_per_row, (row + 1) * examples_per_row)
        parts = [_expected_example(batch, member) for member in members]
        expected = np.concatenate(parts)
        count = len(expected)
        np.testing.assert_array_equal(sequences.embeddings[row, :count], np.float32(expected))
        assert not np.any(sequences.embeddings[row, count:])
        segments = np.concatenate([np.full(len(p), 1 + i) for i, p in enumerate(parts)])
        np.testing.assert_array_equal(sequences.segments[row, :count], segments)
        assert not np.any(sequences.segments[row, count:])
        positions = np.concatenate([np.arange(len(p)) for p in parts])
        np.testing.assert_array_equal(sequences.positions[row, :count], positions)


@pytest.mark.parametrize("examples_per_row", [1, 2])
def test_each_answer_token_is_predicted_from_the_position_before_it(examples_per_row):
    batch = _batch()
    sequences = _make(batch, examples_per_row=examples_per_row)
    found = []
    for row in range(4 // examples_per_row):
        weight = np.array(sequences.weight)[row]
        for index, target in zip(
            np.array(sequences.scored)[row][weight], np.array(sequences.targets)[row][weight]
        ):
            following = np.array(sequences.embeddings)[row, index + 1]
            np.testing.assert_array_equal(following, np.array(_TABLE)[target])
            segments = np.array(sequences.segments)[row]
            assert segments[index] == segments[index + 1]
            found.append(int(target))
    expected = np.array(batch["text"])[np.array(batch["answer"])]
    assert found == expected.tolist() and len(found) == sum(_ANSWER_LENGTHS)


def test_score_is_the_cross_entropy_of_the_answers_alone():
    batch = _batch()
    sequences = _make(batch)
    hidden = jnp.array(_RNG.normal(size=sequences.embeddings.shape), jnp.float32)
    score = sequences_lib.score(sequences, hidden, lambda states: states @ _TABLE.T)
    total = 0.0
    for row in range(4):
        for index, target, is_answer in zip(
            sequences.scored[row], sequences.targets[row], sequences.weight[row]
        ):
            if is_answer:
                logits = np.array(hidden[row, index] @ _TABLE.T, np.float64)
                total += np.log(np.sum(np.exp(logits))) - logits[int(target)]
    assert float(score.weight) == sum(_ANSWER_LENGTHS)
    assert float(score.loss) == pytest.approx(total, rel=1e-5)


def test_what_a_row_has_no_room_for_is_not_scored():
    sequences = _make(_batch(), examples_per_row=2, length=8)
    assert sequences.embeddings.shape == (2, 8, _WIDTH)
    # Row 0: 2 + 2 + 3 positions of the first example, one of the second, whose answer is lost.
    assert np.sum(np.array(sequences.weight), axis=1).tolist() == [1, 2]


def test_labels_of_instructions_and_audio_do_not_matter():
    batch = _batch()
    hidden = jnp.array(_RNG.normal(size=(4, 10, _WIDTH)), jnp.float32)

    def loss(text):
        changed = batch | {"text": text}
        return sequences_lib.score(_make(changed), hidden, lambda states: states @ _TABLE.T).loss

    other = jnp.where(batch["answer"], batch["text"], (batch["text"] + 1) % _VOCABULARY)
    assert float(loss(batch["text"])) == float(loss(other))
    assert float(loss(batch["text"])) != float(loss((batch["text"] + 1) % _VOCABULARY))
