# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The generator: no patch sees itself, rows share without seeing, sampling is what was taught."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import sampler as sampler_lib
from tests.support import tiny_models

# Per example: patches of sound, text tokens. Rows of two hold 9 and 11 positions with their starts;
# one without sound takes no room, one without text continues what it hears.
_PATCHES, _TEXTS = (4, 2, 3, 4), (1, 0, 2, 0)
_NUM_PATCHES, _NUM_TEXT, _DIM = 4, 3, 4
_SAMPLER = sampler_lib.Sampler(num_steps=2, guidance=2.0)

GENERATOR, WEIGHTS = tiny_models.generator()


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _batch(**changes) -> dict[str, np.ndarray]:
    """Four examples, whose last latents fill no patch."""
    time = np.arange(2 * _NUM_PATCHES + 1)[None]
    position = np.arange(_NUM_TEXT)[None]
    text_mask = position < np.array(_TEXTS)[:, None]
    batch = dict(
        latents=_normal(4, time.shape[1], _DIM),
        # Half a patch more of sound, which is no patch.
        mask=time < 2 * np.array(_PATCHES)[:, None] + 1,
        text=np.where(text_mask, np.random.default_rng(0).integers(1, 11, (4, _NUM_TEXT)), 0),
        text_mask=text_mask,
        answer=text_mask & (position > 0),
    )
    return batch | changes


@functools.lru_cache
def _compiled_teach(**options):
    return jax.jit(functools.partial(GENERATOR.teach, **options))


def _teach(batch, **options) -> generator_lib.Teaching:
    return jax.device_get(_compiled_teach(**options)(WEIGHTS, **batch))


@pytest.fixture(scope="module")
def plain() -> generator_lib.Teaching:
    return _teach(_batch())


_PACKED = dict(examples_per_row=2)


def test_targets_and_history_are_the_latents_and_half_a_patch_is_none(plain):
    latents = _batch()["latents"]
    np.testing.assert_array_equal(flow_head.latents_of(plain.targets), latents[:, :-1])
    np.testing.assert_array_equal(plain.history, flow_head.history_of(plain.targets, 2))
    expected = np.arange(_NUM_PATCHES)[None] < np.array(_PATCHES)[:, None]
    np.testing.assert_array_equal(plain.mask, expected)
    assert plain.text is None
    np.testing.assert_array_equal(plain.tokens[:, 0], 0.0)


@pytest.mark.parametrize("options", [dict(), _PACKED], ids=["plain", "packed"])
@pytest.mark.parametrize("patch", [0, 2, 3])
def test_a_condition_sees_the_patches_before_its_own_alone(patch, options):
    whole, latents = _teach(_batch(), **options), _batch()["latents"]
    latents[0, 2 * patch : 2 * patch + 2] = 3.0 * _normal(2, _DIM, seed=1)
    other = _teach(_batch(latents=latents), **options)
    for name in ("states", "tokens", "history"):
        before, after = getattr(whole, name), getattr(other, name)
        np.testing.assert_array_equal(after[0, : patch + 1], before[0, : patch + 1], err_msg=name)
        np.testing.assert_array_equal(after[1:], before[1:], err_msg=name)
    for name in ("states", "tokens"):  # an encoder's window of 5 spans two patches
        changed = np.abs(getattr(other, name) - getattr(whole, name)).max(-1)
        assert (changed[0, patch + 1 : patch + 3] > 1e-4).all(), name
    assert (np.abs(other.states - whole.states).max(-1)[0, patch + 1 :] > 0).all()


def _sounding(teaching: generator_lib.Teaching) -> np.ndarray:
    """[b, n + 1] states that something is read at: the start and every patch of sound."""
    return np.concatenate([np.ones((4, 1), bool), teaching.mask], axis=1)


def test_rows_that_examples_share_teach_the_same(plain):
    packed = _teach(_batch(), **_PACKED)
    for name in ("targets", "history", "mask", "tokens"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(plain, name), err_msg=name)
    where = _sounding(plain)
    # Float32 sums in another order.
    np.testing.assert_allclose(packed.states[where], plain.states[where], atol=1e-5)


