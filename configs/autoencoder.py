# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the autoencoder stage.

    python -m f3tok_jax.train --config=configs/autoencoder.py:tiny \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/autoencoder

Presets:
    tiny            16 kHz, minutes on two CPU cores
    tiny_24khz      the same at 24 kHz
    small           16 kHz, hours on two CPU cores: the model that is shipped
    base            24 kHz, one TPU host and more
    base_16khz, base_48khz
    large           48 kHz, pods
    spectrostream   24 kHz in the published SpectroStream geometry (fold 1), for comparison

A comment in brackets says where a value comes from; configs/page.py names the sources in full and
makes configs/VALUES.md of these lines.
"""

import ml_collections

from configs import sections

# (time, frequency) strides after folding, by sample rate (Hz) and fold. The number of frequency
# bins, sample_rate / 100 without Nyquist, is divided by the fold and by every frequency stride; 5
# remain. Time is divided by 4: 100 Hz STFT frames become 25 Hz latents (F3).
_STRIDES = {
    (16_000, 8): ((1, 2), (1, 2), (2, 1), (2, 1)),
    (24_000, 8): ((1, 2), (1, 3), (2, 1), (2, 1)),
    (48_000, 8): ((1, 2), (1, 2), (1, 3), (2, 1), (2, 1)),
    (24_000, 1): ((1, 2), (1, 2), (1, 3), (1, 2), (1, 2), (2, 1), (2, 1)),
}

_SAMPLE_RATES = {  # Hz, of presets that are not of 24 kHz
    "tiny": 16_000,
    "small": 16_000,
    "base_16khz": 16_000,
    "base_48khz": 48_000,
    "large": 48_000,
}

PRESETS = (
    "tiny",
    "tiny_24khz",
    "small",
    "base",
    "base_16khz",
    "base_48khz",
    "large",
    "spectrostream",
)


def get_config(preset: str = "base") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/autoencoder.py)"
        )
    config = _base()
    if preset.startswith("tiny") or preset == "small":
        _make_tiny(config)
    if preset == "small":
        _make_small(config)
    if preset == "large":
        _make_large(config)
    if preset == "spectrostream":
        _make_spectrostream(config)
    _set_sample_rate(config, _SAMPLE_RATES.get(preset, 24_000))
    config.preset = preset
    return config


def _base() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "autoencoder"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    config.num_steps = 400_000  # steps [DAC]

    config.model = ml_collections.ConfigDict(
        dict(
            sample_rate=24_000,  # Hz, mono [chosen: as most recent codecs; F3 does not say]
            frame_length=480,  # samples, 20 ms Hann window [SpectroStream]
            hop_length=240,  # samples, 10 ms [SpectroStream]
            # Neighbouring bins that become channels before the first layer. [measured: 972
            # audio-seconds per chip-second of v5e at the roofline, 261 without]
            fold=8,
            # (time, frequency) per stage. [SpectroStream: time / 4, 5 bins left; here after the fold]
            strides=_STRIDES[24_000, 8],
            # Per stage, then the width of its output. [chosen: whole lanes of a TPU, two of 128]
            encoder_channels=(256, 256, 256, 256),
            decoder_channels=(256, 256, 256, 256),  # per stage, in the encoder's order [chosen]
            # Exponent of the STFT's magnitudes on either side of the network. [chosen]
            compression=0.5,
            latent_dim=64,  # values per latent [F3]
            # DBFS of rms, to which each whole sound is brought before it is encoded, and back behind the
            # decoder, and crops of training before their gain; 0 for sound as it comes. [measured:
            # hearing all levels costs more at each of them, configs/README.md; EnCodec at 48 kHz does
            # the same; DAC has -16, in LUFS]
            level_db=-20.0,
            decoder_lookahead=1,  # latent frames, 0 or 1 [SpectroStream]
            # "transposed" (TPU), "subpixel" (CPU), the same function, or "auto". [measured]
            upsampling="auto",
            compute_dtype="bfloat16",  # of the convolutions; parameters stay float32 [chosen]
        )
    )
    config.bottleneck = sections.bottleneck()
    config.discriminators = discriminators()
    config.losses = losses()
    config.data = data()
    config.optimizer = optimizer()
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**20)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    # "decoder": encoder and latents stay those of the run that init_from names; "": all. [yours]
    config.train_only = ""
    config.checkpoint = sections.checkpoint(every_steps=5000)
    config.loop = sections.loop(eval_every=5000, sample_every=5000)
    return config


def discriminators() -> ml_collections.ConfigDict:
    """Returns config.discriminators."""
    return ml_collections.ConfigDict(
        dict(
            # "folded", or "dac": the published geometry in plain convolutions, for a CPU or GPU. It
            # reads no fold; its widths are period_channels (32, 128, 512, 1024, 1024) and
            # stft_channels 32. Or "multi_frequency", X-Codec's, which has no periods and reads
            # stft_windows (128, 256, 512, 1024, 2048, 4096) and stft_channels 512, the most of any
            # layer. [chosen: folded fills the lanes of a TPU]
            kind="folded",
            periods=(2, 3, 5, 7, 11),  # samples [DAC]
            # Steps of a period row that become channels before the first layer. [measured: both
            # folds, an eighth of the time of DAC's at the roofline of v5e]
            period_fold=27,
            period_channels=(256, 512, 1024),  # per layer [chosen: DAC ends in 1024, too]
            stft_windows=(2048, 1024, 512),  # samples; hop is a quarter [DAC]
            stft_bands=(0.0, 0.1, 0.25, 0.5, 0.75, 1.0),  # edges as fractions of Nyquist [DAC]
            # Neighbouring bins that become channels before the first layer. [measured: as period_fold]
            stft_fold=8,
            stft_channels=128,  # of every layer [chosen: the lanes of a TPU; DAC has 32, no fold]
            compute_dtype="bfloat16",  # of the convolutions [chosen]
        )
    )


def losses() -> ml_collections.ConfigDict:
    """Returns config.losses."""
    return ml_collections.ConfigDict(
        dict(
            weights=dict(
                mel=15.0,  # of the log-mel distance [DAC]
                stft=0.0,  # of the distance of magnitudes; 0: left out [DAC]
                # Of the distance of spectra with their phases, compressed as the model's; 0: left out.
                # [chosen]
                spectrum=0.0,
                waveform=0.0,  # of the distance of samples; 0: left out [DAC]
                adversarial=1.0,  # of what the discriminators say [DAC]
                feature_matching=2.0,  # of the distance of their feature maps, summed [DAC]
            ),
            # "weights": the losses' gradients at the sound times these weights; "gradients": each
            # has its weight's share of a norm of 1, as in EnCodec's balancer, of every batch by
            # itself. [DAC]
            balance="weights",
            # What the players ask of logits: "least_squares", or "hinge", as LoSATok. [DAC]
            game="least_squares",
            # Tell adversarial and feature_matching apart in train/sound_gradient: one more pull-back
            # through the discriminators. [chosen: their sum, game, costs nothing]
            split_game=False,
            mel_floor=1e-5,  # of mel magnitudes, below which nothing is learned [DAC]
            mel_windows=(32, 64, 128, 256, 512, 1024, 2048),  # samples; hop is a quarter [DAC]
            mel_bands=(5, 10, 20, 40, 80, 160, 320),  # per window [DAC]
            stft_windows=(2048, 512),  # samples; hop is a quarter [DAC]
            # Hz, up to which phases are compared. [chosen: 1,600 values a second hold a waveform of
            # 800 Hz; above, no phase is known, and nothing would be nearest to all]
            spectrum_hz=1000.0,
            # Samples, of the crop of its sound that the discriminators hear of each example; 0 for
            # all. [chosen: half of an example, 0.64 s; DAC's are 0.38 s]
            adversarial_crop=0,
        )
    )


def data() -> ml_collections.ConfigDict:
    """Returns config.data."""
    return ml_collections.ConfigDict(
        dict(
            train="",  # shard folders, "DIR" or "DIR=weight,DIR=weight" [yours]
            heldout="",  # shard folders of the evaluation during training; "" for none [yours]
            batch_size=128,  # examples over the whole mesh [chosen: DAC has 72, of 0.38 s]
            # Latent frames per example: 1.28 s at 25 Hz. [chosen: one alpha spans as much as it
            # disturbs; DAC 0.38 s, EnCodec 1 s]
            crop_frames=32,
            # dBFS of a crop's rms, below which another is drawn, up to seven times; 0 for none. [DAC:
            # the same in LUFS]
            salient_db=-40.0,
            # dB, uniform random gain of crops that are at model.level_db, limited so that nothing clips.
            # [chosen: by how much parts of a recording are below and above its level; measured: -24 to
            # 6 is worse at every level]
            gain_db=(-12.0, 6.0),
            max_replaced=1000,  # unreadable records replaced before the run stops [chosen]
            # Threads per host that prepare batches; more where reading waits for storage. [measured]
            num_threads=1,
        )
    )


def optimizer() -> ml_collections.ConfigDict:
    """Returns config.optimizer, of both players."""
    return ml_collections.ConfigDict(
        dict(
            generator=dict(
                start=0.0,  # share of the run below 1, else step; -1: never [chosen]
                modules=sections.module_table("encoder", "decoder"),
                learning_rate=1e-4,  # the largest, after the warm-up [DAC]
                warmup_steps=1000,  # steps from 0 to the largest [chosen: DAC has none]
                schedule="exponential",  # "exponential", "cosine" or "constant" [DAC]
                decay=0.999996,  # per step, of "exponential" [DAC]
                final_fraction=0.1,  # of the learning rate, at the end of "cosine" [chosen]
                b1=0.8,  # of the mean gradient, per step [DAC]
                b2=0.99,  # of the mean square, per step [DAC]
                # Of what config.decays names, times the learning rate. [chosen: as Stable Audio 2]
                weight_decay=1e-3,
                # Largest norm of a gradient. Norms of 296 to 1,530 are met: 1 would be a normaliser, with
                # which `tiny` is worse with every seed. [measured; DAC has the same]
                clip_norm=1000.0,
            ),
            discriminator=dict(
                # From there on their losses join, too. [chosen: early adversarial gradients fight
                # the noise; RAE waits for half of its run, DAC does not wait]
                start=10_000.0,
                modules=sections.module_table(),
                learning_rate=1e-4,  # the largest, after the warm-up [DAC]
                warmup_steps=1000,  # steps from 0 to the largest [chosen: DAC has none]
                schedule="exponential",  # "exponential", "cosine" or "constant" [DAC]
                decay=0.999996,  # per step, of "exponential" [DAC]
                final_fraction=0.1,  # of the learning rate, at the end of "cosine" [chosen]
                b1=0.8,  # of the mean gradient, per step [DAC]
                b2=0.99,  # of the mean square, per step [DAC]
                # Of what config.decays names, times the learning rate. [chosen: as Stable Audio 2]
                weight_decay=1e-3,
                clip_norm=10.0,  # largest norm of a gradient [DAC]
            ),
            ema_decay=0.999,  # of the generator's weights, per step [chosen]
            accumulate=1,  # microbatches per step [chosen]
        )
    )


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For minutes on two CPU cores [chosen]."""
    config.num_steps = 1200
    config.model.update(
        dict(
            encoder_channels=(32, 64, 64, 96),
            decoder_channels=(32, 64, 64, 96),
            latent_dim=32,
            decoder_lookahead=1,
            compute_dtype="float32",
        )
    )
    config.bottleneck.gamma = 0.5  # [NextStep]
    config.discriminators.update(
        dict(
            periods=(2, 3, 5),
            period_channels=(32, 64, 64),
            stft_windows=(1024, 512),
            stft_channels=32,
            compute_dtype="float32",
        )
    )
    make_brief(config)


