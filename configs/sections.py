# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sections that the recipes of several stages have in common."""

import ml_collections

# The language model that the project trains itself, as in a Hugging Face config.json: preset tiny
# of configs/language_model.py, and what configs/representation.py:tiny freezes.
TINY_LANGUAGE_MODEL = dict(
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=512,
    max_position_embeddings=1024,
    rope_theta=1e4,
)

# The same of preset small: the language model that is shipped.
SMALL_LANGUAGE_MODEL = TINY_LANGUAGE_MODEL | dict(
    hidden_size=160,
    intermediate_size=432,
    num_hidden_layers=3,
    num_attention_heads=5,
    num_key_value_heads=5,
    vocab_size=1024,
)


def frozen_language_model(*, remat: str) -> ml_collections.ConfigDict:
    """Returns config.language_model of a stage that reads one and never trains it."""
    return ml_collections.ConfigDict(
        dict(
            folder="",  # Hugging Face folder of a qwen2, qwen3 or llama model, frozen [yours]
            # Its config.json, where there is no folder: compile_check needs no weights. [Qwen3: 0.6B]
            shape=dict(
                model_type="qwen3",
                hidden_size=1024,
                intermediate_size=3072,
                num_hidden_layers=28,
                num_attention_heads=16,
                num_key_value_heads=8,
                head_dim=128,
                vocab_size=151_936,
                max_position_embeddings=40_960,
                rms_norm_eps=1e-6,
                rope_theta=1e6,
                tie_word_embeddings=True,
            ),
            compute_dtype="bfloat16",  # of its weights and products; its loss is float32 [chosen]
            # What the backward pass computes again: "none", "dots", "attention" or "block". [chosen]
            remat=remat,
        )
    )


def tasks() -> dict[str, float]:
    """Returns the weight of every task of data_pipelines.reading.tasks, 0 for those that are off."""
    # Transcripts bring most to speech, captions to all else. [chosen]
    return dict(
        transcription=4.0,
        caption=2.0,
        language=1.0,
        voice=0.0,
        gender=0.0,
        instrument=1.0,
        event=1.0,
        digit=0.0,
    )


def bottleneck() -> ml_collections.ConfigDict:
    """Returns config.bottleneck: `kind` says which of the fields below it are read."""
    return ml_collections.ConfigDict(
        dict(
            # "f3": the four that follow; or "kl_vae", "sigma_vae", "soft_norm": the section of that name,
            # for comparison. [F3]
            kind="f3",
            normalize=True,  # layer norm over channels, no affine [F3: Eq. 1]
            perturb=True,  # noise in training [F3: Eq. 2]
            gamma=1.0,  # alpha ~ U(0, gamma), one per example [F3]
            epsilon=1e-5,  # added to the variance [chosen: NextStep has 1e-6]
            kl_vae=dict(
                # Of the divergence from a standard normal, summed over channels, mean over frames. [LoSATok:
                # as Semantic-VAE; 1e-4 in Stable Audio and LongCat, 5e-5 in VoxCPM]
                weight=1e-2,
                half=True,  # the factor 1/2 of the divergence; False: as Stable Audio [LoSATok]
                # Nats of each value, below which nothing is asked of it: free bits; 0 for none. [LoSATok]
                free_nats=0.0,
                logvar_clip=12.0,  # largest magnitude of the logarithm of a variance [Semantic-VAE]
            ),
            sigma_vae=dict(
                weight=1.0,  # of the mean square of the latents [chosen: VibeVoice's is not published]
                # Deviation of s in latents + s * eps, one s per example. [VibeVoice: 0.5 / 0.8]
                noise_std=0.625,
            ),
            soft_norm=dict(
                weight=1.0,  # of what keeps channels standard normal over time [chosen]
                channels_weight=0.4,  # of the same of frames over channels, times `weight` [Stable Audio]
                min_variance=1e-4,  # below which a variance counts as this [Stable Audio]
                # Deviation of the noise in training, of each channel's own over time. [Stable Audio: 5e-2
                # in stable-audio-3]
                noise_ratio=1e-2,
            ),
        )
    )


def decays() -> ml_collections.ConfigDict:
    """Returns config.decays: name of a leaf -> whether config.optimizer.*.weight_decay pulls at it.

    Matrices do. What has a scale of its own, or is one learned vector, does not. A leaf that is not
    named here is refused.
    """
    return ml_collections.ConfigDict(
        dict(
            kernel=True,  # whether it decays: of dense and convolutional layers [chosen]
            conv_kernel=True,  # of discriminators: conv_0_kernel, conv_1_kernel, ... [chosen]
            logits_kernel=True,  # of discriminators [chosen]
            embedding=True,  # table of tokens [chosen]
            down=True,  # of RQ-MTP's heads [chosen]
            output=True,  # of RQ-MTP's heads [chosen]
            left=True,  # factor of a low-rank difference [chosen]
            right=True,  # likewise [chosen]
            bias=False,  # of dense and convolutional layers [chosen]
            conv_bias=False,  # of discriminators [chosen]
            logits_bias=False,  # of discriminators [chosen]
            scale=False,  # of normalisations [chosen]
            norm=False,  # of the normalisations of RQ-MTP's heads [chosen]
            gain=False,  # of the projector [chosen]
            boundaries=False,  # learned tokens around a sound [chosen]
            roles=False,  # learned vectors of the flow head's positions [chosen]
        )
    )