def test_what_a_shorter_row_has_no_room_for_is_masked_and_the_rest_the_same(plain):
    short = _teach(_batch(), length=9, **_PACKED)
    # The first row's text, starts and patches fill 9 positions; of the second's 12 the last three
    # are patches of its second example.
    assert short.mask.sum(axis=1).tolist() == [4, 2, 3, 2]
    assert (short.mask <= plain.mask).all()
    where = _sounding(short)
    np.testing.assert_allclose(short.states[where], plain.states[where], atol=1e-5)


def test_an_example_without_sound_teaches_nothing_and_takes_no_room():
    mask = _batch()["mask"]
    mask[2] = False
    silent = _teach(_batch(mask=mask), length=9, **_PACKED)
    assert silent.mask.sum(axis=1).tolist() == [4, 2, 0, 4]


@pytest.mark.parametrize("options", [dict(), _PACKED], ids=["plain", "packed"])
def test_text_is_seen_by_its_own_example_alone(options):
    batch = _batch()
    whole = _teach(batch, **options)
    text = batch["text"].copy()
    text[2, 0] = 1 + text[2, 0] % 10
    other = _teach(_batch(text=text), **options)
    changed = np.abs(other.states - whole.states).max(-1)
    assert (changed[2][_sounding(whole)[2]] > 1e-4).all()
    np.testing.assert_array_equal(other.states[[0, 1, 3]], whole.states[[0, 1, 3]])
    np.testing.assert_array_equal(other.tokens, whole.tokens)


def test_noise_is_on_what_the_encoder_hears_alone(plain):
    noisy = _teach(_batch() | {"noise_key": jax.random.key(0)})
    assert np.abs(noisy.tokens[:, 1:] - plain.tokens[:, 1:]).max() > 0.01
    np.testing.assert_array_equal(noisy.targets, plain.targets)
    np.testing.assert_array_equal(noisy.history, plain.history)


def test_the_text_is_scored_as_the_language_model_alone_scores_it():
    batch = _batch(text_mask=np.arange(3)[None] < np.array([[3], [2], [0], [1]]))
    batch["text"] = np.random.default_rng(1).integers(1, 11, (4, _NUM_TEXT))
    batch["answer"] = np.broadcast_to(np.arange(3)[None] > 0, (4, 3))
    score = _teach(batch, examples_per_row=2, score_text=True).text
    predict = jax.jit(functools.partial(GENERATOR.language_model.apply, method="predict"))
    logits = predict({"params": WEIGHTS["language_model"]}, batch["text"])
    losses = -jax.nn.log_softmax(logits)[jnp.array([0, 0, 1]), jnp.array([0, 1, 0])]
    picked = losses[jnp.arange(3), batch["text"][[0, 0, 1], [1, 2, 1]]]
    assert score.weight == 3
    assert score.loss == pytest.approx(float(jnp.sum(picked)), rel=1e-5)


# Sampling. Three rows: text of two, none, and three tokens.

_begin = jax.jit(GENERATOR.begin, static_argnames="max_patches")
_advance = jax.jit(GENERATOR.advance, static_argnames=("sampler", "num_patches"))
_sample = jax.jit(functools.partial(GENERATOR.sample, sampler=_SAMPLER))
_KEY = jax.random.key(7)
_ROWS, _MOST = 3, 8
_TEXT = np.array([[3, 5, 0], [0, 0, 0], [2, 9, 4]], np.int32)
_TEXT_MASK = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)


def _weights(stop: float | np.ndarray | None = None) -> dict:
    """The weights, with a bias of the stop logits."""
    if stop is None:
        return WEIGHTS
    out = WEIGHTS["head"]["stop_out"] | {"bias": jnp.full((1,), stop, jnp.float32)}
    return WEIGHTS | {"head": WEIGHTS["head"] | {"stop_out": out}}


def _begun(prompt=None, prompt_mask=None, *, weights=None) -> generator_lib.Speech:
    if prompt is None:
        prompt, prompt_mask = np.zeros((_ROWS, 0, 2, _DIM), np.float32), np.zeros((_ROWS, 0), bool)
    weights = weights or WEIGHTS
    return _begin(weights, _TEXT, _TEXT_MASK, prompt, prompt_mask, max_patches=_MOST)


