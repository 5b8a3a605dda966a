# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the autoencoder stage with a frozen semantic encoder: LoSATok and DashengTokenizer.

    python -m f3tok_jax.train --config=configs/semantic_autoencoder.py:losatok_tiny \
        --config.semantic_bottleneck.workdir=runs/semantic_bottleneck \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/losatok
    python -m f3tok_jax.train --config=configs/semantic_autoencoder.py:dasheng_tokenizer_tiny \
        --config.semantic_encoder.workdir=runs/semantic_encoder \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/dasheng_tokenizer

Presets:
    losatok, dasheng_tokenizer              the published sizes; a slice
    losatok_tiny, dasheng_tokenizer_tiny    minutes on two CPU cores, on runs of configs/semantic_encoder.py:tiny
                                            and configs/semantic_bottleneck.py:tiny

Shards are of 16 kHz. No training code of either is public: what no paper says of it is as
autoencoder.py has it, so that all are compared under the same conditions. A comment in brackets says
where a value comes from; configs/page.py names the sources in full and makes configs/VALUES.md of these
lines.
"""

import ml_collections

from configs import autoencoder
from configs import sections
from configs import semantic_bottleneck
from configs import semantic_encoder

PRESETS = ("losatok", "dasheng_tokenizer", "losatok_tiny", "dasheng_tokenizer_tiny")


def get_config(preset: str = "losatok") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/semantic_autoencoder.py)"
        )
    config = _base()
    if preset.startswith("losatok"):
        _make_losatok(config)
    if preset.endswith("tiny"):
        _make_tiny(config)
    if preset == "losatok_tiny":
        _make_losatok_tiny(config)
    config.preset = preset
    return config


def _base() -> ml_collections.ConfigDict:
    """DashengTokenizer at its published size."""
    config = ml_collections.ConfigDict()
    config.stage = "autoencoder"  # [fixed]
    config.family = "semantic_autoencoder"  # of the models of that stage, and of recipes [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    config.num_steps = 1_000_000  # steps [LoSATok]

    config.semantic_encoder = ml_collections.ConfigDict(
        dict(
            # Run of the semantic-encoder stage, through which sound is heard; "" for the one that
            # config.semantic_bottleneck was trained on, where there is that. [yours]
            workdir="",
            step=0,  # of its checkpoint; 0 for the newest [yours]
            # Published weights of Dasheng or MiDashengLM in the place of a run, a folder or a file. [yours]
            folder="",
            # Its config, where there is no run to read it from: compile_check needs no weights. [as
            # semantic_encoder.py]
            recipe=semantic_encoder.get_config("base"),
            compute_dtype="float32",  # of its products [LoSATok]
        )
    )
    # Dasheng's 0.6B [LoSATok]
    config.semantic_encoder.recipe.model.update(dict(num_layers=32, width=1280, num_heads=16))
    config.model = ml_collections.ConfigDict(
        dict(
            sample_rate=16_000,  # Hz, mono; that of the semantic encoder [LoSATok]
            frame_length=1024,  # samples, of the mel spectrum of the acoustic branch [LoSATok]
            hop_length=160,  # samples, of the same [LoSATok]
            num_mels=128,  # bands of HTK's scale, magnitudes [LoSATok]
            mel_floor=1e-7,  # of magnitudes, below which all is silence [LoSATok]
            patch_frames=4,  # mel spectra to a latent: 25 Hz [LoSATok]
            feature_dim=1280,  # of the semantic encoder's features; acoustic ones are as wide [LoSATok]
            feature_rate=25.0,  # Hz, of the semantic encoder's features [LoSATok]
            # "features": both streams are added as they are, as DashengTokenizer; "latents": once they
            # are narrow, as LoSATok. [LoSATok: its code has both]
            fusion="features",
            bottleneck_dim=512,  # of the semantic bottleneck's hidden layers, if there is one [LoSATok]
            latent_dim=1280,  # values per latent; where features are added, as many [LoSATok]
            decoder_width=1280,  # of a frame, of the decoder's ConvNeXt blocks [LoSATok]
            decoder_hidden_width=5120,  # within a block [LoSATok]
            decoder_blocks=12,  # of a depthwise convolution and two products each [LoSATok]
            decoder_frame_length=1280,  # samples, of the inverse STFT [LoSATok]
            decoder_hop_length=320,  # samples, two frames to a latent [LoSATok]
            compute_dtype="bfloat16",  # of convolutions and products; parameters stay float32 [chosen]
            # DBFS of rms, to which each whole sound is brought before it is encoded, and back behind the
            # decoder; 0 for sound as it comes. [as autoencoder.py]
            level_db=-20.0,
        )
    )
    config.bottleneck = sections.bottleneck()
    # Latents as they come: neither norm nor noise. [LoSATok: so its copy of DashengTokenizer has it]
    config.bottleneck.update(dict(normalize=False, perturb=False))
    config.discriminators = autoencoder.discriminators()
    config.discriminators.update(
        dict(
            kind="multi_frequency",  # X-Codec's [LoSATok]
            stft_windows=(128, 256, 512, 1024, 2048, 4096),  # samples; hop is a quarter [LoSATok]
            stft_channels=512,  # the most of any layer [LoSATok]
        )
    )
    config.losses = autoencoder.losses()
    config.losses.weights.update(
        dict(
            mel=45.0,  # of the log-mel distance; DAC's [LoSATok]
            adversarial=1.0,  # of what the discriminators say [LoSATok]
            feature_matching=1.0,  # of the distance of their feature maps, summed [LoSATok]
            # Of the distance of acoustic features from semantic ones, at each level. [LoSATok]
            supervision=45.0,
        )
    )
    # Levels at which features are a target: "high", as wide as they are; "low", once they are narrow;
    # "both". [chosen: DashengTokenizer keeps semantics by a term that is not published]
    config.losses.supervision = "high"
    config.losses.game = "hinge"  # what the players ask of logits [LoSATok]
    config.losses.adversarial_crop = 10_240  # samples, half of an example [as autoencoder.py]
    config.data = autoencoder.data()
    config.data.batch_size = 64  # examples over the whole mesh [LoSATok]
    config.optimizer = autoencoder.optimizer()
    config.optimizer.generator.modules = sections.module_table("acoustic", "decoder")
    config.optimizer.discriminator.start = 0.0  # from the first step on [LoSATok: as DAC]
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**20)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.train_only = ""  # all parts that are not frozen [chosen: the only way]
    config.checkpoint = sections.checkpoint(every_steps=5000)
    config.loop = sections.loop(eval_every=5000, sample_every=5000)
    return config


def _make_losatok(config: ml_collections.ConfigDict) -> None:
    """Narrow latents of both streams, and a KL-VAE [LoSATok]."""
    config.semantic_bottleneck = ml_collections.ConfigDict(
        dict(
            workdir="",  # run of the semantic-bottleneck stage, frozen [yours]
            step=0,  # of its checkpoint; 0 for the newest [yours]
            # Its config, where there is no run to read it from. [as semantic_bottleneck.py]
            recipe=semantic_bottleneck.get_config("base"),
        )
    )
    config.model.update(dict(fusion="latents", latent_dim=128))
    config.bottleneck.kind = "kl_vae"  # of weight 1e-2 [LoSATok]
    config.bottleneck.kl_vae.logvar_clip = 20.0  # largest magnitude of the logarithm [LoSATok]
    config.losses.supervision = "both"
    modules = ("acoustic", "acoustic_output", "output", "decoder")
    config.optimizer.generator.modules = sections.module_table(*modules)


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores [chosen]."""
    config.num_steps = 1200
    config.semantic_encoder.recipe = semantic_encoder.get_config("tiny")
    config.model.update(
        dict(
            num_mels=64,
            feature_dim=96,
            bottleneck_dim=64,
            latent_dim=96,
            decoder_width=128,
            decoder_hidden_width=384,
            decoder_blocks=4,
            compute_dtype="float32",
        )
    )
    config.discriminators.update(
        dict(stft_windows=(512, 1024), stft_channels=64, compute_dtype="float32")
    )
    autoencoder.make_brief(config)
    config.losses.adversarial_crop = 0


def _make_losatok_tiny(config: ml_collections.ConfigDict) -> None:
    """On a tiny semantic bottleneck [chosen]."""
    config.semantic_bottleneck.recipe = semantic_bottleneck.get_config("tiny")
    config.model.latent_dim = 16
