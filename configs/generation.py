# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the generation stage: a flow head on the states of a language model.

    python -m f3tok_jax.train --config=configs/generation.py:tiny \
        --config.representation.workdir=runs/representation \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/generation

Presets:
    tiny    minutes on two CPU cores, on the tiny representation stage
    small   an hour on two CPU cores, on the small representation stage: what is shipped
    base    one host of v5p, 16 chips of v5e, and more; on Qwen3-0.6B
    large   pods, on Qwen3-4B

A comment in brackets says where a value comes from; configs/page.py names the sources in full and
makes configs/VALUES.md of these lines.
"""

import ml_collections

from configs import representation
from configs import sections

PRESETS = ("tiny", "small", "base", "large")


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r} (configs/generation.py)")
    config = _base(preset)
    if preset in ("tiny", "small"):
        _make_tiny(config)
    if preset == "small":
        _make_small(config)
    if preset == "large":
        _make_large(config)
    config.preset = preset
    return config


def _base(preset: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "generation"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    # Steps. [chosen: of the head; 150,000 where the language model is trained, too]
    config.num_steps = 100_000

    config.representation = ml_collections.ConfigDict(
        dict(
            workdir="",  # run of the representation stage, with all models that it knows [yours]
            step=0,  # of its checkpoint; 0 for the newest [yours]
            # Its config, where there is no run to read it from: compile_check needs no weights. [as
            # representation.py]
            recipe=representation.get_config(preset),
            # What is trained of it: "nothing", or "encoder", with the projector, by a difference
            # from its weights (the task stage). [chosen: an option of the task stage of large]
            train="nothing",
        )
    )
    config.language_model = ml_collections.ConfigDict(
        dict(
            # What is trained of it: "nothing" (the stage of the head), "all" (the task stage), or
            # "low_rank" differences of its matrices. [F3]
            train="nothing",
            rank=64,  # of "low_rank" [chosen]
            compute_dtype="bfloat16",  # of its products [chosen]
            # What the backward pass computes again: "none", "dots", "attention" or "block". [measured: what fits]
            remat="dots",
        )
    )
    config.model = ml_collections.ConfigDict(
        dict(  # the flow head
            history=1,  # patches before the one that is made [VoxCPM]
            num_layers=4,  # blocks: RMSNorm, attention in both directions, SwiGLU [VoxCPM]
            width=1024,  # of a position [VoxCPM]
            hidden_width=4096,  # of a block's SwiGLU [VoxCPM]
            num_heads=8,  # of queries [chosen: width / head_dim; VoxCPM has 16]
            num_kv_heads=8,  # of keys and values [chosen: no sharing]
            head_dim=128,  # the lanes of a TPU [measured; VoxCPM has 64]
            rope_theta=10_000.0,  # base of the rotary positions' wavelengths [chosen: usual]
            norm_epsilon=1e-6,  # added to the mean square [Qwen3]
            qk_norm=True,  # norm of queries and keys, per head [Qwen3]
            use_token=True,  # the condition is the state and the representation [F3]
            # Positions at most, of many patches; as many as a TPU has lanes suit it, 0 (each alone)
            # suits CPUs. [measured]
            row=128,
            # As of the language model. [measured: the fastest that fits 16 chips of v5e; on eight
            # of them "block" does]
            remat="attention",
            compute_dtype="bfloat16",  # of the products; parameters stay float32 [chosen]
        )
    )
    config.flow = ml_collections.ConfigDict(
        dict(
            # Of time and noise per patch, for one pass of the language model. [NextStep: so VibeVoice
            # and MAR]
            draws=4,
            condition_drop=0.1,  # share of patches without condition, for guidance [VoxCPM]
            history_drop=0.1,  # share of patches without history [chosen]
            history_noise=0.2,  # alpha ~ U(0, this) on the history, one per patch [chosen: as CAM]
            # alpha ~ U(0, this) on what the encoder hears, one per example: what is sampled is not as
            # clean as what was recorded. [CAM: inputs of training; its own level is not known]
            encoder_noise=0.3,
            # Whether the flow's loss reaches an encoder that is trained through the condition's
            # token, too, and not through the language model alone. [chosen]
            token_gradient=False,
            stop_weight=1.0,  # of the cross-entropy of "this was the last patch" [VoxCPM]
            # Of the text's own loss, where the language model is trained. [chosen: 0 without text of
            # its own; NextStep has 0.01]
            text_weight=0.0,
        )
    )
    config.sampling = ml_collections.ConfigDict(
        dict(  # of evaluation, and what f3tok generate does unless told otherwise
            num_steps=10,  # of the solver [VoxCPM]
            solver="euler",  # or "midpoint" [VoxCPM]
            # -1: small steps near the noise; 0: equal ones. [VoxCPM: its 1, time the other way round]
            sway=-1.0,
            guidance=2.0,  # 1 is the condition alone [VoxCPM]
            temperature=1.0,  # standard deviation of the noise [chosen: as in training]
            # Frames to mean 0, rms 1, as the autoencoder's are; nothing where they are not. [NextStep]
            renormalize=True,
        )
    )
    config.text = ml_collections.ConfigDict(
        dict(
            # Of an instruction with its text. [measured: as supervision.max_tokens of the
            # representation stage]
            max_tokens=160,
            drop=0.1,  # share of examples without text: what is heard is continued [chosen]
            # Share of each task among the examples that have what it asks for. [chosen]
            tasks={**sections.tasks(), "language": 0.0, "instrument": 0.0, "event": 0.0},
        )
    )
    config.packing = ml_collections.ConfigDict(
        dict(
            examples=4,  # of the batch that share a row [chosen]
            # Of a row that the head learns from; 0 for all that its examples can have. [chosen: 4 of
            # 12.3 s, LibriSpeech's mean, are 616]
            patches=640,
            # Of a row of the language model; 0 likewise; multiples of 128 for TPUs. [chosen: 4 of
            # 12.3 s are 616 audio tokens, 4 edges and 323 of text, 6 per second and 7]
            positions=1024,
        )
    )
    config.data = sections.data_of_latents(
        # Examples over the whole mesh, 10,240 s at most. [chosen: as the representation stage; with
        # the language model trained 2,000 s, 128, do: VoxCPM's tuning reads 655 s]
        batch_size=512,
    )
    optimizers = {
        "head": sections.transformer_optimizer(
            learning_rate=2e-4,  # the largest, after the warm-up [RAE]
            warmup_steps=2000,
            final_fraction=0.1,
        )
        | {"weight_decay": 0.01},  # of what config.decays names, times the learning rate [VoxCPM]
        "language_model": sections.transformer_optimizer(
            learning_rate=1e-4,  # the largest, after the warm-up [NextStep]
            warmup_steps=5000,  # steps from 0 to the largest [NextStep]
            final_fraction=0.1,  # of the learning rate, at the end [NextStep: its second phase]
        ),
        # A tenth of the language model's rate. [chosen]
        "encoder": sections.transformer_optimizer(
            learning_rate=1e-5, warmup_steps=5000, final_fraction=0.1
        ),
    }
    config.optimizer = ml_collections.ConfigDict(
        dict(
            **optimizers,
            ema_decay=0.9995,  # of all weights, per step [RAE]
            accumulate=1,  # microbatches per step [chosen]
        )
    )
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=2000)
    config.loop = sections.loop(eval_every=2000, sample_every=2000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores, on the tiny representation stage [chosen]."""
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
    config.flow.encoder_noise = 0.0  # what it does at this size is not measured [chosen]
    config.text.max_tokens = 64
    # The embedded clips are up to 6 s long, half of it on average.
    config.packing.update(dict(examples=4, patches=192, positions=384))
    config.data.update(dict(batch_size=16, crop_frames=150))
    config.optimizer.head.update(dict(learning_rate=3e-3, warmup_steps=20))
    config.optimizer.language_model.update(dict(learning_rate=1e-3, warmup_steps=20))
    config.optimizer.encoder.update(dict(learning_rate=1e-4, warmup_steps=20))
    config.optimizer.ema_decay = 0.99
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=200))
    config.loop.update(dict(log_every=20, eval_every=200, eval_batches=4, sample_every=1_000_000))


