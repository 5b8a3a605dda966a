# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the representation stage: RQ-MTP and the supervision of a frozen language model.

    python -m f3tok_jax.train --config=configs/representation.py:tiny \
        --config.autoencoder.workdir=runs/autoencoder --config.language_model.folder=MODEL \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/representation

Presets:
    tiny    minutes on two CPU cores, with the embedded language model
    small   an hour on two CPU cores, with the small language model: what is shipped
    base    one host of v6e or v5p, 16 chips of v5e, and more; made for Qwen3-0.6B
    large   pods, made for Qwen3-4B

A comment in brackets says where a value comes from; configs/page.py names the sources in full and
makes configs/VALUES.md of these lines.
"""

import ml_collections

from configs import autoencoder
from configs import sections

PRESETS = ("tiny", "small", "base", "large")


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/representation.py)"
        )
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
    config.stage = "representation"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    config.num_steps = 200_000  # steps [chosen: 570,000 h of 10,240 s a step]

    config.autoencoder = ml_collections.ConfigDict(
        dict(
            workdir="",  # run of the autoencoder stage, whose latents are the input [yours]
            step=0,  # of its checkpoint; 0 for the newest [yours]
            # Its config, where there is no run to read it from: compile_check needs no weights. [as
            # autoencoder.py]
            recipe=autoencoder.get_config(preset),
        )
    )
    config.language_model = sections.frozen_language_model(
        remat="dots"  # [measured: what fits]
    )
    config.model = ml_collections.ConfigDict(
        dict(  # the encoder: 85 M parameters
            num_layers=12,  # blocks: RMSNorm, causal attention, SwiGLU [chosen]
            width=768,  # of a representation [chosen]
            hidden_width=2048,  # of a block's SwiGLU [chosen: 8/3 of the width]
            num_heads=6,  # of queries [chosen: width / head_dim]
            num_kv_heads=6,  # of keys and values [chosen: no sharing]
            head_dim=128,  # the lanes of a TPU; heads of 64 leave half of them empty [measured]
            rope_theta=10_000.0,  # base of the rotary positions' wavelengths [chosen: usual]
            norm_epsilon=1e-6,  # added to the mean square [Qwen3]
            qk_norm=True,  # norm of queries and keys, per head [Qwen3]
            # Latents that attention sees, 10 s; 0 for all. [chosen: MOSS-Audio-Tokenizer has 10 s]
            window=250,
            # alpha ~ U(0, this), one per example, on the input only. [chosen: CAM disturbs inputs, so
            # that errors of what is sampled do not add up; labels stay clean]
            input_noise=0.2,
            remat="dots",  # as of the language model [measured: what fits]
            compute_dtype="bfloat16",  # of the products; parameters stay float32 [chosen]
        )
    )
    config.rq = ml_collections.ConfigDict(
        dict(
            weight=1.0,  # of this loss; 0 leaves it out [chosen]
            target="latents",  # or "log_mel", which needs sound [F3: of frozen latents]
            mel_bands=80,  # of "log_mel" [TouchNet]
            mel_frames=4,  # of "log_mel", side by side in one target: 40 ms [TouchNet: its stride]
            # BEST-RQ standardises each channel. Where variance lies in few directions that leaves most
            # codes unused (of 64, the tiny preset: 42 %, whitened 82 %).
            # "whiten": no correlation between channels either; "leading": only what varies most,
            # whitened; "standardize": per channel alone [measured: codes in use, probes of all kinds]
            normalization="whiten",
            directions=8,  # of "leading" [chosen]
            layer_norm=True,  # of "standardize", per frame, before the projection [TouchNet]
            statistics_frames=500_000,  # of which mean and whitening are measured, about [chosen]
            # Random projections, each with its codes. [chosen: each sees 16 of 64 dimensions; wenet
            # has 1, USM 16]
            num_codebooks=4,
            codebook_size=2048,  # codes of each [chosen: 4 small softmaxes; TouchNet 1024, wenet 8192]
            code_dim=16,  # of a projection [BEST-RQ]
            num_heads=5,  # frames ahead, 200 ms [NEST-RQ: as a third party tells it]
            # Per head and codebook: one matrix, or "bottleneck": norm and two. [chosen]
            head="linear",
            bottleneck_dim=512,  # of "bottleneck" [chosen]
            # Of codebook_size, below which a codebook is said to collapse. [chosen]
            min_perplexity=0.4,
        )
    )
    config.supervision = ml_collections.ConfigDict(
        dict(
            weight=1.0,  # of this loss; 0 leaves it out, language model and all [chosen]
            patch=2,  # latents per audio token: 12.5 Hz [F3]
            # "linear", or "swiglu": as wide in between as twice the language model. [chosen]
            projector="swiglu",
            # Of an instruction with its answer and its end. [measured: 20 s of fast English speech,
            # espeak at 280 words per minute, are 128 words of 1.19 tokens of Qwen3, 153; and 6 for
            # instruction and end. At 175 words per minute 99; German 117 and 179, French 131 and 204]
            max_tokens=160,
            # Share of each task among the examples that have what it asks for. [chosen]
            tasks=sections.tasks(),
        )
    )
    config.packing = ml_collections.ConfigDict(
        dict(
            examples=4,  # of the batch that share a row [chosen]
            # Of a row of the encoder; 0 for all that its examples can have. [chosen: 4 of 12.3 s,
            # LibriSpeech's mean, are 1,230]
            frames=1280,
            # Of a row of the language model; 0 likewise; multiples of 128 for TPUs. [chosen: 4 of
            # 12.3 s are 616 audio tokens, 8 edges and 323 of text, 6 per second and 7]
            positions=1024,
        )
    )
    config.data = sections.data_of_latents(
        batch_size=512,  # examples over the whole mesh, 10,240 s at most [chosen]
    )
    config.optimizer = ml_collections.ConfigDict(
        dict(
            encoder=sections.transformer_optimizer(
                learning_rate=5e-4,
                warmup_steps=5000,
                final_fraction=0.1,
                modules=("encoder", "heads", "projector"),
            ),
            ema_decay=0.999,  # of all weights, per step [chosen]
            accumulate=1,  # microbatches per step [chosen]
        )
    )
    # From there on the language model's loss joins RQ-MTP. [chosen: it costs most of a step, and a
    # random encoder has nothing to say to the language model]
    config.optimizer.encoder.modules.projector.start = 0.25
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=2000)
    config.loop = sections.loop(eval_every=2000, sample_every=2000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores, with the embedded language model [chosen]."""
    config.num_steps = 400
    config.language_model.update(dict(compute_dtype="float32", remat="none"))
    config.language_model.shape.update(sections.TINY_LANGUAGE_MODEL)
    config.model.update(
        dict(
            num_layers=4,
            width=128,
            hidden_width=384,
            num_heads=4,
            num_kv_heads=4,
            head_dim=32,
            window=0,
            input_noise=0.2,
            remat="none",
            compute_dtype="float32",
        )
    )
    config.rq.update(dict(statistics_frames=40_000, num_codebooks=4, codebook_size=64, num_heads=3))
    config.supervision.update(dict(projector="linear", max_tokens=64))
    # The embedded clips are up to 6 s long, half of it on average.
    config.packing.update(dict(examples=4, frames=384, positions=384))
    config.data.update(dict(batch_size=16, crop_frames=150))
    config.optimizer.encoder.update(dict(learning_rate=3e-3, warmup_steps=20, weight_decay=0.05))
    config.optimizer.encoder.modules.projector.start = 0.1
    config.optimizer.ema_decay = 0.99
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=200))
    config.loop.update(dict(log_every=20, eval_every=200, eval_batches=4, sample_every=1_000_000))


