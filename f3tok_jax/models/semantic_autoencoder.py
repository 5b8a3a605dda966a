# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Autoencoders that hear sound twice: by a frozen semantic encoder and by a layer of their own.

    features of a semantic encoder (frozen)   [b, s, feature_dim] -- interpolated ----- semantic
    log-mel patches, projected, normalised    [b, t, feature_dim] --------------------- acoustic

fused as "features" (DashengTokenizer)        semantic + acoustic
fused as "latents" (LoSATok)                  SemBo(semantic) + linear(acoustic), then a linear map

What comes out goes through a bottleneck, as models.autoencoder's, and a Vocos decoder.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models import acoustic_branch
from f3tok_jax.models import bottleneck as bottleneck_lib
from f3tok_jax.models import initialization
from f3tok_jax.models import semantic_bottleneck
from f3tok_jax.models import vocos_decoder
from f3tok_jax.signal import inverse_stft
from f3tok_jax.signal import level

FUSIONS = ("latents", "features")
COMPUTE_DTYPES = ("bfloat16", "float32")

_RATE_HZ = 25  # of which the rates of features and of latents are multiples


class Streams(NamedTuple):
    """What each branch says of a sound, frame by frame; no gradient flows to the semantic ones.

    Attributes:
        semantic: [b, t, feature_dim] float32, at the latents' rate.
        acoustic: [b, t, feature_dim] float32.
        semantic_latents: [b, t, latent_dim] float32; None where features are fused.
        acoustic_latents: the same.
        encoded: [b, t, encoder_dim of the bottleneck], fused.
        mask: [b, t] bool, frames with any sound in them.
    """

    semantic: jax.Array
    acoustic: jax.Array
    semantic_latents: jax.Array | None
    acoustic_latents: jax.Array | None
    encoded: jax.Array
    mask: jax.Array


class Coded(NamedTuple):
    """Sound through the autoencoder.

    Attributes:
        reconstruction: [b, n] float32.
        latents: [b, t, latent_dim] float32, clean.
        losses: that the bottleneck asks of them: name -> (sum, weight).
        streams: for losses.semantic.supervision.
    """

    reconstruction: jax.Array
    latents: jax.Array
    losses: dict[str, tuple[jax.Array, jax.Array]]
    streams: Streams