def _spoken(speech, *, limit=_MOST, num_patches=8, weights=None, calls=1, least=0):
    """(speech, patches [b, k, p, d], mask [b, k]) after some calls."""
    limit = np.broadcast_to(np.array(limit, np.int32), (_ROWS,))
    parts, masks = [], []
    for _ in range(calls):
        speech, patches, mask = _advance(
            weights or _weights(-100.0), speech, _KEY, limit,
            sampler=_SAMPLER, num_patches=num_patches, least=least,
        )  # fmt: skip
        parts.append(patches)
        masks.append(mask)
    return speech, np.concatenate(parts, axis=1), np.concatenate(masks, axis=1)


@pytest.fixture(scope="module")
def begun() -> generator_lib.Speech:
    return _begun()


@pytest.fixture(scope="module")
def endless(begun):
    """Eight patches in one call, none the last."""
    return _spoken(begun)


def _taught(patches: np.ndarray, text=_TEXT, text_mask=_TEXT_MASK) -> generator_lib.Teaching:
    """Whole sequences of [b, n, p, d], all of it sound."""
    latents = np.asarray(flow_head.latents_of(patches))
    return _teach(
        dict(
            latents=latents,
            mask=np.ones(latents.shape[:2], bool),
            text=text,
            text_mask=text_mask,
            answer=np.zeros(text.shape, bool),
        )
    )


def _noise(speech: generator_lib.Speech, index: np.ndarray) -> jax.Array:
    speech = dataclasses.replace(speech, index=jnp.asarray(index, jnp.int32))
    return generator_lib.noise_of(_KEY, speech, (_ROWS, 1, 2, _DIM))


def test_sampling_on_caches_is_sampling_after_what_was_taught(begun, endless):
    speech, patches, mask = endless
    assert mask.all() and np.abs(np.diff(patches, axis=1)).min() > 0
    teaching = _taught(patches)
    np.testing.assert_allclose(begun.state, teaching.states[:, 0], atol=1e-5)
    for index in range(_MOST):
        expected = _sample(
            WEIGHTS, teaching.states[:, index], teaching.tokens[:, index],
            teaching.history[:, index], _noise(begun, np.full(_ROWS, index)),
        )  # fmt: skip
        # The order of float32 sums is all that differs, over a few layers.
        np.testing.assert_allclose(patches[:, index], expected, atol=1e-5, err_msg=str(index))
    np.testing.assert_allclose(speech.state, teaching.states[:, -1], atol=1e-5)
    np.testing.assert_allclose(speech.token, teaching.tokens[:, -1], atol=1e-5)
    np.testing.assert_array_equal(speech.history, flow_head.latents_of(patches[:, -2:]))


def test_noise_is_of_its_row_and_its_index_alone(begun):
    first, second = (np.asarray(_noise(begun, np.full(_ROWS, index))) for index in (0, 1))
    mixed = np.asarray(_noise(begun, np.array([0, 1, 0])))
    np.testing.assert_array_equal(mixed, np.stack([first[0], second[1], first[2]]))
    every = np.concatenate([first, second]).reshape(2 * _ROWS, -1)
    assert len(np.unique(every)) == every.size


@pytest.mark.parametrize("num_patches, calls", [(1, 8), (3, 3)])
def test_the_chunks_in_which_patches_are_asked_for_change_nothing(
    num_patches, calls, begun, endless
):
    speech, patches, mask = _spoken(begun, num_patches=num_patches, calls=calls)
    assert mask[:, :_MOST].all() and not mask[:, _MOST:].any()
    # Programs differ, and with them the order of float32 sums.
    np.testing.assert_allclose(patches[:, :_MOST], endless[1], atol=1e-5)
    np.testing.assert_array_equal(patches[:, _MOST:], 0.0)
    assert speech.index.tolist() == [_MOST] * _ROWS and speech.is_done.all()


def test_rows_end_at_their_limits_each(begun, endless):
    limits = [1, 8, 3]
    speech, patches, mask = _spoken(begun, limit=limits)
    np.testing.assert_array_equal(mask, np.arange(_MOST)[None] < np.array(limits)[:, None])
    assert speech.is_done.all() and speech.index.tolist() == limits
    np.testing.assert_array_equal(patches[~mask], 0.0)
    # Who stops changes nothing for who goes on.
    np.testing.assert_array_equal(patches[mask], endless[1][mask])


def test_where_every_state_says_stop_there_is_one_patch(begun):
    speech, _, mask = _spoken(begun, weights=_weights(100.0))
    assert mask.sum(axis=1).tolist() == [1] * _ROWS and mask[:, 0].all()
    assert speech.index.tolist() == [1] * _ROWS and speech.is_done.all()


