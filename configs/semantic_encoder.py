# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the semantic-encoder stage: Dasheng's architecture, trained by masked autoencoding.

    python -m f3tok_jax.train --config=configs/semantic_encoder.py:tiny \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/semantic_encoder

Presets:
    tiny    minutes on two CPU cores
    base    the published base, 86 M parameters; one slice

Shards are of 16 kHz. Where published weights of Dasheng or MiDashengLM are at hand, none of this is
needed: f3tok_jax.pretrained.semantic_encoder loads their folder in the place of a run. A comment in
brackets says where a value comes from; configs/page.py names the sources in full and makes
configs/VALUES.md of these lines.
"""

import ml_collections

from configs import sections

PRESETS = ("tiny", "base")


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/semantic_encoder.py)"
        )
    config = _base()
    if preset == "tiny":
        _make_tiny(config)
    config.preset = preset
    return config


def _base() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "semantic_encoder"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    config.num_steps = 1_500_000  # steps [Dasheng: 100 epochs of 15,000]

    config.model = ml_collections.ConfigDict(
        dict(  # the encoder
            num_layers=12,  # blocks: LayerNorm, bidirectional attention, LayerNorm, GELU [Dasheng]
            width=768,  # of a feature [Dasheng]
            num_heads=12,  # of attention [Dasheng]
            sample_rate=16_000,  # Hz, the only one [Dasheng]
            frame_length=512,  # samples per frame and transform, 32 ms [Dasheng]
            hop_length=160,  # samples, 10 ms [Dasheng]
            num_mels=64,  # bands of HTK's scale, in dB, down to 120 below the loudest [Dasheng]
            patch_frames=4,  # spectra side by side in a patch: 25 Hz [Dasheng]
            max_patches=252,  # with learned places, 10.08 s; longer sound goes in chunks [Dasheng]
            # What the backward pass computes again: "none", "dots", "attention" or "block". [chosen]
            remat="none",
            compute_dtype="bfloat16",  # of the products; parameters stay float32 [chosen]
        )
    )
    config.decoder = ml_collections.ConfigDict(
        dict(  # which nothing reads later
            num_layers=8,  # blocks as the encoder's [Dasheng]
            width=512,  # values per patch [Dasheng]
            num_heads=16,  # of attention [Dasheng]
        )
    )
    config.masking = ml_collections.ConfigDict(
        dict(
            ratio=0.75,  # share of an example's patches that is hidden [Dasheng]
            group=2,  # neighbours that are hidden together, 80 ms [Dasheng]
        )
    )
    config.mel_norm = ml_collections.ConfigDict(
        dict(
            # Of which means and variances of the mel bands are measured, about; then they stay. [chosen:
            # Dasheng's BatchNorm moves with every batch]
            statistics_seconds=20_000,
        )
    )
    config.data = ml_collections.ConfigDict(
        dict(
            train="",  # shard folders, "DIR" or "DIR=weight,DIR=weight", of 16 kHz [yours]
            heldout="",  # shard folders of the evaluation during training; "" for none [yours]
            # Examples over the whole mesh. [Dasheng: 256 on each of its devices, of which the number is
            # not said]
            batch_size=256,
            crop_frames=250,  # patches per example, 10 s [Dasheng]
            max_replaced=1000,  # unreadable records replaced before the run stops [chosen]
            # Threads per host that prepare batches; more where reading waits for storage. [measured]
            num_threads=1,
        )
    )
    config.optimizer = ml_collections.ConfigDict(
        dict(
            semantic_encoder=sections.transformer_optimizer(
                learning_rate=3e-4,
                warmup_steps=45_000,
                final_fraction=0.1,
                modules=("encoder", "decoder"),
            ),
            ema_decay=0.999,  # of all weights, per step [chosen]
            accumulate=1,  # microbatches per step [chosen]
        )
    )
    config.optimizer.semantic_encoder.learning_rate = 3e-4  # [Dasheng]
    config.optimizer.semantic_encoder.warmup_steps = 45_000  # [Dasheng: 3 epochs]
    config.optimizer.semantic_encoder.schedule = "cosine"  # [Dasheng]
    config.optimizer.semantic_encoder.final_fraction = 0.1  # [Dasheng]
    config.optimizer.semantic_encoder.weight_decay = 0.01  # [Dasheng]
    config.optimizer.semantic_encoder.b2 = 0.999  # [Dasheng: PyTorch's own]
    config.decays = sections.decays()
    config.decays.time_positions = False  # learned places of patches [chosen]
    config.decays.frequency_position = False  # likewise [chosen]
    config.decays.positions = False  # of the decoder [chosen]
    config.decays.mask_token = False  # one learned vector [chosen]
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=5000)
    config.loop = sections.loop(eval_every=5000, sample_every=1_000_000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores [chosen]."""
    config.num_steps = 1500
    config.model.update(dict(num_layers=4, width=96, num_heads=4, compute_dtype="float32"))
    config.decoder.update(dict(num_layers=2, width=64, num_heads=4))
    config.mel_norm.statistics_seconds = 600
    config.data.update(dict(batch_size=16, crop_frames=100))
    config.optimizer.semantic_encoder.update(dict(learning_rate=2e-3, warmup_steps=100))
    config.optimizer.ema_decay = 0.99
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=500))
    config.loop.update(dict(log_every=20, eval_every=500, eval_batches=4))