def _make_small(config: ml_collections.ConfigDict) -> None:
    """For an hour on two CPU cores, from tiny, on the small autoencoder [chosen]."""
    config.num_steps = 3000
    config.language_model.shape.update(sections.SMALL_LANGUAGE_MODEL)
    config.model.update(
        dict(num_layers=6, width=160, hidden_width=432, num_heads=5, num_kv_heads=5)
    )
    config.rq.num_heads = 5
    config.supervision.max_tokens = 128
    # Real recordings are cut at 12 s, which a twelfth of the transcripts of `shippable` is beyond; on
    # average they and the embedded ones have 3.
    config.packing.update(dict(examples=8, frames=768, positions=768))
    config.data.update(dict(crop_frames=300, max_lost=0.1))
    config.optimizer.encoder.update(dict(learning_rate=2e-3, warmup_steps=100))
    config.optimizer.ema_decay = 0.998
    config.checkpoint.every_steps = 250
    config.loop.update(dict(eval_every=500))


def _make_large(config: ml_collections.ConfigDict) -> None:
    """The width and depth of Whisper-large, a language model of the size that F3 reports [chosen]."""
    config.num_steps = 300_000
    # [Qwen3: 4B]
    config.language_model.shape.update(
        dict(
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
        )
    )
    config.model.update(  # 634 M parameters
        dict(
            num_layers=32,
            width=1280,
            hidden_width=3456,
            num_heads=10,
            num_kv_heads=10,
            window=750,  # 30 s [chosen]
        )
    )
    config.language_model.remat = config.model.remat = "block"
    config.rq.update(dict(codebook_size=8192, head="bottleneck"))
    config.data.batch_size = 4096  # 81,920 s at most [chosen]
    config.optimizer.encoder.learning_rate = 2e-4