def test_before_the_least_number_of_patches_no_row_stops_by_itself(begun):
    speech, _, mask = _spoken(begun, weights=_weights(100.0), least=3, limit=[8, 2, 8])
    assert mask.sum(axis=1).tolist() == [3, 2, 3] and speech.is_done.all()


def _lengths(logits: np.ndarray) -> np.ndarray:
    """Patches until it is more likely than not that a row has ended, from stop logits [b, n]."""
    ended = np.exp(-np.cumsum(np.logaddexp(0.0, logits), axis=1)) < 0.5
    return np.where(ended.any(axis=1), 1 + ended.argmax(axis=1), _MOST)


def test_rows_end_at_the_median_of_the_lengths_that_their_states_foretell(begun, endless):
    head = GENERATOR.head.bind({"params": _weights(0.0)["head"]})
    logits = np.asarray(head.stop_logits(_taught(endless[1]).states[:, 1:]))
    # No patch alone is likely to be the last, and rounding decides nothing.
    bias = -1.0 - logits.max()
    expected = _lengths(logits + bias)
    assert (expected == _lengths(logits + bias + 1e-3)).all()
    assert len(set(expected.tolist())) > 1 and (expected < _MOST).any()
    speech, patches, mask = _spoken(begun, weights=_weights(bias))
    assert mask.sum(axis=1).tolist() == expected.tolist()
    np.testing.assert_array_equal(mask, np.arange(_MOST)[None] < expected[:, None])
    np.testing.assert_array_equal(patches[mask], endless[1][mask])


def test_a_row_that_is_done_does_not_change_any_more(begun):
    limits = [1, 8, 3]
    early, _, _ = _spoken(begun, limit=limits, num_patches=3)
    late, patches, mask = _spoken(early, limit=limits, num_patches=3)
    assert early.is_done.tolist() == [True, False, True]
    for name in ("state", "token", "history", "index"):
        before, after = np.asarray(getattr(early, name)), np.asarray(getattr(late, name))
        np.testing.assert_array_equal(after[::2], before[::2], err_msg=name)
        assert (after[1] != before[1]).any(), name
    for name in ("encoder", "language_model"):
        before, after = getattr(early, name), getattr(late, name)
        for field in ("positions", "lengths"):
            np.testing.assert_array_equal(getattr(after, field)[::2], getattr(before, field)[::2])
        held = np.asarray(before.positions)[::2] >= 0
        after_keys, before_keys = (
            np.moveaxis(np.asarray(cache.keys)[:, ::2], 3, 2)[:, held] for cache in (after, before)
        )
        np.testing.assert_array_equal(after_keys, before_keys)
        assert after.lengths[1] > before.lengths[1]
    assert not mask[::2].any() and mask[1].all()
    np.testing.assert_array_equal(patches[::2], 0.0)


def test_caches_that_grow_change_nothing():
    generator = dataclasses.replace(GENERATOR, encoder=GENERATOR.encoder.clone(window=0))
    begin = jax.jit(generator.begin, static_argnames="max_patches")
    advance = functools.partial(
        jax.jit(generator.advance, static_argnames=("sampler", "num_patches")),
        _weights(-100.0), key=_KEY, limit=np.full(_ROWS, 24), sampler=_SAMPLER, num_patches=12,
    )  # fmt: skip
    rows = _TEXT, _TEXT_MASK, np.zeros((_ROWS, 0, 2, _DIM), np.float32), np.zeros((_ROWS, 0), bool)
    large, first, _ = advance(begin(WEIGHTS, *rows, max_patches=31))
    _, second, _ = advance(large)
    small, found, _ = advance(begin(WEIGHTS, *rows, max_patches=12))
    grown = generator.grown(small, 12)
    for name in ("encoder", "language_model"):
        caches = (getattr(speech, name) for speech in (small, grown))
        assert [cache.keys.shape[3] for cache in caches] == [32, 64]
    _, more, mask = advance(grown)
    assert mask.all()
    # Programs differ, and with them the order of float32 sums.
    np.testing.assert_allclose([found, more], [first, second], atol=1e-5)


def test_a_cache_with_a_window_need_not_grow(begun):
    grown = GENERATOR.grown(begun, 99)
    jax.tree.map(np.testing.assert_array_equal, grown.encoder, begun.encoder)


