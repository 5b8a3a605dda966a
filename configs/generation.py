# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the generation stage: a flow head on the states of a language model.

    python -m f3tok_jax.train --config=configs/generation.py:tiny \
        --config.representation.workdir=runs/representation \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/generation

Presets:
    tiny    minutes on two CPU cores, on the tiny representation stage
    base    one host of eight chips or of v5p, and more; on Qwen3-0.6B
    large   pods, on Qwen3-4B

"F3" marks a value of arXiv 2606.06357, "VoxCPM" one of github.com/OpenBMB/VoxCPM, "NextStep" one of
arXiv 2508.10711; everything else is chosen.
"""

import ml_collections

from configs import representation
from configs import sections

PRESETS = ("tiny", "base", "large")


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r} (configs/generation.py)")
    config = _base(preset)
    if preset == "tiny":
        _make_tiny(config)
    if preset == "large":
        _make_large(config)
    config.preset = preset
    return config


def _base(preset: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "generation"
    config.preset = ""
    config.seed = 0
    config.num_steps = 100_000

    config.representation = ml_collections.ConfigDict(
        dict(
            workdir="",  # run of the representation stage, with all models that it knows
            step=0,  # of its checkpoint; 0 for the newest
            # Its config, where there is no run to read it from: compile_check needs no weights.
            recipe=representation.get_config(preset),
        )
    )
    config.language_model = ml_collections.ConfigDict(
        dict(
            # What is trained of it: "nothing" (F3's stage of the head), "all" (its task stage), or
            # "low_rank" differences of its matrices.
            train="nothing",
            rank=64,  # of "low_rank"
            compute_dtype="bfloat16",
            remat="dots",  # what the backward pass computes again: "none", "dots" or "block"
        )
    )
    config.model = ml_collections.ConfigDict(
        dict(  # the flow head: 67 M parameters
            history=1,  # patches before the one that is made (VoxCPM)
            num_layers=4,  # VoxCPM
            width=1024,  # VoxCPM
            hidden_width=4096,  # VoxCPM
            num_heads=8,
            num_kv_heads=8,
            head_dim=128,  # the lanes of a TPU; VoxCPM has 16 heads of 64
            rope_theta=10_000.0,
            norm_epsilon=1e-6,
            qk_norm=True,
            use_token=True,  # F3: the condition is the state and the representation
            row=640,  # positions, of many patches; long rows suit TPUs, 0 (each alone) suits CPUs
            remat="block",  # the head's own activations are many: draws x (history + 2) per latent
            compute_dtype="bfloat16",
        )
    )
    config.flow = ml_collections.ConfigDict(
        dict(
            draws=4,  # of time and noise per patch, for one pass of the language model (NextStep)
            condition_drop=0.1,  # share of patches without condition, for guidance
            history_drop=0.1,  # share of patches without history
            history_noise=0.2,  # alpha ~ U(0, this) on the history, one per patch
            encoder_noise=0.0,  # alpha ~ U(0, this) on what the encoder hears, one per example
            stop_weight=1.0,  # VoxCPM
            text_weight=0.0,  # of the text's own loss, where the language model is trained
        )
    )
    config.sampling = ml_collections.ConfigDict(
        dict(  # of evaluation, and what f3tok generate does unless told otherwise
            num_steps=10,  # VoxCPM
            solver="euler",  # or "midpoint"
            sway=-1.0,  # -1: small steps near the noise; 0: equal ones
            guidance=2.0,  # VoxCPM; 1 is the condition alone
            temperature=1.0,  # standard deviation of the noise
            renormalize=True,  # frames to mean 0, rms 1, as the autoencoder's are
        )
    )
    config.text = ml_collections.ConfigDict(
        dict(
            max_tokens=80,  # of an instruction with its text
            drop=0.1,  # share of examples without text: what is heard is continued
            tasks={**sections.tasks(), "language": 0.0, "instrument": 0.0, "event": 0.0},
        )
    )
    config.packing = ml_collections.ConfigDict(
        dict(
            examples=4,  # of the batch that share a row
            patches=640,  # of a row that the head learns from; 0 for all that its examples can have
            positions=896,  # of a row of the language model; 0 likewise; multiples of 128 for TPUs
        )
    )
    config.data = ml_collections.ConfigDict(
        dict(
            train="",  # shard folders, "DIR" or "DIR=weight,DIR=weight"
            heldout="",  # likewise, for the evaluation during training; "" for none
            latents=False,  # True: shards of latents, written by f3tok_jax.encode_shards
            batch_size=512,  # examples over the whole mesh
            crop_frames=500,  # latents per example, 20 s; longer records are cut there
            max_replaced=1000,  # unreadable records replaced before the run stops
            num_threads=1,  # per host, that prepare batches; more where reading waits for storage
        )
    )
    optimizers = {
        "head": sections.transformer_optimizer(
            learning_rate=2e-4, warmup_steps=2000, final_fraction=0.1
        )
        | {"weight_decay": 0.01},
        "language_model": sections.transformer_optimizer(
            learning_rate=1e-4, warmup_steps=5000, final_fraction=0.1
        ),
    }
    config.optimizer = ml_collections.ConfigDict(
        dict(
            **optimizers,
            ema_decay=0.9995,  # of all weights, per step
            accumulate=1,  # microbatches per step
        )
    )
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=2000)
    config.loop = sections.loop(eval_every=2000, sample_every=2000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    config.num_steps = 1000
    config.language_model.update(dict(rank=8, compute_dtype="float32", remat="none"))
    config.model.update(
        dict(
            num_layers=4,
            width=128,
            hidden_width=384,
            num_heads=4,
            num_kv_heads=4,
            head_dim=32,
            row=0,
            remat="none",
            compute_dtype="float32",
        )
    )
    config.flow.draws = 1
    config.text.max_tokens = 64
    # The embedded clips are up to 6 s long, half of it on average.
    config.packing.update(dict(examples=4, patches=192, positions=384))
    config.data.update(dict(batch_size=16, crop_frames=150))
    config.optimizer.head.update(dict(learning_rate=3e-3, warmup_steps=20))
    config.optimizer.language_model.update(dict(learning_rate=1e-3, warmup_steps=20))
    config.optimizer.ema_decay = 0.99
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=200))
    config.loop.update(dict(log_every=20, eval_every=200, eval_batches=4, sample_every=1_000_000))


def _make_large(config: ml_collections.ConfigDict) -> None:
    config.num_steps = 200_000
    config.language_model.remat = "block"
    config.model.update(  # 220 M parameters
        dict(history=2, num_layers=8, width=1280, hidden_width=5120, num_heads=10, num_kv_heads=10)
    )
    config.data.batch_size = 4096
    config.optimizer.head.learning_rate = 1e-4
    config.optimizer.language_model.learning_rate = 5e-5