class SemanticAutoencoder(nn.Module):
    """LoSATok or DashengTokenizer, behind whatever gives features of sound.

    Features are given to every method that hears: those of a semantic encoder for what `heard` returns.
    Parts that are never trained here: `semantic_bottleneck`, whose weights come from its own stage.

    Source: LoSATok (arXiv 2605.27840), DashengTokenizer (arXiv 2602.23765). Ours: sound is filled up
    with zeros to a whole number of latents, where both leave out its end; other bottlenecks.
    """

    sample_rate: int  # Hz
    frame_length: int  # samples, of the mel spectrum that the acoustic branch hears
    hop_length: int  # samples, of the same
    num_mels: int
    mel_floor: float  # of magnitudes
    patch_frames: int  # mel spectra to a latent
    feature_dim: int  # of the semantic encoder's features, and of the acoustic branch's
    feature_rate: float  # Hz, of the semantic encoder's
    fusion: str  # one of FUSIONS
    bottleneck_dim: int  # of the semantic bottleneck's hidden layers; where latents are fused
    latent_dim: int  # where features are fused, theirs
    decoder_width: int
    decoder_hidden_width: int
    decoder_blocks: int
    decoder_frame_length: int  # samples, of its inverse STFT
    decoder_hop_length: int  # samples
    compute_dtype: str  # one of COMPUTE_DTYPES; norms, spectra, losses and parameters are float32
    bottleneck: bottleneck_lib.Bottleneck
    # DBFS of rms, at which whoever uses the model lets it hear each sound; as of models.autoencoder.
    level_db: float = 0.0

    def setup(self):
        check_geometry(self)
        check_bottleneck(self)
        self.acoustic = acoustic_branch.AcousticBranch(
            sample_rate=self.sample_rate,
            frame_length=self.frame_length,
            hop_length=self.hop_length,
            num_mels=self.num_mels,
            mel_floor=self.mel_floor,
            patch_frames=self.patch_frames,
            width=self.feature_dim,
            compute_dtype=self.compute_dtype,
        )
        if self.fusion == "latents":
            self.semantic_bottleneck = semantic_bottleneck.SemanticBottleneck(
                feature_dim=self.feature_dim,
                hidden_dim=self.bottleneck_dim,
                latent_dim=self.latent_dim,
                compute_dtype=self.compute_dtype,
            )
            self.acoustic_output = self._dense(self.latent_dim)
            self.output = self._dense(self.bottleneck.encoder_dim(self.latent_dim))
        self.decoder = vocos_decoder.VocosDecoder(
            width=self.decoder_width,
            hidden_width=self.decoder_hidden_width,
            num_blocks=self.decoder_blocks,
            frames_per_latent=self.samples_per_latent // self.decoder_hop_length,
            frame_length=self.decoder_frame_length,
            hop_length=self.decoder_hop_length,
            compute_dtype=self.compute_dtype,
        )

    @property
    def samples_per_latent(self) -> int:
        return self.hop_length * self.patch_frames

    @property
    def latent_rate(self) -> float:
        """Latents per second, Hz."""
        return self.sample_rate / self.samples_per_latent

    def __call__(
        self,
        waveform: jax.Array,
        features: jax.Array,
        *,
        mask: jax.Array | None = None,
        noise_key: jax.Array | None = None,
    ) -> Coded:
        """Reconstructs `waveform`, through what the bottleneck trains with if a `noise_key` is given.

        Args:
            waveform: [b, n] in [-1, 1].
            features: [b, s, feature_dim], of what `heard` gives; where they end, the latents do.
            mask: [b, n] bool, samples that are sound, which come first; None for all. Each sound is as
                if it were alone.
            noise_key: key of the bottleneck's noise; None for none.
        """
        streams = self.streams(waveform, features, mask=mask)
        latents = decoded = self.bottleneck.clean(streams.encoded)
        about = dict(encoded=streams.encoded, mask=streams.mask)
        if noise_key is not None:
            decoded = self.bottleneck.noisy(latents, noise_key, **about)
        sound = self.decoder(decoded, streams.mask)
        num_samples = waveform.shape[1]
        missing = max(0, num_samples - sound.shape[1])
        reconstruction = jnp.pad(sound, ((0, 0), (0, missing)))[:, :num_samples]
        return Coded(reconstruction, latents, self.bottleneck.losses(latents, **about), streams)

    @nn.nowrap
    def gains(self, waveform: jax.Array, mask: jax.Array) -> jax.Array:
        """[b, 1] float32: what brings each sound [b, n] to `level_db`; see level.gains."""
        return level.gains(waveform, mask, level_db=self.level_db, sample_rate=self.sample_rate)

    @nn.nowrap
    def heard(
        self, waveform: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """What both branches hear: sound with zeros behind it, a whole number of latents of each.

        Args:
            waveform: [b, n].
            mask: [b, n] bool, samples that are sound, which come first; None for all.

        Returns:
            Waveform and mask, [b, ceil(n / samples_per_latent) * samples_per_latent] each.
        """
        mask = jnp.ones(waveform.shape, bool) if mask is None else mask
        waveform = jnp.where(mask, waveform, 0.0)
        length = self._whole(waveform.shape[1])
        lengths = self._whole(jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.int32))
        waveform = jnp.pad(waveform, ((0, 0), (0, length - waveform.shape[1])))
        return waveform, jnp.arange(length)[None] < lengths

    def waveform_to_latents(
        self, waveform: jax.Array, features: jax.Array, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Clean latents [b, t, latent_dim] float32 of whole waveforms; arguments as of a call.

        Of n samples t is ceil(n / samples_per_latent), or less where the features end earlier.
        """
        return self.bottleneck.clean(self.streams(waveform, features, mask=mask).encoded)

    def latents_to_waveform(
        self, latents: jax.Array, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Sound of whole sequences of latents [b, t, latent_dim]: [b, t * samples_per_latent].

        Args:
            latents: as they come from `waveform_to_latents`, or near them.
            mask: [b, t] bool, those of sound, which come first; None for all.
        """
        return self.decoder(latents, mask)

    def streams(
        self, waveform: jax.Array, features: jax.Array, *, mask: jax.Array | None = None
    ) -> Streams:
        """What each branch says, and both together; arguments as of a call."""
        waveform, mask = self.heard(waveform, mask)
        num_samples = jnp.sum(mask, axis=1, dtype=jnp.int32)
        num_frames = num_samples // self.samples_per_latent
        acoustic = self.acoustic(waveform, num_samples)
        semantic = self._at_latent_rate(jax.lax.stop_gradient(features), num_frames)
        count = min(acoustic.shape[1], semantic.shape[1])
        acoustic, semantic = acoustic[:, :count], semantic[:, :count]
        frames = jnp.arange(count)[None] < num_frames[:, None]
        # Behind a sound both may be anything.
        acoustic, semantic = (jnp.where(frames[..., None], x, 0.0) for x in (acoustic, semantic))
        if self.fusion == "features":
            return Streams(semantic, acoustic, None, None, semantic + acoustic, frames)
        narrow = self.semantic_bottleneck.features_to_latents(semantic)
        semantic_latents = jax.lax.stop_gradient(narrow)
        acoustic_latents = self.acoustic_output(acoustic).astype(jnp.float32)
        encoded = self.output(semantic_latents + acoustic_latents)
        return Streams(semantic, acoustic, semantic_latents, acoustic_latents, encoded, frames)

    def _at_latent_rate(self, features: jax.Array, num_latents: jax.Array) -> jax.Array:
        """Features [b, s, d] of sounds of `num_latents` [b], interpolated: [b, t, d] float32."""
        if features.ndim != 3 or features.shape[-1] != self.feature_dim:
            raise ValueError(
                f"config.model.feature_dim={self.feature_dim} must be the width of the semantic "
                f"encoder's features [b, s, d], got {list(features.shape)}"
            )
        features = features.astype(jnp.float32)
        per_latent = self.feature_rate / self.latent_rate
        if per_latent == 1.0:
            return features
        last = jnp.ceil(num_latents * per_latent).astype(jnp.int32) - 1
        last = jnp.clip(last, 0, features.shape[1] - 1)[:, None]
        # The middle of a latent's time, between those of the features' times.
        count = int(features.shape[1] / per_latent)
        place = np.maximum((np.arange(count) + 0.5) * per_latent - 0.5, 0.0)
        before = np.floor(place).astype(np.int32)[None]
        share = jnp.asarray(place - before, jnp.float32)[..., None]
        low, high = (
            jnp.take_along_axis(features, jnp.minimum(index, last)[..., None], axis=1)
            for index in (before, before + 1)
        )
        return low + share * (high - low)

    def _whole(self, num_samples: Any) -> Any:
        """Up to a whole number of latents."""
        return num_samples + -num_samples % self.samples_per_latent

    def _dense(self, features: int) -> nn.Dense:
        return nn.Dense(
            features, dtype=self.compute_dtype, kernel_init=initialization.TORCH_UNIFORM
        )


def check_geometry(model) -> None:
    """Raises ValueError unless the fields of `model` (a SemanticAutoencoder, or a config.model beside
    its bottleneck) fit together."""
    for name, allowed in (("fusion", FUSIONS), ("compute_dtype", COMPUTE_DTYPES)):
        if getattr(model, name) not in allowed:
            raise ValueError(
                f"config.model.{name} must be one of {allowed}, got {getattr(model, name)!r}"
            )
    samples_per_latent = model.hop_length * model.patch_frames
    rates = {"features": model.feature_rate, "latents": model.sample_rate / samples_per_latent}
    for what, rate in rates.items():
        if rate <= 0 or rate % _RATE_HZ:
            raise ValueError(
                f"{what} must come at a multiple of {_RATE_HZ} Hz, so that one stream can be "
                f"interpolated to the other, got {rate:g} Hz (config.model.feature_rate of features; "
                "config.model.sample_rate over hop_length and patch_frames of latents)"
            )
    inverse_stft.check(model.decoder_frame_length, model.decoder_hop_length)
    if samples_per_latent % model.decoder_hop_length:
        raise ValueError(
            f"config.model.decoder_hop_length={model.decoder_hop_length} must divide the "
            f"{samples_per_latent} samples of a latent, hop_length times patch_frames"
        )
    if model.fusion == "features" and model.latent_dim != model.feature_dim:
        raise ValueError(
            f"config.model.latent_dim={model.latent_dim} must be feature_dim={model.feature_dim} where "
            "features are fused; fuse latents to have narrower ones"
        )
    level.check(model.level_db)


def check_bottleneck(model) -> None:
    """Raises ValueError for a bottleneck that what is fused cannot be made for."""
    made, given = model.bottleneck, type(model.bottleneck).__name__
    if made.has_affine:
        raise ValueError(
            "a semantic autoencoder has no scale and shift of each channel before its bottleneck, got "
            f"{given}, which needs them; choose another kind in config.bottleneck"
        )
    asked = made.encoder_dim(model.latent_dim)
    if model.fusion == "features" and asked != model.latent_dim:
        raise ValueError(
            f"where features are fused they are the {model.latent_dim} values of a latent as they come, "
            f"got {given}, which asks the encoder for {asked}; choose another kind in config.bottleneck, "
            "or config.model.fusion='latents'"
        )
