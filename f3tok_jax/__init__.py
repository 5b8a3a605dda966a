# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer in JAX/Flax.

One word per thing:
    waveform           [b, n] float32 in [-1, 1]
    latents            [b, t, d] of the autoencoder, mean 0 and rms 1 over d
    representations    [b, t, width] of the representation encoder
    audio tokens       [b, t / patch, width of the language model], what it reads of sound
    patch              so many latents as one audio token, [patch, d]
    mel patch          all bands of so many mel spectra, what a semantic encoder hears at a time
    run                a trained folder: config, checkpoints, metrics
    stage              what a run trains: autoencoder, language_model, representation, generation,
                       diffusion_transformer, semantic_encoder, semantic_bottleneck
    F3Tokenizer        a run in use
    classifier         scores generated sound; learned from recordings
    discriminator      the autoencoder's adversary in training
    text tokenizer     of the language model
    speaker            a person

Letters in the shapes of docstrings:
    b   batch
    n   samples of a waveform
    t   frames: 100 Hz in the STFT, 25 Hz for latents
    f   frequency bins
    c   channels
    d   width of a latent
"""
