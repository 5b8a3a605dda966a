# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""LoSATok's semantic bottleneck: its size, its definition, and that it learns what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import semantic
from f3tok_jax.models import semantic_bottleneck


def _module(**changes) -> semantic_bottleneck.SemanticBottleneck:
    fields = dict(feature_dim=16, hidden_dim=12, latent_dim=4, compute_dtype="float32")
    return semantic_bottleneck.SemanticBottleneck(**(fields | changes))


def test_the_published_size():
    module = _module(feature_dim=1280, hidden_dim=512, latent_dim=128)
    features = jax.ShapeDtypeStruct((1, 2, 1280), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), features)
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in variables["params"].items()
    }
    assert sizes == {"down": 721_536, "up": 722_688}
    latents, output = jax.eval_shape(module.apply, variables, features)
    assert latents.shape == (1, 2, 128) and output.shape == (1, 2, 1280)


def test_equals_torch():
    torch = pytest.importorskip("torch")
    module, features = _module(), jax.random.normal(jax.random.key(1), (2, 5, 16))
    params = module.init(jax.random.key(0), features)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases begin at 0
    latents, output = module.apply({"params": params}, features)

    def mapping(part, x):
        for name, layer in (("hidden", torch.nn.GELU()), ("output", torch.nn.Identity())):
            kernel, bias = (torch.from_numpy(np.array(part[name][k])) for k in ("kernel", "bias"))
            x = layer(torch.nn.functional.linear(x, kernel.T, bias))
        return x

    expected = mapping(params["down"], torch.from_numpy(np.array(features)))
    np.testing.assert_allclose(latents, expected, atol=1e-5)
    np.testing.assert_allclose(output, mapping(params["up"], expected), atol=1e-5)


def test_initial_weights_are_torchs():
    kernel = _module(feature_dim=1024, hidden_dim=512).init(
        jax.random.key(0), jnp.zeros((1, 1, 1024))
    )["params"]["down"]["hidden"]["kernel"]
    assert 0.99 / 32 < np.abs(kernel).max() <= 1 / 32
    assert np.std(kernel) == pytest.approx(1 / 32 / np.sqrt(3), rel=0.02)


def test_its_losses_teach_it():
    """By the gradient of both alone features of rank 3 come back, and keep their time relations."""
    rng = np.random.default_rng(0)
    features = jnp.array(rng.normal(size=(4, 20, 3)) @ rng.normal(size=(3, 16)), jnp.float32)
    module, mask = _module(), jnp.ones((4, 20), bool)

    def losses(params):
        latents, output = module.apply({"params": params}, features)
        pairs = (
            semantic.feature_reconstruction(features, output, mask),
            semantic.time_relation(features, latents, mask),
        )
        recon, relation = (total / weight for total, weight in pairs)
        return 16.0 * recon + relation, (16.0 * recon, relation)

    def step(carry, _):
        params, mean = carry
        (_, parts), gradient = jax.value_and_grad(losses, has_aux=True)(params)
        mean = jax.tree.map(lambda m, g: 0.9 * m + g, mean, gradient)
        return (jax.tree.map(lambda p, m: p - 0.05 * m, params, mean), mean), parts

    params = module.init(jax.random.key(0), features)["params"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    parts = jax.jit(lambda *carry: jax.lax.scan(step, carry, length=300)[1])(params, zeros)
    for part in parts:
        assert part[-1] < 0.05 * part[0], (part[0], part[-1])


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"takes features \[b, t, 16\], got \[1, 2, 8\]; give"):
        _module().init(jax.random.key(0), jnp.zeros((1, 2, 8)))
