# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The STFT autoencoder: waveform to latents at 25 Hz and back, whole or in a stream."""

from collections.abc import Callable
import functools
import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import bottleneck as bottleneck_lib
from f3tok_jax.models import short_filters
from f3tok_jax.models import streaming_layers as sl
from f3tok_jax.models import upsampling
from f3tok_jax.signal import level
from f3tok_jax.signal import stft

_ALLOWED = {
    "decoder_lookahead": (0, 1),
    "upsampling": upsampling.FORMULATIONS,
    "compute_dtype": ("bfloat16", "float32"),
}
SAME_KERNEL = (3, 3)  # of a stage's convolution without stride


class Coded(NamedTuple):
    """Sound through the autoencoder.

    Attributes:
        reconstruction: [b, n] float32.
        latents: [b, t, latent_dim] float32, clean.
        losses: that the bottleneck asks of them: name -> (sum, weight).
    """

    reconstruction: jax.Array
    latents: jax.Array
    losses: dict[str, bottleneck_lib.Loss]


class Autoencoder(nn.Module):
    """STFT, fold, causal convolutions, channel normalisation, and the mirror of it.

    Neighbouring frequency bins are folded into channels (space to depth) so that a TPU's 128 lanes
    are filled; `fold=1` is the published SpectroStream geometry. The encoder sees no sound beyond
    the STFT's own `frame_length - hop_length` samples after a latent's end; the decoder sees
    `decoder_lookahead` latents after its own.

    Source: SpectroStream (arXiv 2508.05207) for the geometry and the blocks; F3-Tokenizer (arXiv
    2606.06357) for the bottleneck. The fold is ours.
    """

    sample_rate: int  # Hz
    frame_length: int  # samples, twice the hop
    hop_length: int  # samples
    fold: int  # neighbouring bins per channel group
    strides: tuple[tuple[int, int], ...]  # (time, frequency) per encoder stage
    encoder_channels: tuple[int, ...]  # input width of each stage; the last is also the output's
    decoder_channels: tuple[int, ...]  # the same for the decoder, in the encoder's order
    compression: float  # exponent of the magnitudes that the network sees and says, 1 for none
    latent_dim: int
    decoder_lookahead: int  # latents, 0 or 1
    upsampling: str  # formulation of the decoder's transposed convolutions
    compute_dtype: str  # of the convolutions; STFT, normalisation and parameters are float32
    bottleneck: bottleneck_lib.Bottleneck
    # DBFS of rms, at which whoever uses the model lets it hear each sound (signal.level), and undoes the
    # gain behind it; 0 for sound as it comes. The methods here take sound of that level.
    level_db: float = 0.0
    spare_products: bool = False  # on CPUs, where they take the time: see short_filters

    def setup(self):
        check_geometry(self)
        self.encoder = _encoder_config(self).make()
        self.decoder = _decoder_config(self).make()

    @property
    def hops_per_latent(self) -> int:
        return math.prod(time for time, _ in self.strides)

    @property
    def samples_per_latent(self) -> int:
        return self.hops_per_latent * self.hop_length

    @property
    def latent_rate(self) -> float:
        """Latents per second, Hz."""
        return self.sample_rate / self.samples_per_latent

    @property
    def encoder_lookahead(self) -> int:
        """Samples after a latent's end that it depends on."""
        return self.frame_length - self.hop_length

    @property
    def encoder_history(self) -> int:
        """Samples before a latent's beginning that it depends on."""
        hops = 0  # in units of a stage's output, from the last to the first
        for time, frequency in reversed(self.strides):
            # What a kernel is longer than its stride lies before; a stage has one without stride.
            hops = hops * time + kernel_of((time, frequency))[0] - time + SAME_KERNEL[0] - 1
        return (hops + edge_kernel(self.fold)[0] - 1) * self.hop_length

    def __call__(
        self,
        waveform: jax.Array,
        *,
        mask: jax.Array | None = None,
        noise_key: jax.Array | None = None,
    ) -> Coded:
        """Reconstructs `waveform`, through perturbed latents if a `noise_key` is given.

        Args:
            waveform: [b, n] in [-1, 1].
            mask: [b, n] bool, samples that are sound; None for all. The decoder, which looks ahead,
                hears no latents of what follows, as if each sound were decoded by itself.
            noise_key: key of the bottleneck's noise; None for none.
        """
        encoded = self._encoded(waveform)
        latents = heard = self.bottleneck.clean(encoded)
        frames = jnp.ones(latents.shape[:2], bool) if mask is None else self.frame_mask(mask)
        if noise_key is not None:
            heard = self.bottleneck.noisy(latents, noise_key, encoded=encoded, mask=frames)
        if mask is not None:
            heard = jnp.where(frames[..., None], heard, 0.0)
        reconstruction = self.latents_to_waveform(heard)[:, : waveform.shape[1]]
        losses = self.bottleneck.losses(latents, encoded=encoded, mask=frames)
        return Coded(reconstruction, latents, losses)

    def frame_mask(self, mask: jax.Array) -> jax.Array:
        """[b, t] bool: latents with any sound in them, of samples that are [b, n] bool."""
        missing = -mask.shape[1] % self.samples_per_latent
        samples = jnp.pad(mask, ((0, 0), (0, missing)))
        return jnp.any(samples.reshape(mask.shape[0], -1, self.samples_per_latent), axis=-1)

    def gains(self, waveform: jax.Array, mask: jax.Array) -> jax.Array:
        """[b, 1] float32: what brings each sound [b, n] to `level_db`; see level.gains."""
        return level.gains(waveform, mask, level_db=self.level_db, sample_rate=self.sample_rate)

    def waveform_to_latents(
        self, waveform: jax.Array, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Clean latents of whole waveforms.

        Args:
            waveform: [b, n], in [-1, 1] or at `level_db`; zeros are appended up to a whole number of latents.
            mask: [b, n] bool, samples that are sound; not needed by a causal network, which silence follows.

        Returns:
            [b, ceil(n / samples_per_latent), latent_dim] float32.
        """
        del mask
        return self.bottleneck.clean(self._encoded(waveform))

    def _encoded(self, waveform: jax.Array) -> jax.Array:
        """What the encoder says of whole waveforms [b, n]: [b, t, encoder_dim of the bottleneck]."""
        missing = -waveform.shape[1] % self.samples_per_latent
        waveform = jnp.pad(waveform, ((0, 0), (0, missing + self.encoder_lookahead)))
        return self.encoder.layer(self._spectrum(waveform), training=False).values

    def latents_to_waveform(
        self, latents: jax.Array, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Sound of whole sequences of latents [b, t, latent_dim]: [b, t * samples_per_latent].

        Which of them are of sound, `mask` [b, t], is not asked: who looks ahead hears zeros behind them,
        as in a stream.
        """
        del mask
        # The network is causal. To look ahead is to start it that much early, and to drop what it
        # says before the first latent's time has come.
        latents = jnp.pad(latents, ((0, 0), (0, self.decoder_lookahead), (0, 0)))
        decoded = self.decoder.layer(sl.Sequence.from_values(latents), training=False)
        frames = self._frames(decoded)
        waveform, _ = stft.overlap_add(frames, jnp.zeros_like(frames[:, 0, self.hop_length :]))
        return waveform[:, self.decoder_lookahead * self.samples_per_latent :]

    def encoder_state(self, batch_size: int):
        """State of an encoder that has heard nothing."""
        spec = jax.ShapeDtypeStruct((self.frame_length,), jnp.float32)
        return self.encoder.get_initial_state(batch_size, spec, training=False)

    def encode_step(self, state, waveform: jax.Array):
        """Encodes the next chunk of a stream.

        Args:
            state: from `encoder_state` or the previous step.
            waveform: [b, k * samples_per_latent + encoder_lookahead]; the lookahead comes again,
                as the beginning of the next chunk.

        Returns:
            The next state, and k latents [b, k, latent_dim], equal to those of the whole.
        """
        encoded, state = self.encoder.step(self._spectrum(waveform), state, training=False)
        return state, self.bottleneck.clean(encoded.values)

    def decoder_state(self, batch_size: int):
        """State of a decoder that has seen nothing."""
        spec = jax.ShapeDtypeStruct((self.latent_dim,), jnp.float32)
        tail = jnp.zeros((batch_size, self.hop_length))
        return self.decoder.get_initial_state(batch_size, spec, training=False), tail

    def decode_step(self, state, latents: jax.Array):
        """Decodes the next chunk of a stream.

        The sound comes `decoder_lookahead` latents late: drop that much of the first chunk's, and
        feed as many latents of zeros after the last.

        Args:
            state: from `decoder_state` or the previous step.
            latents: [b, k, latent_dim].

        Returns:
            The next state, and [b, k * samples_per_latent] samples.
        """
        state, tail = state
        decoded, state = self.decoder.step(sl.Sequence.from_values(latents), state, training=False)
        frames = self._frames(decoded)
        waveform, tail = stft.overlap_add(frames, tail)
        return (state, tail), waveform

    def _spectrum(self, waveform: jax.Array) -> sl.Sequence:
        spectrum = stft.waveform_to_spectrum(waveform, hop_length=self.hop_length)
        return sl.Sequence.from_values(stft.compress(spectrum, self.compression))

    def _frames(self, decoded: sl.Sequence) -> jax.Array:
        spectrum = stft.expand(decoded.values, self.compression)
        return stft.spectrum_to_frames(spectrum, hop_length=self.hop_length)


def check_geometry(model) -> None:
    """Raises ValueError unless the fields of `model` (an Autoencoder or config.model) fit
    together."""
    for name in ("sample_rate", "frame_length", "hop_length", "fold", "latent_dim"):
        if getattr(model, name) < 1:
            raise ValueError(f"config.model.{name} must be at least 1, got {getattr(model, name)}")
    if model.hop_length * 100 != model.sample_rate:
        raise ValueError(
            f"config.model.hop_length={model.hop_length} must be 10 ms, a hundredth of "
            f"config.model.sample_rate={model.sample_rate}"
        )
    if model.frame_length != 2 * model.hop_length:
        raise ValueError(
            f"config.model.frame_length={model.frame_length} must be twice "
            f"config.model.hop_length={model.hop_length}: the window overlaps by half"
        )
    if not model.strides or any(len(pair) != 2 or min(pair) < 1 for pair in model.strides):
        pairs = "(time, frequency) pairs of at least 1"
        raise ValueError(f"config.model.strides must be {pairs}, got {model.strides}")
    reduction = math.prod(frequency for _, frequency in model.strides)
    if model.hop_length % (model.fold * reduction):
        raise ValueError(
            f"config.model.fold={model.fold} times {reduction}, the frequency strides of "
            f"config.model.strides={model.strides}, must divide the "
            f"{model.hop_length} frequency bins at {model.sample_rate} Hz; change fold or strides"
        )
    for name in ("encoder_channels", "decoder_channels"):
        if len(getattr(model, name)) != len(model.strides):
            raise ValueError(
                f"config.model.{name} must have one width per stage of config.model.strides, "
                f"{len(model.strides)}, got {getattr(model, name)}"
            )
    for name, allowed in _ALLOWED.items():
        value = getattr(model, name)
        if value not in allowed:
            raise ValueError(f"config.model.{name} must be one of {allowed}, got {value!r}")
    if not 0 < model.compression <= 1:
        raise ValueError(f"config.model.compression must be in (0, 1], got {model.compression}")
    level.check(getattr(model, "level_db", 0.0))  # Runs of earlier versions have none.


def _encoder_config(model: Autoencoder) -> sl.Serial.Config:
    conv, same = _convolutions(model)
    widths = (*model.encoder_channels, model.encoder_channels[-1])
    layers = [
        sl.Reshape.Config((model.hop_length // model.fold, 2 * model.fold)),
        conv(widths[0], edge_kernel(model.fold), name="stem"),
    ]
    for i, strides in enumerate(model.strides):
        shortcut = []
        if strides != (1, 1):
            shortcut = [sl.AveragePooling2D.Config(strides, strides, time_padding="semicausal")]
        if widths[i + 1] != widths[i]:
            shortcut.append(conv(widths[i + 1], (1, 1), name="shortcut"))
        block = [
            sl.Elu.Config(),
            same(widths[i]),
            sl.Elu.Config(),
            conv(widths[i + 1], kernel_of(strides), strides=strides, name="down"),
        ]
        layers.append(sl.Residual.Config(block, shortcut, name=f"stage_{i}"))
    layers += [
        sl.Flatten.Config(),
        _dense_pair(
            model.bottleneck.encoder_dim(model.latent_dim), _bottom_width(model, widths[-1]), model
        ),
    ]
    if model.bottleneck.has_affine:  # in float32, as all that is done to latents
        affine = _Affine.Config(shape=(model.latent_dim,), name="affine")
        layers += [sl.Cast.Config(jnp.float32), affine]
    return sl.Serial.Config(layers, name="encoder")


def _decoder_config(model: Autoencoder) -> sl.Serial.Config:
    conv, same = _convolutions(model)
    widths = (*model.decoder_channels, model.decoder_channels[-1])
    bottom = _bottom_width(model, widths[-1])
    layers = [
        # Normalised latents have an rms of 1, spectra one of about 0.1: into a decoder that begins
        # with a twentieth of them phases are learned from the first steps on, and otherwise not in
        # hundreds.
        _dense_pair(bottom, bottom, model, init_scale=0.05**2),
        sl.Reshape.Config((bottom // widths[-1], widths[-1])),
    ]
    for i, strides in reversed(list(enumerate(model.strides))):
        shortcut = []
        if widths[i + 1] != widths[i]:
            shortcut.append(conv(widths[i], (1, 1), name="shortcut"))
        if strides != (1, 1):
            shortcut.append(upsampling.Upsample2D.Config(strides))
        up = upsampling.CausalConv2DTranspose.Config(
            widths[i],
            kernel_of(strides),
            strides,
            formulation=model.upsampling,
            compute_dtype=jnp.dtype(model.compute_dtype),
            name="up",
        )
        block = [sl.Elu.Config(), up, sl.Elu.Config(), same(widths[i])]
        layers.append(sl.Residual.Config(block, shortcut, name=f"stage_{i}"))
    layers += [
        sl.Elu.Config(),
        # Sound has an rms near 0.1: a decoder that begins quiet need not unlearn its own noise
        # first.
        conv(2 * model.fold, edge_kernel(model.fold), init_scale=0.01, name="output"),
        sl.Flatten.Config(),
        sl.Cast.Config(jnp.float32),
    ]
    return sl.Serial.Config(layers, name="decoder")


def _convolutions(model: Autoencoder) -> tuple[Callable, Callable]:
    """What makes any convolution of a model, and those of its stages that have no stride."""
    conv = functools.partial(_conv, compute_dtype=model.compute_dtype)
    spared = dict(kernel_size=SAME_KERNEL, spare_products=model.spare_products)
    return conv, functools.partial(conv, **spared, name="same")


def _conv(
    filters,
    kernel_size,
    *,
    strides=(1, 1),
    init_scale=1.0,
    spare_products=False,
    compute_dtype,
    name,
) -> sl.Conv2D.Config:
    layer = short_filters.Conv2D if spare_products else sl.Conv2D
    return layer.Config(
        filters,
        kernel_size,
        strides,
        # A kernel that ends with its stride's last frame: output i sees nothing after input block
        # i.
        time_padding="semicausal",
        kernel_init=nn.initializers.variance_scaling(init_scale, "fan_in", "truncated_normal"),
        compute_dtype=jnp.dtype(compute_dtype),
        name=name,
    )


def _dense_pair(
    width: int, hidden: int, model: Autoencoder, *, init_scale: float = 1.0
) -> sl.Residual.Config:
    """A linear map and, beside it, one with a hidden layer; `init_scale` is of those that hear."""
    dtype = jnp.dtype(model.compute_dtype)
    dense = functools.partial(sl.Dense.Config, compute_dtype=dtype)
    heard = nn.initializers.variance_scaling(init_scale, "fan_in", "truncated_normal")
    hears = functools.partial(dense, kernel_init=heard)
    layers = [hears(hidden, name="hidden"), sl.Elu.Config(), dense(width, name="output")]
    return sl.Residual.Config(layers, [hears(width, name="linear")], name="dense_pair")


class _Affine(sl.Affine):
    """The layer of that name, of values [b, t, d] and one scale and shift per channel."""

    class Config(sl.Affine.Config):
        def make(self) -> "_Affine":
            return _Affine(self, name=self.name)

    def layer(self, x: sl.Sequence, *, training: bool, constants=None) -> sl.Sequence:
        del training, constants
        scale, bias = (leaf.reshape(1, 1, -1) for leaf in (self.scale, self.bias))
        return x.apply_values(lambda values: values * scale + bias)


def kernel_of(strides: tuple[int, int]) -> tuple[int, int]:
    """Of the convolution that strides, or of the transposed one that mirrors it."""
    return tuple(max(3, 2 * stride) for stride in strides)


def edge_kernel(fold: int) -> tuple[int, int]:
    """Of the first and last convolution: the published 7 x 7 spans fewer bins than 3 folded
    groups."""
    return (7, 7) if fold == 1 else (3, 3)


def _bottom_width(model: Autoencoder, channels: int) -> int:
    reduction = model.fold * math.prod(frequency for _, frequency in model.strides)
    return model.hop_length // reduction * channels
