# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The transformer: causality, windows, segments, the cache, remat, and its layout on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.models.transformer import transformer

_FIELDS = dict(num_layers=3, width=32, hidden_width=48, num_heads=4, num_kv_heads=2, head_dim=8)
_LENGTH = 12
_LONG = 44


def _make(**changes) -> tuple[transformer.Transformer, dict]:
    model = transformer.Transformer(**(_FIELDS | changes))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, model.width)))
    return model, sharding.unbox(variables)


def _input(length: int = _LENGTH, batch: int = 2) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (batch, length, _FIELDS["width"]))


def _reach(model, variables, segments=None) -> np.ndarray:
    """[t, t] bool: whether output i changes with input j."""
    # The same row t times; then row j of the batch has another input at position j.
    x = jnp.repeat(_input(batch=1), _LENGTH, axis=0)
    changed = x + np.eye(_LENGTH, dtype=np.float32)[:, :, None]
    run = jax.jit(functools.partial(model.apply, segments=segments))
    return np.abs(run(variables, changed) - run(variables, x)).max(-1).T > 0


@pytest.mark.parametrize(
    "fields,expected",
    [
        (dict(), lambda i, j: j <= i),
        # Each layer reaches window - 1 further: three layers of 3 see 6 back.
        (dict(window=3), lambda i, j: (j <= i) & (i - j <= 6)),
        (dict(attention="bidirectional"), lambda i, j: i + j >= 0),
        (dict(attention="bidirectional", window=2), lambda i, j: abs(i - j) <= 3),
    ],
)
def test_every_output_depends_on_what_it_may_see(fields, expected):
    index = np.arange(_LENGTH)
    reach = _reach(*_make(**fields))
    np.testing.assert_array_equal(reach, expected(index[:, None], index[None, :]))


def test_segments_never_see_each_other_and_equal_their_own_runs():
    model, variables = _make()
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3], np.int32)
    reach = _reach(model, variables, segments)
    assert not reach[segments[0][:, None] != segments[0][None, :]].any()
    x = _input(batch=1)
    run = jax.jit(model.apply)
    packed = run(variables, x, segments=segments)
    # The rotation of the second starts at position 5, which must not matter beyond rounding.
    for part in (slice(0, 5), slice(5, 9)):
        np.testing.assert_allclose(packed[:, part], run(variables, x[:, part]), atol=2e-5)


@pytest.mark.parametrize(
    "fields",
    [dict(qkv_bias=True), dict(qk_norm=True, window=5), dict(num_kv_heads=4, window=1)],
)
def test_steps_of_any_size_equal_the_whole(fields):
    model, variables = _make(**fields)
    x = _input(_LONG)
    whole = jax.jit(model.apply)(variables, x)
    step = jax.jit(functools.partial(model.apply, method="step"))
    # With a window, slots are used again, and one step has more positions than there are slots.
    for sizes in ([1] * _LONG, [7, 1, 33, 3]):
        cache, outputs, start = model.initial_cache(2, _LONG), [], 0
        for size in sizes:
            y, cache = step(variables, x[:, start : start + size], cache)
            outputs.append(y)
            start += size
        # float32 sums in another order, through three layers.
        np.testing.assert_allclose(np.concatenate(outputs, 1), whole, atol=2e-5)
    assert cache.keys.shape[3] == (32 if "window" in fields else 64)


def test_one_row_of_one_position_equals_the_whole():
    model, variables = _make()
    x = _input(4, batch=1)
    cache, outputs = model.initial_cache(1, 4), []
    step = jax.jit(functools.partial(model.apply, method="step"))
    for start in range(4):
        y, cache = step(variables, x[:, start : start + 1], cache)
        outputs.append(y)
    whole = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(np.concatenate(outputs, 1), whole, atol=2e-5)
    assert cache.lengths.tolist() == [4] and (cache.positions[0] >= 0).sum() == 4


@pytest.mark.parametrize("window", [0, 4])
def test_rows_of_different_lengths_share_a_cache(window):
    model, variables = _make(window=window)
    x = _input()
    cache = model.initial_cache(2, _LENGTH)
    # The second row is three positions shorter; its padding holds what must not be seen.
    mask = np.ones((2, 6), bool)
    mask[1, [0, 4, 5]] = False
    first = jnp.where(mask[:, :, None], x[:, :6], 1e3)
    step = jax.jit(functools.partial(model.apply, method="step"))
    y, cache = step(variables, first, cache, mask=mask)
    z, cache = step(variables, x[:, 6:], cache, mask=np.ones((2, 6), bool))
    assert cache.lengths.tolist() == [12, 9]
    row = jax.jit(model.apply)(variables, jnp.concatenate([x[1:, 1:4], x[1:, 6:]], 1))
    np.testing.assert_allclose(y[1, 1:4], row[0, :3], atol=2e-5)
    np.testing.assert_allclose(z[1], row[0, 3:], atol=2e-5)