def make_brief(config: ml_collections.ConfigDict) -> None:
    """What an autoencoder is trained with for minutes on two CPU cores [chosen]."""
    config.losses.update(
        dict(
            mel_windows=(64, 128, 256, 512, 1024),
            mel_bands=(10, 20, 40, 80, 80),
            split_game=True,  # [chosen]
        )
    )
    config.data.update(dict(batch_size=16, crop_frames=16, salient_db=0.0))
    for player in ("generator", "discriminator"):
        config.optimizer[player].update(
            dict(
                learning_rate=1e-3, warmup_steps=50, schedule="cosine", b1=0.9, final_fraction=0.02
            )
        )
    # Never, at this length. [measured: it hears no gain]
    config.optimizer.discriminator.start = -1
    config.optimizer.ema_decay = 0.99
    config.checkpoint.update(dict(every_steps=200))
    config.loop.update(dict(log_every=10, eval_every=200, eval_batches=4, sample_every=400))
    config.mesh.min_shard_size = 2**14


def _make_small(config: ml_collections.ConfigDict) -> None:
    """What sounds best for some hours of two CPU cores, from tiny [chosen]."""
    config.num_steps = 12_000
    config.model.update(
        dict(
            encoder_channels=(64, 96, 128, 160),
            decoder_channels=(64, 96, 128, 160),
            latent_dim=64,
        )
    )
    # With phases from the first steps on. By weights, no share of theirs beside mel teaches them in
    # hundreds of steps. [measured]
    config.losses.balance = "gradients"
    config.losses.weights.update(dict(mel=2.0, spectrum=1.0))
    config.optimizer.generator.warmup_steps = 100
    config.optimizer.ema_decay = 0.999
    config.checkpoint.update(dict(every_steps=250))
    config.loop.update(dict(eval_every=1000, sample_every=2000))


