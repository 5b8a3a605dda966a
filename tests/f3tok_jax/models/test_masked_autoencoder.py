# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Masked autoencoding: what is hidden, what the decoder knows, and the published error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import masked_autoencoder
from tests.support import tiny_models

_FIELDS = dict(num_layers=1, width=16, num_heads=2, max_patches=12, patch_size=8)


def _valid(*counts: int, most: int = 12) -> np.ndarray:
    return np.arange(most)[None] < np.array(counts)[:, None]


def _draw(valid, seed: int = 0, ratio: float = 0.75, group: int = 2):
    return masked_autoencoder.draw(jax.random.key(seed), valid, ratio=ratio, group=group)


@pytest.mark.parametrize("ratio", [0.75, 0.7, 0.5])
def test_each_example_has_its_share_hidden_in_pairs_and_no_padding_told(ratio):
    valid = _valid(12, 8, 3, 0)
    found = set()
    for seed in range(20):
        masking = jax.device_get(_draw(jnp.asarray(valid), seed, ratio))
        for row, count in enumerate(valid.sum(1)):
            num_seen = int(count * (1 - ratio))
            assert masking.is_seen[row].sum() == num_seen
            seen = masking.seen[row][masking.is_seen[row]]
            assert set(seen) | set(np.flatnonzero(masking.hidden[row])) == set(range(count))
            assert masking.hidden[row].sum() == count - num_seen
            # Of each that is seen the place says where, of all others that nothing is.
            assert [*masking.place[row, seen]] == [*range(num_seen)]
            others = np.delete(masking.place[row], seen)
            assert (others == masking.seen.shape[1]).all()
            # Pairs stay together, but for one that the share cuts.
            pairs = np.bincount(seen // 2, minlength=6)
            assert (pairs == 1).sum() <= 1
        found.add(tuple(masking.seen[0]))
    assert len(found) > 5


def test_an_example_is_told_alike_in_every_batch_and_from_what_is_seen_alone():
    decoder = masked_autoencoder.Decoder(**_FIELDS, remat="none", compute_dtype="float32")
    masking = _draw(jnp.asarray(_valid(12, 8)))
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 6)), jnp.float32)
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), features, masking)
    variables = tiny_models.random_weights(shapes)
    tell = jax.jit(decoder.apply)
    told = np.asarray(tell(variables, features, masking))
    assert told.shape == (2, 12, 8)
    # The third slot of the second example has no patch to be seen.
    changed = features.at[1, 2].set(100.0)
    other = np.asarray(tell(variables, changed, masking))
    np.testing.assert_array_equal(other[1, :8], told[1, :8])
    # What is seen changes what is told of all.
    other = np.asarray(tell(variables, features.at[1, 0].set(1.0), masking))
    assert (other[1, :8] != told[1, :8]).any(axis=-1).all()
    np.testing.assert_array_equal(other[0], told[0])


def test_the_error_is_the_published_one():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(2, 12, 4, 2)).astype(np.float32)
    told = rng.normal(size=(2, 12, 8)).astype(np.float32)
    masking = _draw(jnp.asarray(_valid(12, 8)))
    target = torch.tensor(patches).flatten(2)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    hidden = torch.tensor(np.asarray(masking.hidden), dtype=torch.float32)
    wanted = (((torch.tensor(told) - target) ** 2).mean(-1) * hidden).sum() / hidden.sum()
    total, count = masked_autoencoder.error(
        jnp.asarray(told), masked_autoencoder.normalized(jnp.asarray(patches)), masking
    )
    assert count == 9 + 6
    assert total / count == pytest.approx(float(wanted), rel=1e-5)
    # Patches of one value, silence, have no variance.
    assert not np.asarray(masked_autoencoder.normalized(jnp.ones((1, 3, 4, 2)))).any()