def test_more_positions_than_a_cache_holds_are_not_forgotten_in_silence():
    model, variables = _make()
    step = jax.jit(functools.partial(model.apply, method="step"))
    cache = model.initial_cache(2, 6)  # and room for some more
    assert cache.num_slots == 32
    x = _input(33)
    y, cache = step(variables, x[:, :32], cache)
    z, cache = step(variables, x[:, 32:], cache)
    whole = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(np.concatenate([y, z], 1), whole, atol=2e-5)
    # What came last was written over the first position.
    for _ in range(2):
        y, cache = step(variables, _input(1), cache)
        assert np.isnan(y).all()


def test_padding_that_takes_the_room_of_what_a_window_sees_is_not_passed_over_in_silence():
    model, variables = _make(window=4)
    step = jax.jit(functools.partial(model.apply, method="step"))
    cache = model.initial_cache(2)
    # The second row pauses after four positions, of which the next would see three.
    for number in range(4):
        mask = np.ones((2, 12), bool)
        mask[1] = (np.arange(12) < 4) & (number == 0)
        y, cache = step(variables, _input(12), cache, mask=mask)
        # All but 32 of 36 have been overwritten when the last chunk comes.
        assert np.isfinite(y[0]).all() and np.isnan(y[1]).all() == (number == 3)


def test_layers_that_are_joined_give_the_same():
    for fields in (dict(qkv_bias=True), dict(qk_norm=True)):
        model, variables = _make(**fields)
        joined = {"params": transformer.joined(variables["params"])}
        x, run = _input(), jax.jit(model.apply)
        # Products of another width: float32 sums in another order.
        np.testing.assert_allclose(run(joined, x), run(variables, x), atol=2e-5)
        assert joined["params"]["layers"]["attention"].keys() >= {"query_key_value", "output"}


@pytest.mark.parametrize("remat", transformer.REMATS)
def test_remat_changes_no_gradient(remat):
    model, variables = _make(remat=remat)
    plain = transformer.Transformer(**_FIELDS)
    grads = [
        jax.jit(jax.grad(lambda v, m=m: jnp.sum(jnp.sin(m.apply(v, _input())))))(variables)
        for m in (model, plain)
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), *grads)


@pytest.mark.parametrize("fsdp,tensor", [(8, 1), (4, 2)])
def test_a_mesh_changes_no_number_and_gathers_one_layer_at_a_time(fsdp, tensor):
    model, variables = _make(qkv_bias=True, remat="block")
    x, segments = _input(batch=8), np.tile([[1] * 6 + [2] * 6], (8, 1))
    loss = lambda v, x: jnp.sum(jnp.sin(model.apply(v, x, segments=segments)))
    expected = jax.jit(jax.value_and_grad(loss))(variables, x)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=fsdp, tensor=tensor))
    with sharding.use(mesh):
        boxed = jax.eval_shape(model.init, jax.random.key(0), x)
        where = sharding.state_shardings(boxed, mesh, 256)
        spec = where["params"]["layers"]["feed_forward"]["down"]["kernel"].spec
        assert tuple(spec) == ((None, "tensor", "fsdp") if tensor > 1 else (None, "fsdp", None))
        compiled = (
            jax.jit(
                jax.value_and_grad(loss),
                in_shardings=(where, sharding.batch_sharding(mesh)),
                out_shardings=(sharding.replicated(mesh), where),
            )
            .lower(variables, x)
            .compile()
        )
        found = compiled(
            jax.device_put(variables, where), jax.device_put(x, sharding.batch_sharding(mesh))
        )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4), expected, found)
    # No collective makes all three layers of a kernel whole.
    gathers = [line for line in compiled.as_text().splitlines() if "all-gather(" in line]
    assert gathers and not any("f32[3,32,48]" in line.split("all-gather(")[0] for line in gathers)


def test_bfloat16_computes_in_bfloat16_and_norms_in_float32():
    model, variables = _make(compute_dtype="bfloat16")
    large = 300.0 * _input()  # squares beyond 65504, fine; their sums need float32
    y = jax.jit(model.apply)(variables, large)
    assert y.dtype == jnp.bfloat16
    reference = jax.jit(transformer.Transformer(**_FIELDS).apply)(variables, large)
    # bfloat16 has 8 bits; errors of some steps add up over three layers.
    assert np.abs(y.astype(np.float32) - reference).max() < 0.15


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(num_kv_heads=3), "num_heads=4 must be a multiple of num_kv_heads=3"),
        (dict(head_dim=7), "head_dim must be even and at most 2048, got 7"),
        (dict(head_dim=2**15), "head_dim must be even and at most 2048, got 32768"),
        (dict(attention="both"), "attention must be one of .*, got 'both'"),
        (dict(remat="all"), "remat must be one of .*, got 'all'"),
        (dict(window=-1), "window must be at least 0"),
        (dict(num_layers=0), "num_layers must be at least 1, got 0"),
        (dict(compute_dtype="float16"), "compute_dtype must be one of"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        _make(**changes)


def test_wrong_calls_are_refused():
    model, variables = _make(attention="bidirectional")
    with pytest.raises(ValueError, match=r"must be \[b, t, 32\], got \[2, 12, 16\]"):
        model.apply(variables, _input()[..., :16])
    with pytest.raises(ValueError, match="max_length of at least 1, got 0"):
        model.initial_cache(1)
    with pytest.raises(ValueError, match="a cache needs attention='causal'"):
        model.apply(variables, _input(), model.initial_cache(2, 12), method="step")
