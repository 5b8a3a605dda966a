# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is measured before the first step: nothing later depends on the scale of latents."""

import jax
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage
from f3tok_jax.stages import first_examples
from f3tok_jax.stages import registry
from tests.support import run_checks
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_TASKS = dict(transcription=0.0, caption=0.0, language=0.0, instrument=0.0, event=0.0, digit=1.0)
_SHARED = dict(
    model=tiny_models.SHAPE,
    data=dict(batch_size=8, crop_frames=25, max_lost=1.0),
    mesh=dict(min_shard_size=64),
    num_steps=6,
)
_REPRESENTATION = tiny_models.overrides(
    **_SHARED,
    rq=dict(codebook_size=8, num_codebooks=2, num_heads=2, statistics_frames=400),
    supervision=dict(max_tokens=24, tasks=_TASKS),
    packing=dict(examples=1, frames=0, positions=0),
    optimizer=dict(encoder=dict(warmup_steps=2, modules=dict(projector=dict(start=0.0)))),
)
_GENERATION = tiny_models.overrides(
    **_SHARED,
    flow=dict(encoder_noise=0.3, history_noise=0.5),
    text=dict(max_tokens=24, tasks=_TASKS),
    sampling=dict(num_steps=2),
    packing=dict(examples=1, patches=0, positions=0),
    optimizer=dict(head=dict(warmup_steps=2)),
)


def _step(config, run=None):
    """Metrics of a fresh stage's first step and of its evaluation."""
    stage = registry.of(config.stage).make(config, run)
    state = sharding.unbox(compilation.run_once(stage.init_state, jax.random.key(0)))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: here, sharding.unbox(stage.abstract_frozen))
    frozen = stage.load_frozen(shardings, run_checks.measured(config, run))
    opened = stage.open_data(config.data.train, train=True, process_index=0, process_count=1)
    batch = opened.local_batch(0)
    evaluated = jax.jit(stage.eval_step)(state, frozen, batch)
    _, metrics = jax.jit(stage.train_step)(state, frozen, batch)
    return jax.device_get(metrics | evaluated)


class _Chain:
    """An autoencoder with latents of a scale, 0 for normalised ones, and the runs upon it."""

    def __init__(self, root, shards, model, scale: float):
        places = {name: str(root / name) for name in ("autoencoder", "representation")}
        tiny_models.write_run(places["autoencoder"], train=shards, latent_scale=scale)
        data = f"--config.data.train={shards}"
        config = config_lib.read(
            f"{tiny_runs.CONFIGS}/representation.py:tiny",
            [
                *_REPRESENTATION, data, f"--config.language_model.folder={model}",
                f"--config.autoencoder.workdir={places['autoencoder']}",
            ],
        )  # fmt: skip
        self.losses = [_step(config)] if scale else []
        tiny_runs.write(config, places["representation"], measures=True)
        self.run = lineage.Lineage.read(places["representation"])
        self.measured = run_folder.frozen(places["representation"])["measured"]
        config = config_lib.read(
            f"{tiny_runs.CONFIGS}/generation.py:tiny",
            [*_GENERATION, data, f"--config.representation.workdir={places['representation']}"],
        )
        self.losses += [_step(config)] if scale else []
        self.workdir = str(root / "generation")
        tiny_runs.write(config, self.workdir)
        tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(self.workdir)
        rng = np.random.default_rng(0)
        self.latents = tokenizer.codec.encode([rng.normal(size=12_800).astype(np.float32)])
        self.represented = tokenizer.representer.represent(self.latents)[0]
        self.streamed = tokenizer.representer.stream(self.latents[0][None])[0]
        self.generator = tokenizer.text_to_sound
        requests = [self.generator.request("seven", prompt=self.latents[0])]
        self.made = self.generator.generate(requests, max_patches=4, min_patches=4)[0][0]
        self.followed = self.generator.follow(requests, self.latents)[0]


@pytest.fixture(scope="module")
def chains(tmp_path_factory) -> dict[float, _Chain]:
    root = tmp_path_factory.mktemp("scales")
    shards = str(sounds.labelled_set(root / "sound", num_files=12))
    model = tiny_models.write_language_model(root / "text")
    return {scale: _Chain(root / f"{scale:g}", shards, model, scale) for scale in (0.0, 1.0, 8.0)}


@pytest.mark.slow
def test_losses_do_not_depend_on_the_scale_of_latents(chains):
    # A power of 2 scales floats without rounding, so that equal means equal.
    for one, other in zip(chains[1.0].losses, chains[8.0].losses, strict=True):
        assert one.keys() == other.keys() and one
        for name, value in one.items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.slow
def test_what_is_made_and_understood_has_the_scale_of_the_autoencoder(chains):
    one, other = chains[1.0], chains[8.0]
    np.testing.assert_array_equal(other.latents[0], 8.0 * one.latents[0])
    for name in ("represented", "streamed"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name), err_msg=name)
    for name in ("made", "followed"):
        assert np.abs(getattr(one, name)).max() > 0
        np.testing.assert_array_equal(getattr(other, name), 8.0 * getattr(one, name), err_msg=name)


@pytest.mark.slow
def test_the_rms_is_that_of_the_latents_and_only_of_those_that_need_it(chains):
    one, other = (chains[scale].measured["latent_rms"] for scale in (1.0, 8.0))
    assert other == 8.0 * one
    assert other == chains[8.0].run.latent_rms == chains[8.0].generator._latent_rms
    assert "latent_rms" not in chains[0.0].measured
    assert chains[0.0].run.latent_rms == 1.0 and chains[0.0].run.normalizes_latents


@pytest.mark.slow
def test_frames_are_renormalized_only_where_the_autoencoder_does_so(chains):
    assert chains[0.0].generator.sampler.renormalize
    np.testing.assert_allclose(np.square(chains[0.0].made).mean(axis=-1), 1.0, atol=0.01)
    generator = chains[8.0].generator
    assert not generator.sampler.renormalize
    with pytest.raises(ValueError, match="without the norm of config.bottleneck.*renormalize=True"):
        request = generator.request("seven")
        generator.generate([request], max_patches=4, sampler=dict(renormalize=True))


@pytest.mark.slow
def test_normalised_latents_cost_nothing(chains):
    model = pretrained_generation.Model(lineage.Lineage.read(chains[0.0].workdir))
    assert "latent_rms" not in model.abstract()


def test_silence_has_no_scale():
    with pytest.raises(ValueError, match="latents must have an rms above 0"):
        first_examples.rms([np.float64(0.0), np.float64(80.0)])
    energy = first_examples.energy(np.full((1, 2, 3), 2.0, np.float32), np.array([[True, False]]))
    assert first_examples.rms(energy) == 2.0
