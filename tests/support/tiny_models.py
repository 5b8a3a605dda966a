# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Models small enough to run in a test."""

from collections.abc import Callable
import functools
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import autoencoder as recipe
from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import bottleneck
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import language_model
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import representation_encoder
from f3tok_jax.models import semantic_autoencoder as semantic_autoencoder_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import autoencoder as autoencoder_stage
from f3tok_jax.training import stage as stage_lib
from tests.support import seals
from tests.support import sounds

# Of every transformer.
SHAPE = dict(num_layers=1, width=16, hidden_width=16, num_heads=2, num_kv_heads=1, head_dim=8)
TRANSFORMER = SHAPE | dict(
    rope_theta=1e4,
    norm_epsilon=1e-6,
    qk_norm=True,
    remat="none",
    compute_dtype="float32",
)
# Of a language model of one layer, 11 kinds of tokens.
LANGUAGE_MODEL = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    vocab_size=11,
    max_position_embeddings=64,
)
QWEN = dict(model_type="qwen3", rms_norm_eps=1e-6, rope_theta=1e4, tie_word_embeddings=True)
KL_VAE = bottleneck_kinds.KlVae(weight=1e-2, half=True, free_nats=0.0, logvar_clip=20.0)
_HEAD = dict(latent_dim=4, patch=2, history=2, use_token=True, row=0)


