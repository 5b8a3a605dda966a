# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a semantic encoder does not say of sound, in one layer: patches of a mel spectrum."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import initialization
from f3tok_jax.signal import mel_front_end

_EPSILON = 1e-5  # of the layer norm


class AcousticBranch(nn.Module):
    """A log-mel spectrum, cut into patches of all bands, each projected and normalised.

    Source: DashengTokenizer (arXiv 2602.23765), and LoSATok (arXiv 2605.27840), whose code has it.
    """

    sample_rate: int  # Hz
    frame_length: int  # samples, of the spectrum's Hann window
    hop_length: int  # samples
    num_mels: int
    mel_floor: float  # of the bands' magnitudes, below which all is silence
    patch_frames: int  # spectra side by side in a patch
    width: int  # of a feature
    compute_dtype: str  # of the product; spectra, norm and parameters are float32

    @nn.compact
    def __call__(self, waveform: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
        """Features of sound.

        Args:
            waveform: [b, n] float32.
            num_samples: [b] int32, valid ones, which come first; None where all are.

        Returns:
            [b, (n // hop_length + 1) // patch_frames, width] float32. Of an example of m samples the
            first (m // hop_length + 1) // patch_frames are its own, as if it were alone.
        """
        x = self.log_mel(waveform, num_samples)
        count = x.shape[1] // self.patch_frames
        x = x[:, : count * self.patch_frames].reshape(x.shape[0], count, -1)
        x = nn.Dense(
            self.width,
            dtype=self.compute_dtype,
            kernel_init=initialization.TORCH_UNIFORM,
            name="patch",
        )(x)
        return nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, name="norm")(
            x.astype(jnp.float32)
        )

    @nn.nowrap
    def log_mel(self, waveform: jax.Array, num_samples: jax.Array | None = None) -> jax.Array:
        """[b, 1 + n // hop_length, num_mels] float32, natural logarithms of magnitudes."""
        mel = mel_front_end.mel_spectra(
            waveform,
            num_samples,
            sample_rate=self.sample_rate,
            frame_length=self.frame_length,
            hop_length=self.hop_length,
            num_mels=self.num_mels,
            power=1,
        )
        return jnp.log(jnp.maximum(mel, self.mel_floor))
