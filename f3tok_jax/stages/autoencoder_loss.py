# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Distances of what comes out of an autoencoder to what went in, which need no discriminator."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.losses import reconstruction as reconstruction_losses

Metrics = dict[str, tuple[jax.Array, jax.Array]]


def terms(
    waveform: jax.Array, mask: jax.Array, config: ml_collections.ConfigDict, *, mel_floor: float
) -> dict[str, Callable[[jax.Array], reconstruction_losses.Loss]]:
    """Name -> a loss of the reconstruction, as its sum and what it is to be divided by.

    One without weight is left out, but the mel distance is always measured.

    Args:
        waveform: [b, n] float32, as it was heard.
        mask: [b, n], True where there is sound.
        config: of the run.
        mel_floor: see reconstruction.multi_scale_mel.
    """
    section = config.losses
    found = {
        "mel": lambda reconstruction: reconstruction_losses.multi_scale_mel(
            waveform,
            reconstruction,
            mask,
            sample_rate=config.model.sample_rate,
            windows=section.mel_windows,
            bands=section.mel_bands,
            floor=mel_floor,
        ),
        "stft": lambda reconstruction: reconstruction_losses.multi_resolution_stft(
            waveform, reconstruction, mask, windows=section.stft_windows
        ),
        "spectrum": lambda reconstruction: reconstruction_losses.compressed_spectrum(
            waveform,
            reconstruction,
            mask,
            hop_length=config.model.hop_length,
            exponent=config.model.compression,
            num_bins=_num_compared(config),
        ),
        "waveform": lambda reconstruction: reconstruction_losses.waveform_l1(
            waveform, reconstruction, mask
        ),
    }
    return {name: term for name, term in found.items() if section.weights[name] or name == "mel"}


def gradients(
    waveform: jax.Array,
    reconstruction: jax.Array,
    mask: jax.Array,
    num_samples: jax.Array,
    *,
    config: ml_collections.ConfigDict,
) -> tuple[dict[str, jax.Array], Metrics]:
    """Of each loss over `num_samples` the gradient at the reconstruction, and the loss as a metric;
    see `terms`."""
    found, metrics = {}, {}
    with jax.named_scope("losses"):
        asked = terms(waveform, mask, config, mel_floor=config.losses.mel_floor)
        for name, term in asked.items():
            (total, weight), pull_back = jax.vjp(term, reconstruction)
            metrics[name] = total, weight
            (found[name],) = pull_back((1.0 / num_samples, jnp.float32(0.0)))
    return found, metrics


def _num_compared(config: ml_collections.ConfigDict) -> int:
    """Bins of the model's spectra up to config.losses.spectrum_hz."""
    width = config.model.sample_rate / (2 * config.model.hop_length)
    return min(config.model.hop_length, math.ceil(config.losses.spectrum_hz / width))
