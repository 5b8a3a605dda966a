# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer in JAX/Flax.

Letters in the shapes of docstrings:
    b   batch
    n   samples of a waveform
    t   frames: 100 Hz in the STFT, 25 Hz for latents
    f   frequency bins
    c   channels
    d   width of a latent
"""
