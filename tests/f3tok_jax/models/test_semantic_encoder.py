# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The semantic encoder: published sizes, and that an example is the same in every batch.

That it is Dasheng's is tested where weights are read (pretrained/test_semantic_weights.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import semantic_encoder
from tests.support import noise
from tests.support import tiny_models

_FIELDS = dict(num_layers=2, width=16, num_heads=2, max_patches=5)


@functools.lru_cache
def _built(**changes):
    """An encoder, and its call with random weights, compiled."""
    model = semantic_encoder.SemanticEncoder(**(_FIELDS | changes))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1600)))
    variables = tiny_models.random_weights(shapes)
    variables["statistics"] = {"mean": jnp.full(64, -30.0), "variance": jnp.full(64, 200.0)}
    return model, jax.jit(functools.partial(model.apply, variables))


@pytest.mark.parametrize(
    "width, num_layers, expected",
    [(768, 12, 85_447_808), (1280, 32, 630_333_568), (1536, 40, 1_134_047_360)],
)
def test_published_sizes_have_as_many_parameters(width, num_layers, expected):
    heads = semantic_encoder.PUBLISHED_HEADS[width, num_layers]
    model = semantic_encoder.SemanticEncoder(num_layers=num_layers, width=width, num_heads=heads)
    second = jax.ShapeDtypeStruct((1, 16_000), jnp.float32)
    features, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), second)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected
    assert features.shape == (1, 25, width)


@pytest.mark.parametrize("compute_dtype, tolerance", [("float32", 2e-5), ("bfloat16", 0.1)])
def test_an_example_is_in_a_batch_what_it_is_alone(compute_dtype, tolerance):
    model, apply = _built(compute_dtype=compute_dtype)
    # The last ends in a chunk of its own, and within a patch.
    lengths, sound = (6400, 300, 4000, 3900), 100.0 * noise.waveform(4, 6400)
    sound[2] *= 1e-6  # below the floor of the loudest, above silence
    mask = np.arange(6400)[None] < np.array(lengths)[:, None]
    together = apply(jnp.asarray(np.where(mask, sound, np.nan)), jnp.asarray(mask))
    valid = np.asarray(model.feature_mask(jnp.asarray(mask)))
    assert together.dtype == compute_dtype and together.shape == (4, 10, 16)
    for row, length in enumerate(lengths):
        if length < 480:
            assert not valid[row].any()
            continue
        alone = apply(jnp.asarray(sound[row : row + 1, :length]))[0]
        assert valid[row].sum() == len(alone) == (length // 160 + 1) // 4
        found = np.asarray(together[row, : len(alone)], np.float32)
        np.testing.assert_allclose(found, np.asarray(alone, np.float32), atol=tolerance)
    assert np.isfinite(np.asarray(together, np.float32)).all()


def test_a_chunk_does_not_see_the_next():
    _, apply = _built()
    sound = noise.waveform(1, 6400)
    changed = sound.copy()
    changed[0, 5000:] *= 0.5  # of the second chunk alone, of spectra of 512 samples too
    one, other = (np.asarray(apply(jnp.asarray(each)))[0] for each in (sound, changed))
    np.testing.assert_array_equal(one[:5], other[:5])
    assert (one[5:] != other[5:]).any(axis=-1).all()


def test_fields_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width=16 must be a multiple of num_heads=3"):
        _built(num_heads=3)
    with pytest.raises(ValueError, match=r"at least 480 samples, .* got \[2, 479\]"):
        _built()[1](jnp.zeros((2, 479)))
    with pytest.raises(ValueError, match="max_patches must be at least 1, got 0"):
        _built(max_patches=0)