def module_table(*names: str) -> dict[str, dict[str, float]]:
    """Returns config.optimizer.<player>.modules: when each part of a player begins to learn."""
    return {
        name: dict(
            start=0.0,  # share of the run below 1, else step; -1: never [chosen]
            warmup_steps=-1,  # steps from its start; -1: as many as the player's [chosen]
        )
        for name in names
    }


def data_of_latents(*, batch_size: int) -> ml_collections.ConfigDict:
    """Returns config.data of stages that learn from latents and texts."""
    return ml_collections.ConfigDict(
        dict(
            train="",  # shard folders, "DIR" or "DIR=weight,DIR=weight" [yours]
            heldout="",  # shard folders of the evaluation during training; "" for none [yours]
            # True: shards of latents, written by f3tok_jax.encode_shards. [yours]
            latents=False,
            batch_size=batch_size,  # examples over the whole mesh [chosen]
            crop_frames=500,  # latents per example, 20 s; longer records are cut there [chosen]
            max_replaced=1000,  # unreadable records replaced before the run stops [chosen]
            # Share of the transcripts that may be cut with their sound, of texts with more than
            # max_tokens, and of what no row has room for, where rows are packed, each; above it no run
            # begins. [chosen]
            max_lost=0.05,
            # Threads per host that prepare batches; more where reading waits for storage. [measured]
            num_threads=1,
        )
    )


def transformer_optimizer(
    *, learning_rate: float, warmup_steps: int, final_fraction: float, modules: tuple[str, ...] = ()
) -> dict[str, object]:
    """Returns the section of a transformer's optimizer: AdamW on a cosine."""
    return dict(
        start=0.0,  # share of the run below 1, else step; -1: never [chosen]
        modules=module_table(*modules),
        learning_rate=learning_rate,  # the largest, after the warm-up [chosen]
        warmup_steps=warmup_steps,  # steps from 0 to the largest [chosen]
        schedule="cosine",  # "exponential", "cosine" or "constant" [NextStep: its last phase]
        decay=1.0,  # per step, of "exponential" [chosen: none]
        final_fraction=final_fraction,  # of the learning rate, at the end of "cosine" [chosen]
        b1=0.9,  # of the mean gradient, per step [NextStep]
        b2=0.95,  # of the mean square, per step [NextStep]
        weight_decay=0.1,  # of what config.decays names, times the learning rate [NextStep]
        clip_norm=1.0,  # largest norm of a gradient, all parameters together [RAE]
    )


def mesh(*, min_shard_size: int) -> ml_collections.ConfigDict:
    """Returns config.mesh: a slice's chips all on fsdp."""
    return ml_collections.ConfigDict(
        dict(
            replica=1,  # parts over the data-centre network; 1: as many as there are slices [chosen]
            fsdp=-1,  # chips of a slice; -1: all that are left [chosen]
            tensor=1,  # chips that share a matrix's columns [chosen: fsdp alone is enough]
            # Elements; smaller leaves are replicated over fsdp. [chosen]
            min_shard_size=min_shard_size,
        )
    )


def compiler() -> ml_collections.ConfigDict:
    """Returns config.compiler: options of XLA for each platform, "name=value,name=value"."""
    return ml_collections.ConfigDict(
        dict(
            # The share of a convolution's best estimated speed at which XLA stops to look for
            # better windows. On one of base (3 x 3, 256 channels, with gradients; v5e, libtpu
            # 0.0.42) 1.0, the compiler's own value, searches 43 s of CPU, 0.98 searches 10 s and
            # costs 0.6 % more cycles, 0.9 searches 6 s and costs 48 % more. [measured]
            tpu="xla_jf_convolution_performance_target=0.98",
            # Without the library that computes convolutions and products of matrices by default: a step
            # of autoencoder:small takes 0.78 of the time (0.74 to 0.81, in turn; one core with AVX-512,
            # jaxlib 0.10.2), most of it gained in gradients of kernels. CPU time of a step of
            # generation:small, one after the other: 1.82 s for 2.19, of representation:small 1.57 for
            # 1.72. [measured]
            cpu="xla_cpu_experimental_ynn_fusion_type=",
        )
    )


def init_from() -> ml_collections.ConfigDict:
    """Returns config.init_from: the run of the same stage whose weights a fresh run begins with."""
    return ml_collections.ConfigDict(
        dict(
            # Run that a fresh one begins with, or what f3tok_jax.export made of one of the autoencoder
            # stage; "" for random weights. [yours]
            workdir="",
            step=0,  # of the run's checkpoint; 0 for the newest [yours]
        )
    )


def checkpoint(*, every_steps: int) -> ml_collections.ConfigDict:
    """Returns config.checkpoint."""
    return ml_collections.ConfigDict(
        dict(
            every_steps=every_steps,  # steps between two [chosen]
            keep_last=2,  # so many of the newest [chosen]
            keep_best=1,  # by the stage's best metric on the held-out shards [chosen]
        )
    )


def loop(*, eval_every: int, sample_every: int) -> ml_collections.ConfigDict:
    """Returns config.loop; a stage that makes no sound does not read `sample_every`."""
    return ml_collections.ConfigDict(
        dict(
            log_every=50,  # steps [chosen]
            eval_every=eval_every,  # steps [chosen]
            eval_batches=8,  # of the held-out shards, each time [chosen]
            # Steps between sounds in samples/ and TensorBoard. [chosen]
            sample_every=sample_every,
            max_nonfinite=20,  # skipped steps before the run stops [chosen]
            # Seconds without a step: dump all stacks; twice as long: exit 124. [chosen]
            watchdog_seconds=1800,
        )
    )
