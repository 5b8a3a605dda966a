# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""FLOPs by formula are those of the products that the modules trace to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax.models import flops
from f3tok_jax.models import semantic_autoencoder
from f3tok_jax.models import semantic_coder
from f3tok_jax.models import semantic_encoder
from f3tok_jax.models.discriminators import discriminators as discriminators_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from tests.support import tiny_models


def _products(function, *shapes) -> float:
    """FLOPs of the products of a function, those with padding and holes left out."""
    return sum(_of_equations(jax.make_jaxpr(function)(*shapes).jaxpr))


def _of_equations(jaxpr):
    for eqn in jaxpr.eqns:
        params = dict(eqn.params)
        if eqn.primitive.name == "cond":  # of platforms: the last is for all but TPUs
            params["branches"] = params["branches"][-1:]
        for inner in jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _of_equations(inner)
        out = eqn.outvars[0].aval.shape
        left, right = [var.aval.shape for var in eqn.invars[:2]] if len(eqn.invars) > 1 else (0, 0)
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            yield 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        elif eqn.primitive.name == "conv_general_dilated":
            yield 2.0 * out[0] * _taps_that_meet(eqn.params, left, right, out)


def _taps_that_meet(params, left, right, out) -> float:
    """Of a convolution: input channels x output channels x taps of outputs that meet an input."""
    numbers = params["dimension_numbers"]
    count = right[numbers.rhs_spec[1]] * out[numbers.out_spec[1]]
    for axis, stride in enumerate(params["window_strides"]):
        (low, _), hole = params["padding"][axis], params["lhs_dilation"][axis]
        size = left[numbers.lhs_spec[2 + axis]]
        places = np.add.outer(
            np.arange(out[numbers.out_spec[2 + axis]]) * stride,
            np.arange(right[numbers.rhs_spec[2 + axis]]) - low,
        )
        met = (places >= 0) & (places <= (size - 1) * hole) & (places % hole == 0)
        count *= int(np.sum(met))
    return count


@pytest.mark.parametrize("preset", ["tiny", "spectrostream"])
def test_an_autoencoder_needs_the_products_of_its_layers(preset):
    config = recipe.get_config(preset)
    config.model.upsampling = "transposed"  # the formulation without zeros
    model, latents = pretrained_autoencoder.make(config), 6
    waveform = jnp.zeros((1, latents * model.samples_per_latent))
    params = jax.eval_shape(
        lambda: pretrained_autoencoder.init_params(model, jax.random.key(0), waveform)
    )
    given = jax.eval_shape(lambda: waveform)
    encode, decode = (
        lambda params, x, method=method: model.apply({"params": params}, x, method=method)
        for method in ("waveform_to_latents", "latents_to_waveform")
    )
    spectra = 2 * 2 * model.hop_length * model.frame_length  # a matrix, of a hop
    frames = latents * model.hops_per_latent
    found = _products(encode, params, given) - spectra * frames
    # Sound that has begun has taps before it: only here there are zeros in their place.
    assert flops.encoder(model, latents).total == pytest.approx(found, rel=1e-6)
    shorter = jax.ShapeDtypeStruct(
        (1, latents - model.decoder_lookahead, model.latent_dim), "float32"
    )
    found = _products(decode, params, shorter) - spectra * frames
    assert flops.decoder(model, latents).total == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("fusion", semantic_autoencoder.FUSIONS)
def test_a_semantic_autoencoder_needs_the_products_of_its_layers(fusion):
    model = tiny_models.semantic_autoencoder(fusion)
    latents, width = 6, model.decoder_width
    inputs = (
        jax.ShapeDtypeStruct((1, latents * model.samples_per_latent), jnp.float32),
        jax.ShapeDtypeStruct((1, latents, model.feature_dim), jnp.float32),
    )
    params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    method = lambda name: lambda p, *x: model.apply({"params": p}, *x, method=name)
    # The spectrum, the mel bands of each of its frames, and SemBo's two layers.
    spectra = 1 + latents * model.patch_frames, model.frame_length // 2 + 1
    others = 2.0 * math.prod(spectra) * (2 * model.frame_length + model.num_mels)
    if fusion == "latents":
        hidden = model.feature_dim + model.latent_dim
        others += 2.0 * latents * model.bottleneck_dim * hidden
    found = _products(method("waveform_to_latents"), params, *inputs) - others
    assert flops.acoustic_half(model, latents).total == pytest.approx(found, rel=1e-6)

    frames = latents * model.samples_per_latent // model.decoder_hop_length
    given = jax.ShapeDtypeStruct((1, latents, model.latent_dim), jnp.float32)
    inverse = 2.0 * frames * 2 * (model.decoder_frame_length // 2 + 1) * model.decoder_frame_length
    found = _products(method("latents_to_waveform"), params, given) - inverse
    # Products of each channel by itself, which are no matrix's.
    found += 2.0 * model.decoder_blocks * (7 * frames - 2 * (1 + 2 + 3)) * width
    assert flops.vocos_decoder(model, latents).total == pytest.approx(found, rel=1e-6)

    encoder = semantic_encoder.SemanticEncoder(
        num_layers=1, width=model.feature_dim, num_heads=1, hop_length=model.hop_length
    )
    coder = semantic_coder.SemanticCoder(encoder=encoder, autoencoder=model)
    of_bottleneck = flops.frozen(coder, latents) - _of_features(encoder, latents)
    narrow = 2.0 * latents * model.bottleneck_dim * (model.feature_dim + model.latent_dim)
    assert of_bottleneck == pytest.approx(narrow if fusion == "latents" else 0.0)
    # What sees its own chunk alone.
    short = coder.clone(encoder=encoder.clone(max_patches=4))
    chunks = sum(_of_features(encoder, count) for count in (4, latents - 4))
    assert flops.frozen(short, latents) - of_bottleneck == pytest.approx(chunks)


def _of_features(encoder, count):
    """Products of a semantic encoder for so many features, from its patches on."""
    patches = jax.ShapeDtypeStruct((1, count, encoder.num_mels, encoder.patch_frames), jnp.float32)
    hear = lambda module, x: module.encode(module.embed(x))
    variables = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, method=hear), patches)
    return _products(lambda v, x: encoder.apply(v, x, method=hear), variables, patches)


@pytest.mark.parametrize("kind, rel", [("dac", 1e-6), ("multi_frequency", 1e-6), ("folded", None)])
def test_discriminators_need_the_products_of_their_layers(kind, rel):
    config = recipe.get_config("tiny").discriminators
    config.kind = kind
    if kind == "dac":
        config.update(dict(period_channels=(4, 8, 8, 8, 16), stft_channels=4))
    if kind == "multi_frequency":
        config.stft_channels = 64
    num_samples = 2**13
    module = discriminators_lib.Discriminators(**config)
    sound = jax.ShapeDtypeStruct((1, num_samples), jnp.float32)
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x)["params"], sound)
    found = _products(lambda p, x: module.apply({"params": p}, x), params, sound)
    for window in config.stft_windows:
        # Spectra: a matrix per frame, of which there are no fewer than hops.
        found -= 2 * (num_samples // (window // 4)) * window * window
    needed = flops.discriminators(config, num_samples).total
    if rel:
        assert needed == pytest.approx(found, rel=rel)
    else:
        # What blocks of outputs and stacks of one shape are filled up with is no need: at these
        # widths three fifths of all.
        assert 0.35 * found < needed < found