def test_weights_as_they_are_stored_change_no_bit():
    parts = ("encoder", "projector", "head")
    coarse = {name: getattr(GENERATOR, name).clone(compute_dtype="bfloat16") for name in parts}
    model = GENERATOR.language_model
    coarse["language_model"] = model.clone(
        transformer=model.transformer.clone(compute_dtype="bfloat16")
    )
    generator = dataclasses.replace(GENERATOR, **coarse)
    stored = generator.stored(WEIGHTS)

    @jax.jit
    def spoken(weights):
        rows = _normal(1, 1, 2, _DIM), np.ones((1, 1), bool)
        speech = generator.begin(weights, _TEXT[:1], _TEXT_MASK[:1], *rows, max_patches=1)
        head = generator.head.bind({"params": weights["head"]})
        drawn = generator.sample(
            weights, speech.state, speech.token, speech.history, speech.history[:, -2:],
            sampler=_SAMPLER,
        )  # fmt: skip
        return speech, drawn, head.stop_logits(speech.state)

    jax.tree.map(np.testing.assert_array_equal, spoken(stored), spoken(WEIGHTS))
    types = {
        "/".join(entry.key for entry in path): leaf.dtype
        for path, leaf in jax.tree.leaves_with_path(stored)
    }
    fine = {name for name, dtype in types.items() if dtype == jnp.float32}
    gains = ("scale", "gain", "boundaries", "embedding_rms")
    in_fast_memory = "head/transformer/layers/feed_forward/"
    assert fine == {
        name for name in fine if name.endswith(gains) or name.startswith(in_fast_memory)
    }
    for part in ("encoder", "language_model", "head"):
        assert types[f"{part}/transformer/layers/attention/query_key_value/kernel"] == jnp.bfloat16


_PROMPTS = np.array([2, 0, 3])  # patches


@pytest.fixture(scope="module")
def continued():
    """(what `begin` was given, its speech, three calls of `advance` for two patches each)."""
    prompt = _normal(_ROWS, 3, 2, _DIM, seed=3)  # junk where the mask is False
    speech = _begun(prompt, np.arange(3)[None] < _PROMPTS[:, None])
    return prompt, speech, _spoken(speech, limit=5)


def test_a_prompt_is_continued_as_if_its_patches_had_been_taught(continued):
    prompt, speech, (_, patches, mask) = continued
    assert mask[:, :5].all() and not mask[:, 5:].any()
    rows = [
        np.concatenate([prompt[row, :count], patches[row, : _MOST - count]])
        for row, count in enumerate(_PROMPTS)
    ]
    teaching = _taught(np.stack(rows))
    row = np.arange(_ROWS)
    np.testing.assert_allclose(speech.state, teaching.states[row, _PROMPTS], atol=1e-5)
    np.testing.assert_allclose(speech.token, teaching.tokens[row, _PROMPTS], atol=1e-5)
    np.testing.assert_array_equal(speech.history, teaching.history[row, _PROMPTS])
    assert speech.index.tolist() == [0] * _ROWS
    for index in range(5):
        at = row, _PROMPTS + index
        expected = _sample(
            WEIGHTS, teaching.states[at], teaching.tokens[at], teaching.history[at],
            _noise(speech, np.full(_ROWS, index)),
        )  # fmt: skip
        np.testing.assert_allclose(patches[:, index], expected, atol=1e-5, err_msg=str(index))


def test_an_empty_prompt_is_none_at_all(continued, endless):
    _, _, (_, patches, _) = continued
    # Row 1 has a prompt of no patches, beside rows that have some.
    np.testing.assert_allclose(patches[1, :5], endless[1][1, :5], atol=1e-4)


def test_what_stands_in_the_padding_of_prompts_and_texts_does_not_matter(continued):
    prompt, speech, _ = continued
    mask = np.arange(3)[None] < _PROMPTS[:, None]
    other = _begin(
        WEIGHTS, np.where(_TEXT_MASK, _TEXT, 7), _TEXT_MASK,
        np.where(mask[..., None, None], prompt, 9.0), mask, max_patches=_MOST,
    )  # fmt: skip
    for name in ("state", "token", "history"):
        np.testing.assert_array_equal(getattr(other, name), getattr(speech, name), err_msg=name)
    np.testing.assert_array_equal(other.language_model.lengths, speech.language_model.lengths)