def _make_large(config: ml_collections.ConfigDict) -> None:
    """Twice the width, length and steps of base, at 48 kHz [chosen]."""
    config.num_steps = 800_000
    config.model.update(
        dict(encoder_channels=(256, 256, 512, 512, 512), decoder_channels=(256, 256, 512, 512, 512))
    )
    config.discriminators.stft_windows = (2048, 1024, 512, 256)
    config.optimizer.discriminator.start = 20_000
    config.data.update(dict(batch_size=512, crop_frames=64))
    for player in ("generator", "discriminator"):
        config.optimizer[player].update(dict(learning_rate=2e-4, warmup_steps=5000))
    config.optimizer.ema_decay = 0.9995


def _make_spectrostream(config: ml_collections.ConfigDict) -> None:
    """The published geometry at 24 kHz [SpectroStream]."""
    config.model.update(
        dict(
            fold=1,
            encoder_channels=(64, 64, 128, 128, 128, 256, 256),
            decoder_channels=(128, 128, 256, 256, 256, 512, 512),
        )
    )


def _set_sample_rate(config: ml_collections.ConfigDict, sample_rate: int) -> None:
    """Sets the rate and what follows: the 10 ms hop, the strides, the discriminators' crop."""
    # [chosen: the discriminators cost most of a step; half of a base example, 0.64 s, is still more
    # than DAC's 0.38 s; a tiny example is heard whole]
    config.losses.adversarial_crop = sample_rate * 16 // 25
    config.model.update(
        dict(
            sample_rate=sample_rate,  # [chosen: as most recent codecs; F3 does not say]
            hop_length=sample_rate // 100,  # [SpectroStream]
            frame_length=sample_rate // 50,  # [SpectroStream]
            # [SpectroStream: time / 4, 5 bins left; after the fold]
            strides=_STRIDES[sample_rate, config.model.fold],
        )
    )
    num_stages = len(config.model.strides)
    for name in ("encoder_channels", "decoder_channels"):
        widths = tuple(config.model[name])
        # [chosen: whole lanes of a TPU, two of 128]
        config.model[name] = widths + widths[-1:] * (num_stages - len(widths))
