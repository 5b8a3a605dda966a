# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Audio and text as the rows that a language model reads."""

from collections.abc import Callable
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp

from f3tok_jax.models import log_normalizer as log_normalizer_lib
from f3tok_jax.models import packing


@flax.struct.dataclass
class Sequences:
    """What the language model reads, packed, and what it is scored on.

    Attributes:
        embeddings: [r, t, width] float32.
        positions: [r, t] int32, within their example.
        segments: [r, t] int32, 1, 2, ... the example of a row, 0 for padding.
        scored: [r, a] int32, positions whose next token is to be predicted.
        targets: [r, a] int32, those tokens.
        weight: [r, a] bool, True where there is one.
        plan: how slots became rows: those of each example in turn, num_slots of them.
        lost: positions that had no room, of how many that were to be read; float32 scalars.
    """

    embeddings: jax.Array
    positions: jax.Array
    segments: jax.Array
    scored: jax.Array
    targets: jax.Array
    weight: jax.Array
    plan: packing.Packing
    lost: tuple[jax.Array, jax.Array]


def make_sequences(
    audio: jax.Array,
    audio_mask: jax.Array,
    boundaries: jax.Array,
    text: jax.Array,
    text_mask: jax.Array,
    answer: jax.Array,
    *,
    embed: Callable[[jax.Array], jax.Array],
    text_first: bool = False,
    examples_per_row: int = 1,
    length: int = 0,
) -> Sequences:
    """Builds the rows that the language model reads.

    To be asked about sound, an example is [start] audio [end] text, and one without text takes no
    room at all. To speak, it is text [start] audio, and text may be missing.

    Args:
        audio: [b, n, width] audio tokens, at the scale of the token embeddings.
        audio_mask: [b, n] bool, True where there is sound.
        boundaries: [2, width], embeddings of the start and the end of audio, at the same scale.
        text: [b, s] int32 token ids: instruction, answer, end of text.
        text_mask: [b, s] bool, True where a token is.
        answer: [b, s] bool, True where it is to be predicted.
        embed: token ids [...] to embeddings [..., width].
        text_first: True to speak.
        examples_per_row: neighbours in the batch that share a row.
        length: positions of a row; 0 for as many as its examples could ever need.

    Returns:
        b / examples_per_row rows.
    """
    batch_size, num_audio, width = audio.shape
    edges = jnp.broadcast_to(boundaries[:, None, None], (2, batch_size, 1, width))
    embedded = embed(text).astype(jnp.float32)
    none = jnp.zeros((batch_size, num_audio + 2 - text_first), jnp.int32)
    if text_first:
        present = jnp.any(audio_mask, axis=1, keepdims=True)
        slots = [embedded, edges[0], audio]
        mask = [text_mask & present, present, audio_mask]
        tokens, answers = [text, none], [answer & text_mask & present, none.astype(bool)]
    else:
        present = jnp.any(text_mask, axis=1, keepdims=True)
        slots = [edges[0], audio, edges[1], embedded]
        mask = [present, audio_mask & present, present, text_mask]
        tokens, answers = [none, text], [none.astype(bool), answer & text_mask]
    slots, mask, tokens, answers = (
        jnp.concatenate(parts, axis=1) for parts in (slots, mask, tokens, answers)
    )
    positions = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
    number = 1 + jnp.arange(batch_size, dtype=jnp.int32) % examples_per_row
    segments = jnp.broadcast_to(number[:, None], mask.shape)
    rows = functools.partial(packing.rows, examples=examples_per_row)
    mask = rows(mask)
    plan = packing.pack(mask, length=min(length or mask.shape[1], mask.shape[1]))
    tokens, answers = packing.take(plan, rows(tokens)), packing.take(plan, rows(answers))
    # A position predicts the token after it. The first position of a row is never an answer.
    predicts = jnp.pad(answers[:, 1:], ((0, 0), (0, 1)))
    following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    num_scored = min(examples_per_row * text.shape[1], predicts.shape[1])
    scored = packing.pack(predicts, length=num_scored)
    return Sequences(
        embeddings=packing.take(plan, rows(slots)),
        positions=packing.take(plan, rows(positions)),
        segments=packing.take(plan, rows(segments)),
        scored=scored.order,
        targets=packing.take(scored, following),
        weight=scored.valid,
        plan=plan,
        lost=packing.lost(plan, mask),
    )


def to_slots(sequences: Sequences, hidden: jax.Array, *, num_examples: int) -> jax.Array:
    """States [r, t, d] of packed rows back where each example has its parts: [b, slots, d].

    The slots are those of `make_sequences`, text, start and audio; zeros where nothing was read.
    """
    slots = packing.put_back(sequences.plan, hidden)
    return slots.reshape(num_examples, -1, hidden.shape[-1])


@flax.struct.dataclass
class Score:
    """Sums over answer tokens, to divide once after all have been added; float32 scalars.

    Attributes:
        loss: cross-entropies, nats.
        correct: tokens that were the likeliest.
        weight: tokens.
    """

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array


def score(
    sequences: Sequences, hidden: jax.Array, logits_of: Callable[[jax.Array], jax.Array]
) -> Score:
    """Scores the answers; logits exist at scored positions only.

    Args:
        sequences: that were read.
        hidden: [r, t, width], states of the language model.
        logits_of: states [..., width] to logits [..., vocabulary], float32.
    """
    states = jnp.take_along_axis(hidden, sequences.scored[..., None], axis=1)
    logits = logits_of(states)
    chosen = jnp.take_along_axis(logits, sequences.targets[..., None], axis=-1)[..., 0]
    loss = jnp.where(sequences.weight, log_normalizer_lib.log_normalizer(logits) - chosen, 0.0)
    correct = sequences.weight & (chosen >= jnp.max(logits, axis=-1))
    return Score(
        loss=jnp.sum(loss),
        correct=jax.lax.stop_gradient(jnp.sum(correct, dtype=jnp.float32)),
        weight=jnp.sum(sequences.weight, dtype=jnp.float32),
    )


def text_spec(batch_size: int, max_tokens: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What a batch must have of text, as data_pipelines.reading.tasks writes it."""
    shape = (batch_size, max_tokens)
    spec = {"text": jax.ShapeDtypeStruct(shape, jnp.int32)}
    return spec | {name: jax.ShapeDtypeStruct(shape, jnp.bool_) for name in ("answer", "text_mask")}


def num_positions(num_frames: int, num_text: int, *, patch: int) -> int:
    """Positions that one example of `num_frames` frames and `num_text` tokens can need."""
    return math.ceil(num_frames / patch) + 2 + num_text
