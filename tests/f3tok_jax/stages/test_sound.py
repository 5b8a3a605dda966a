# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the host counts that an example takes of a row is what the device packs: it drops nothing."""

import functools

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from f3tok_jax.models import sequences
from f3tok_jax.runs import sound as run_sound
from f3tok_jax.stages import generation
from f3tok_jax.stages import representation
from f3tok_jax.stages import sound as sound_lib

_FRAMES, _TOKENS, _EXAMPLES = 20, 9, 4


def _packed(sizes, *, patch, text_first, length):
    """The positions that are asked for and those that have room, as the stages pack them."""
    frames = np.arange(_FRAMES)[None] < np.array([frames for frames, _ in sizes])[:, None]
    tokens = np.arange(_TOKENS)[None] < np.array([tokens for _, tokens in sizes])[:, None]
    whole = np.all if text_first else np.any  # speaking, a patch that is not whole is left out
    patches = whole(frames.reshape(len(sizes), -1, patch), axis=-1)
    made = sequences.make_sequences(
        jnp.zeros((*patches.shape, 2)),
        jnp.array(patches),
        jnp.zeros((2, 2)),
        jnp.zeros(tokens.shape, jnp.int32),
        jnp.array(tokens),
        jnp.array(tokens),
        embed=lambda ids: jnp.zeros((*ids.shape, 2)),
        text_first=text_first,
        examples_per_row=_EXAMPLES,
        length=length,
    )
    return np.sum(np.asarray(made.segments) > 0), patches.sum(), tokens.sum()


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("stage", [representation, generation])
def test_the_device_drops_nothing_of_what_the_host_has_arranged(stage, patch):
    needs = functools.partial(stage.row_needs, patch=patch)
    section = dict(examples=_EXAMPLES, frames=40, patches=48 // patch, positions=40 - 4 * patch)
    config = ml_collections.ConfigDict(dict(packing=section, data=dict(crop_frames=_FRAMES)))
    sound = run_sound.Sound(sample_rate=100, samples_per_latent=10, latent_dim=2)
    rows = sound_lib.shared_rows(config, sound, needs, max_tokens=_TOKENS)
    assert rows.examples == _EXAMPLES and rows.samples_per_frame == 10
    assert rows.room["positions"] == min(
        40 - 4 * patch, _EXAMPLES * needs(_FRAMES, _TOKENS)["positions"]
    )
    rng, left_out = np.random.default_rng(patch), 0
    for _ in range(10):
        drawn = [
            tuple(map(int, rng.integers((1, 0), (_FRAMES + 1, _TOKENS + 1)))) for _ in range(16)
        ]
        places = rows.arrange([needs(*size) for size in drawn])
        sizes = [(0, 0)] * len(drawn)
        for size, place in zip(drawn, places):
            if place is not None:
                sizes[place] = size
        left_out += places.count(None)
        held, _, _ = _packed(
            sizes, patch=patch, text_first=stage is generation, length=rows.room["positions"]
        )
        assert held == sum(needs(*size)["positions"] for size in sizes)
    assert left_out  # the rows were full