def config(preset: str = "tiny", **model) -> ml_collections.ConfigDict:
    """The recipe of a preset with two stages of narrow layers, or as `model` has it, and short crops."""
    config = recipe.get_config(preset)
    bins = config.model.hop_length // config.model.fold
    # Compilation is what a test waits for, and grows with the number of layers.
    # Sound as it comes, so that what goes in can be compared with what comes out.
    model = dict(strides=((2, 2), (2, bins // 10)), level_db=0.0) | model
    stages = len(model["strides"])
    config.model.update(
        dict(
            encoder_channels=(8,) * stages,
            decoder_channels=(8,) * stages,
            latent_dim=8,
            compute_dtype="float32",
        )
        | model
    )
    config.num_steps = 100
    config.optimizer.generator.warmup_steps = 2
    config.optimizer.discriminator.warmup_steps = 2
    config.data.update(dict(batch_size=8, crop_frames=2))
    config.losses.adversarial_crop = 0
    return config


def overrides(**changes) -> list[str]:
    """The arguments that change a config, from sections of it as dicts."""
    flat = config_lib.flatten(changes)
    return [f"--config.{name}={value}" for name, value in flat.items()]


@functools.lru_cache
def built(preset: str = "tiny", **model) -> tuple[autoencoder_lib.Autoencoder, dict]:
    """An untrained autoencoder and its variables."""
    autoencoder = pretrained_autoencoder.make(config(preset, **model))
    waveform = jnp.zeros((1, autoencoder.samples_per_latent))
    params = compilation.run_once(
        functools.partial(pretrained_autoencoder.init_params, autoencoder),
        jax.random.key(0),
        waveform,
    )
    # The last layer starts near zero: raised, so that a difference in the sound can be seen.
    output = params["decoder"]["output"]
    output["kernel"] = 10.0 * output["kernel"]
    return autoencoder, {"params": params}


@functools.cache
def compiled(module) -> Callable[..., Any]:
    """The `apply` of a module; its `method` is a name. Without it each product is a program of its own."""
    return jax.jit(module.apply, static_argnames="method")


def write_run(
    folder: str | os.PathLike,
    *,
    train: str = "",
    seed: int = 0,
    latent_scale: float = 0.0,
    bottleneck: str = "f3",
    **model,
) -> None:
    """Writes a run folder whose checkpoint of step 3 has random weights; `train` are its shards.

    With a `latent_scale` its latents are not normalised, and so many times those of scale 1; those of
    another kind of `bottleneck` than F3's never are. Its config
    is that of `config`, without what is None in `model`.
    """
    settings = config(**{name: value for name, value in model.items() if value is not None})
    for name in model.keys() - {name for name, value in model.items() if value is not None}:
        del settings.model[name]
    settings.data.train = train
    settings.bottleneck.update(dict(kind=bottleneck, normalize=not latent_scale))
    config_lib.save(settings, str(folder))

    def scale(path, leaf):
        names = [entry.key for entry in path if hasattr(entry, "key")]
        is_last = "dense_pair" in names and names[-2] in ("output", "linear")
        return latent_scale * leaf if latent_scale and "encoder" in names and is_last else leaf

    stage = autoencoder_stage.make_stage(settings)
    change = functools.partial(jax.tree.map_with_path, scale)
    write_checkpoint(folder, settings, stage, seed=seed, change=change)


def write_checkpoint(
    folder: str | os.PathLike,
    settings: ml_collections.ConfigDict,
    stage: stage_lib.Stage,
    *,
    step: int = 3,
    seed: int = 0,
    change: Callable[[Any], Any] = lambda state: state,
) -> None:
    """Writes a checkpoint with random weights, `change` of them."""
    rng = np.random.default_rng(seed)

    def weights(leaf):  # compiling the real initialisation would take longer than most tests
        return jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype)

    abstract = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    writer = checkpoint.Checkpointer(
        str(folder), config_json=config_lib.to_json(settings), data_fingerprint=""
    )
    writer.save(step, change(jax.tree.map(weights, abstract)))
    writer.close()


def add_damaged_step(folder: str | os.PathLike) -> None:
    """Adds a newer checkpoint, of step 5, with every large file cut in half."""
    checkpoints = pathlib.Path(folder) / "checkpoints"
    shutil.copytree(checkpoints / "3", checkpoints / "5")
    seals.change(checkpoints / "5" / "meta" / "metadata", step=5)
    for path in (checkpoints / "5" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def random_weights(abstract: Any, *, seed: int = 0, scale: float = 0.3) -> Any:
    """Arrays of the shapes of a tree, boxed or not: gains around 1, the rest around 0.

    Nothing is compiled, and nothing is zero that a fresh model has at zero.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = scale * rng.normal(size=leaf.shape)
        is_gain = path[-1].key in ("scale", "gain", "embedding_rms")
        return jnp.asarray(values + is_gain, leaf.dtype)

    return jax.tree.map_with_path(draw, sharding.unbox(abstract))


def head(**changes) -> flow_head.FlowHead:
    """A flow head of one layer, for latents of width 4 in patches of 2."""
    return flow_head.FlowHead(**(TRANSFORMER | _HEAD | changes))


def head_inputs(head: flow_head.FlowHead, width: int, rows: int = 1) -> tuple[jax.Array, ...]:
    """Arguments of a head's call, all zero, for a language model of `width`."""
    patch, latent_dim = head.patch, head.latent_dim
    shapes = ((width,), (width,), (), (patch, latent_dim), (head.history * patch, latent_dim))
    return tuple(jnp.zeros((rows, *shape)) for shape in shapes)


def semantic_autoencoder(fusion: str, **changes) -> semantic_autoencoder_lib.SemanticAutoencoder:
    """LoSATok ("latents") or DashengTokenizer ("features") at 25 Hz, 64 samples to a latent."""
    fields = dict(
        sample_rate=1600,
        frame_length=128,
        hop_length=16,
        num_mels=8,
        mel_floor=1e-7,
        patch_frames=4,
        feature_dim=10,
        feature_rate=25.0,
        fusion=fusion,
        bottleneck_dim=7,
        latent_dim=4 if fusion == "latents" else 10,
        decoder_width=6,
        decoder_hidden_width=8,
        decoder_blocks=1,
        decoder_frame_length=128,
        decoder_hop_length=32,
        compute_dtype="float32",
        bottleneck=KL_VAE if fusion == "latents" else bottleneck.Bottleneck(),
    )
    return semantic_autoencoder_lib.SemanticAutoencoder(**(fields | changes))


def generator() -> tuple[generator_lib.Generator, dict]:
    """A generator of random weights: one layer of width 16 everywhere, 11 kinds of text tokens."""
    encoder = representation_encoder.RepresentationEncoder(
        latent_dim=4, window=5, input_noise=0.5, **TRANSFORMER
    )
    model = language_model.make(LANGUAGE_MODEL | QWEN, compute_dtype="float32", remat="none")
    projector = projector_lib.Projector(patch=2, width=16)
    shapes = {"language_model": language_model.abstract_params(model)}
    for name, module, inputs in (
        ("encoder", encoder, (jnp.zeros((1, 2, 4)),)),
        ("projector", projector, (jnp.zeros((1, 2, 16)),)),
        ("head", head(), head_inputs(head(), 16)),
    ):
        shapes[name] = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    shapes["embedding_rms"] = jax.ShapeDtypeStruct((), jnp.float32)
    made = generator_lib.Generator(
        encoder=encoder, projector=projector, language_model=model, head=head()
    )
    return made, random_weights(shapes)


def write_language_model(
    folder: pathlib.Path, *, seed: int = 0, scale: float = 0.1, is_tied: bool = True
) -> str:
    """Writes a Hugging Face folder: weights of that size, one layer, a token per byte; returns it.

    At 0.1 its answers hardly depend on what it is told.
    """
    fields = LANGUAGE_MODEL | QWEN | dict(vocab_size=260, max_position_embeddings=256)
    fields["tie_word_embeddings"] = is_tied
    model = language_model.make(fields, compute_dtype="float32", remat="none")
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype),
        sharding.unbox(language_model.abstract_params(model)),
    )
    tokenizer = sounds.tokenizer(folder / "tokenizer") / "tokenizer.json"
    pretrained_language_model.write(folder / "model", model, params, tokenizer)
    return str(folder / "model")
