# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Published weights of semantic encoders: parity with Dasheng's package, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.models import semantic_encoder
from f3tok_jax.pretrained import semantic_encoder as pretrained_encoder
from f3tok_jax.pretrained import semantic_weights
from tests.support import dasheng_package
from tests.support import noise
from tests.support import tiny_semantic

_FIELDS = dict(embed_dim=32, depth=2, num_heads=4)
_NESTED = "init_bn.1."


@functools.lru_cache
def _reference():
    return dasheng_package.make(**_FIELDS)


def _ours(place):
    model, variables = semantic_weights.read(place)
    return model, jax.jit(functools.partial(model.apply, variables))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Dasheng's file of its own model."""
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("dasheng") / "dasheng.pt"
    torch.save({"model": _reference().state_dict(), "config": _FIELDS}, path)
    return path


def _theirs(sound: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return _reference()(torch.tensor(sound)).numpy()


def test_the_front_end_is_that_of_the_package():
    torch = pytest.importorskip("torch")
    sound = noise.waveform(2, 16_000)
    model = semantic_encoder.SemanticEncoder(num_layers=2, width=32, num_heads=4)
    with torch.no_grad():
        wanted = _reference().front_end(torch.tensor(sound)).numpy().swapaxes(1, 2)
    # A DFT in float32, in decibels of bands down to 60 dB below the loudest.
    np.testing.assert_allclose(model.mel_decibels(jnp.asarray(sound)), wanted, atol=5e-4)


@pytest.mark.parametrize(
    "num_samples",
    [16_000, 15_999, 4_000, 161_280 + 480, 2 * 161_280 + 8_000],
    ids=["second", "no whole hop", "short", "a feature beyond a chunk", "three chunks"],
)
def test_features_are_those_of_the_package(saved, num_samples):
    sound = noise.waveform(1, num_samples)
    model, apply = _ours(saved)
    wanted, found = _theirs(sound), apply(jnp.asarray(sound))
    assert found.shape == (1, model.num_features(num_samples), 32)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_batch_of_like_loudness_is_that_of_the_package_and_a_quiet_one_is_as_it_is_alone(saved):
    model, apply = _ours(saved)
    sound = noise.waveform(3, 8_000)
    np.testing.assert_allclose(apply(jnp.asarray(sound)), _theirs(sound), atol=1e-4)
    # 125 dB lower: in the batch the package hears the floor below the loudest, and nothing else.
    sound *= np.array([[100.0], [100.0 * 10 ** (-125 / 20)], [100.0]], np.float32)
    alone = np.concatenate([_theirs(row[None]) for row in sound])
    np.testing.assert_allclose(apply(jnp.asarray(sound)), alone, atol=1e-4)
    assert np.abs(_theirs(sound)[1] - alone[1]).max() > 0.1


def test_every_layout_gives_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = tiny_semantic.tensors()
    one = tiny_semantic.write_weights(tmp_path / "plain", tensors)
    below = {f"audio_encoder.{name.replace(_NESTED, 'init_bn.')}": a for name, a in tensors.items()}
    below |= {"decoder.model.embed_tokens.weight": np.zeros((2, 2), np.float32)}
    config = {"model_type": "midashenglm", "audio_encoder_config": {"num_heads": 2}}
    two = tiny_semantic.write_weights(tmp_path / "below", below, config)
    as_torch = {name: torch.tensor(array) for name, array in tensors.items()}
    as_torch["init_bn.1.num_batches_tracked"] = torch.tensor(3)
    (tmp_path / "torch").mkdir()
    content = {"model": as_torch, "config": {"num_heads": 2, "others": None}}
    torch.save(content, tmp_path / "torch" / "dasheng.pt")
    read = [semantic_weights.read(place) for place in (one, two, tmp_path / "torch")]
    read += [semantic_weights.read(tmp_path / "torch" / "dasheng.pt")]
    for model, variables in read[1:]:
        assert model == read[0][0] and model.max_patches == 12
        jax.tree.map(np.testing.assert_array_equal, variables, read[0][1])
    shapes = jax.eval_shape(read[0][0].init, jax.random.key(0), jnp.zeros((1, 1600)))
    made = jax.tree.map(lambda leaf: leaf.shape, sharding.unbox(shapes))
    assert made == jax.tree.map(lambda leaf: leaf.shape, read[0][1])


def test_weights_are_loaded_in_the_place_of_a_run(tmp_path):
    place = tiny_semantic.write_weights(tmp_path / "weights", tiny_semantic.tensors())
    loaded, sound = pretrained_encoder.load(place), noise.waveform(1, 1600)
    model, apply = _ours(place)
    assert (loaded.encoder, loaded.rate, loaded.run) == (model, 25.0, None)
    assert loaded.origin == "published weights, weights"
    # One program has the weights as constants, and adds in another order.
    found, wanted = loaded.features(jnp.asarray(sound)), apply(jnp.asarray(sound))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with pytest.raises(ValueError, match="must be a run to have the step 3, got published weights"):
        pretrained_encoder.load(place, step=3)


def _changed(**changes) -> dict[str, np.ndarray]:
    tensors = tiny_semantic.tensors()
    for name, array in changes.items():
        tensors.pop(name) if array is None else tensors.update({name: array})
    return tensors


_ZEROS = np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(
    "changes, config, words",
    [
        ({"norm.bias": None}, None, "they lack norm.bias"),
        ({"cls_token": _ZEROS}, None, "they have beyond them cls_token"),
        ({"norm.bias": _ZEROS}, None, r"norm.bias in .* must be of shape \(8,\), .* got \(2, 2\)"),
        ({"patch_embed.proj.weight": _ZEROS}, None, "must be of patches"),
        (
            {"patch_embed.proj.weight": None},
            None,
            "the weights of one semantic encoder .* got none",
        ),
        ({}, {}, "must say num_heads, a divisor of the width 8, .* got None"),
        ({}, {"num_heads": 3}, "must say num_heads, .* got 3"),
        ({}, {"num_heads": 2, "hop_size": 320}, "must have hop_size=160, .* got 320"),
        ({"norm.bias": np.full(8, np.nan, np.float32)}, None, "norm.bias .* must hold finite"),
        ({"norm.bias": np.zeros(8, np.int8)}, None, "must be of F64, F32, F16, BF16, got I8"),
        ({"front_end.0.mel_scale.fb": _ZEROS}, None, "must be that of Dasheng's front end"),
    ],
)
def test_other_weights_are_refused_in_one_sentence(tmp_path, changes, config, words):
    place = tiny_semantic.write_weights(tmp_path / "weights", _changed(**changes), config)
    with pytest.raises(ValueError, match=words) as error:
        semantic_weights.read(place)
    assert "\n" not in str(error.value) and str(place) in str(error.value)


def test_no_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got nothing at"):
        semantic_weights.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must hold model.safetensors .* got neither"):
        semantic_weights.read(tmp_path)
    for name in ("one.pt", "two.pt"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="one file of torch.save .* got one.pt"):
        semantic_weights.read(tmp_path)
    with pytest.raises(ValueError, match="must be a whole file of torch.save"):
        semantic_weights.read(tmp_path / "one.pt")