def _make_small(config: ml_collections.ConfigDict) -> None:
    """For an hour on two CPU cores, from tiny, on the small representation stage [chosen]."""
    config.num_steps = 4000
    config.model.update(
        dict(num_layers=4, width=160, hidden_width=432, num_heads=5, num_kv_heads=5)
    )
    config.text.max_tokens = 128
    # Real recordings are cut at 12 s, which a twelfth of the transcripts of `shippable` is beyond; on
    # average they and the embedded ones have 3.
    config.packing.update(dict(examples=8, patches=384, positions=768))
    config.data.update(dict(crop_frames=300, max_lost=0.1))
    config.optimizer.head.update(dict(learning_rate=2e-3, warmup_steps=100))
    config.optimizer.ema_decay = 0.998
    config.checkpoint.every_steps = 250
    config.loop.update(dict(eval_every=500))


def _make_large(config: ml_collections.ConfigDict) -> None:
    """About three times the head of base, on Qwen3-4B, which is what F3 reports [chosen]."""
    config.num_steps = 200_000
    config.language_model.remat = "block"
    config.model.update(  # 220 M parameters
        dict(history=2, num_layers=8, width=1280, hidden_width=5120, num_heads=10, num_kv_heads=10)
    )
    # 20,480 s at most, 12,600 of 12.3 s each. [chosen: about 16,000 s in rows that two slices of 64
    # chips share evenly]
    config.data.batch_size = 1024
    config.optimizer.head.learning_rate = 1e-4
    config.optimizer.language_model.learning_rate = 5e-5
    config.optimizer.language_model.final_fraction = 0.2  # to 1e-5 [NextStep: its second phase]
    config.optimizer.encoder.learning_rate = 5e-6  # a tenth of that [chosen]
