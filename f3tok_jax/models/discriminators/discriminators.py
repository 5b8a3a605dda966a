# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The discriminators of adversarial training: multi-period and multi-band complex STFT, or others.

Two kinds look at what descript-audio-codec's (DAC) look at. Kind "dac" computes it as published, with
plain convolutions (dac.py). Kind "folded" is for TPUs: the published ones keep 1 to 32 channels on
long maps, a quarter or less of a TPU's 128 lanes, so here neighbouring steps of a period's row, and
neighbouring bins and frames of a spectrum, become channels first, and fewer, wider layers follow,
with nearly the same receptive fields. Periods, and the bands of a window, which then have equal
shapes, are computed as one stack (stacked_layers.py): the TPU compiler takes a fraction of the time
of a convolution per discriminator, and a CPU differentiates matrix products fast. Kind
"multi_frequency" is X-Codec's, of magnitudes alone (frequencies.py). Weight norm, which the published
ones have, is left out of all kinds.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.discriminators import bands as bands_lib
from f3tok_jax.models.discriminators import dac
from f3tok_jax.models.discriminators import frequencies
from f3tok_jax.models.discriminators import periods as periods_lib

KINDS = ("folded", "dac", "multi_frequency")

_PEAK = 0.8  # that a waveform is scaled to (DAC)
# Below this peak (-60 dBFS) a waveform is not raised further: DAC's 1e-9 would amplify silence, and
# its gradient, by up to 8e8.
_PEAK_FLOOR = 1e-3
_DAC_LAYERS = 5  # of a period discriminator, and of every band of an STFT one, before the logits


class Discriminators(nn.Module):
    """All discriminators side by side.

    Kind "multi_frequency" reads stft_windows and stft_channels alone.

    Attributes:
        periods: samples; one discriminator each.
        period_fold: steps of a row that become channels before the first layer; folded.
        period_channels: widths of the layers of a period discriminator: of the folded kind at least
            two, of DAC's five, as published 32, 128, 512, 1024, 1024.
        stft_windows: samples; one discriminator each. The hop is a quarter.
        stft_bands: increasing edges as fractions of the Nyquist frequency, from 0 to 1.
        stft_fold: neighbouring bins that become channels before the first layer; folded.
        stft_channels: width of the layers of an STFT discriminator; DAC's have 32. Of kind
            "multi_frequency" the most of any, as published 512.
        compute_dtype: of the layers; preparation and STFT are float32, parameters float32.
        kind: one of KINDS.
    """

    periods: Sequence[int]
    period_fold: int
    period_channels: Sequence[int]
    stft_windows: Sequence[int]
    stft_bands: Sequence[float]
    stft_fold: int
    stft_channels: int
    compute_dtype: str = "float32"
    kind: str = "folded"

    def check_kind(self) -> None:
        """Raises ValueError for a kind that there is not."""
        if self.kind not in KINDS:
            raise ValueError(
                f"config.discriminators.kind must be one of {KINDS}, got {self.kind!r}"
            )

    @property
    def map_weights(self) -> list[float]:
        """Per stack, what each map of an entry weighs in feature matching.

        DAC sums over layers, bands and discriminators: 5 layers of everything. The folded kind has
        fewer, which together weigh as much: base's 60 maps as DAC's 100. Those of multi_frequency are
        summed as DAC's; X-Codec takes their mean, and how LoSATok adds them is not known.
        """
        if self.kind == "multi_frequency":
            return [1.0] * len(self.stft_windows)
        if self.kind == "dac":
            return [1.0] * (len(self.periods) + len(self.stft_windows))
        of_periods = [_DAC_LAYERS / len(self.period_channels)] * bool(self.periods)
        return of_periods + [_DAC_LAYERS / bands_lib.NUM_LAYERS] * len(self.stft_windows)

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array | None = None
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Discriminates `waveform` [b, n], float32.

        Args:
            waveform: whose valid samples come first in every example; what follows reaches nothing.
            num_samples: [b], valid samples of every example; None where all are.

        Returns:
            One list per stack: the periods, then each window's bands; of the other kinds each
            discriminator is one of its own. Its feature maps [stack, *places, b, c] in the compute
            dtype, then, last, the logits [stack, *places, b] in float32. And, in the same lists,
            which places are valid: [stack, *places, b], bool. Where they are not, as where entries
            of a stack differ in length, maps hold zeros.
        """
        if waveform.ndim != 2:
            raise ValueError(f"waveform must be [batch, samples], got shape {waveform.shape}")
        self.check_kind()
        if num_samples is None:
            num_samples = jnp.full(waveform.shape[:1], waveform.shape[1], jnp.int32)
        with jax.named_scope("discriminators"):
            waveform = prepare(waveform, num_samples)
            maps, valid = [], []
            for module in self._kinds():
                more, more_valid = module(waveform, num_samples)
                maps, valid = maps + more, valid + more_valid
            return maps, valid

    def _kinds(self) -> list[nn.Module]:
        """The period discriminators and the STFT ones, where there are any."""
        if self.kind == "multi_frequency":
            return [
                frequencies.MultiFrequencyDiscriminators(
                    windows=self.stft_windows,
                    channels=self.stft_channels,
                    compute_dtype=self.compute_dtype,
                    name="stft",
                )
            ]
        make_periods, make_stft = dac.PeriodDiscriminators, dac.STFTDiscriminators
        fold_periods, fold_stft = {}, {}
        if self.kind == "folded":
            make_periods, make_stft = periods_lib.PeriodDiscriminators, bands_lib.STFTDiscriminators
            fold_periods, fold_stft = {"fold": self.period_fold}, {"fold": self.stft_fold}
        modules = []
        if self.periods:
            modules.append(
                make_periods(
                    periods=self.periods,
                    channels=self.period_channels,
                    compute_dtype=self.compute_dtype,
                    name="period",
                    **fold_periods,
                )
            )
        if self.stft_windows:
            modules.append(
                make_stft(
                    windows=self.stft_windows,
                    bands=self.stft_bands,
                    channels=self.stft_channels,
                    compute_dtype=self.compute_dtype,
                    name="stft",
                    **fold_stft,
                )
            )
        return modules


def prepare(waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
    """Removes the mean of `waveform` [b, n] and scales its peak to 0.8, in float32 (DAC).

    Both are of the first `num_samples` [b]; what follows them becomes zeros.
    """
    waveform, count = waveform.astype(jnp.float32), num_samples[:, None]
    valid = jnp.arange(waveform.shape[1])[None] < count
    total = jnp.sum(jnp.where(valid, waveform, 0.0), axis=-1, keepdims=True)
    waveform = jnp.where(valid, waveform - total / jnp.maximum(count, 1), 0.0)
    peak = jnp.max(jnp.abs(waveform), axis=-1, keepdims=True)
    return waveform * (_PEAK / jnp.maximum(peak, _PEAK_FLOOR))
