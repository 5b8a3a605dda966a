# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The semantic encoder of the rivals: Dasheng's architecture, sound to features that say what is heard."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.transformer import layers
from f3tok_jax.models.transformer import transformer
from f3tok_jax.signal import decibels

_BATCH_NORM_EPSILON = 1e-5
_NORM_EPSILON = 1e-6
_HIDDEN = 4  # widths of the hidden layer of a block
_RANGE_DB = 120.0  # below the loudest band of an example, at which its mel spectrum ends
STATISTICS = "statistics"  # the collection of what the mel bands are standardised by, never trained

# Width and depth of the published sizes -> heads, which weights do not tell.
PUBLISHED_HEADS = {(768, 12): 12, (1280, 32): 16, (1536, 40): 24}


class SemanticEncoder(nn.Module):
    """Sound to features; each example as it is alone, whatever it is padded and batched with.

    A mel spectrum in decibels, standardised per band, is cut into patches of all bands times
    `patch_frames`; each is projected, is told where it is, and goes through a bidirectional transformer.
    Longer sound than `max_patches` goes through in chunks of so many, the last as long as it is.
    Parameters are float32, products in `compute_dtype`; spectra and norms are float32.

    Source: Dasheng (arXiv 2406.06992), as version 0.0.9 of its package computes it, but for two things:
    the floor of the spectrum is that of each example, not of the loudest in its batch; and an example in
    a batch has the features that it has alone, where the package masks the last of some lengths.
    """

    num_layers: int
    width: int  # of a feature
    num_heads: int  # a divisor of the width
    sample_rate: int = 16_000  # Hz
    frame_length: int = 512  # samples per frame and per transform
    hop_length: int = 160  # samples
    num_mels: int = 64
    patch_frames: int = 4  # spectra side by side in a patch, 40 ms
    max_patches: int = 252  # that have learned places in time, 10.08 s
    remat: str = "none"  # one of transformer.REMATS
    compute_dtype: str = "float32"  # one of transformer.COMPUTE_DTYPES

    def setup(self):
        check_shape(self)
        self.patch = layers.dense(
            self.width,
            (None, "embed"),
            compute_dtype=self.compute_dtype,
            init=nn.initializers.lecun_normal(),
        )
        learn, bands = self._learned, (self.num_mels,)
        self.mel_scale = learn("scale", nn.initializers.ones, bands, (None,))
        self.mel_bias = learn("bias", nn.initializers.zeros, bands, (None,))
        self.mel_mean = self.variable(STATISTICS, "mean", jnp.zeros, bands)
        self.mel_variance = self.variable(STATISTICS, "variance", jnp.ones, bands)
        places, normal = (self.max_patches, self.width), nn.initializers.normal(0.02)
        self.time_positions = learn("time_positions", normal, places, (None, "embed"))
        self.frequency_position = learn("frequency_position", normal, places[1:], ("embed",))
        self.transformer = make_transformer(
            num_layers=self.num_layers,
            width=self.width,
            num_heads=self.num_heads,
            remat=self.remat,
            compute_dtype=self.compute_dtype,
        )

    def _learned(
        self, name, init, shape: tuple[int, ...], axes: tuple[str | None, ...]
    ) -> jax.Array:
        return self.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)

    @property
    def samples_per_feature(self) -> int:
        """Samples from one feature to the next: 640, 25 Hz."""
        return self.hop_length * self.patch_frames

    def __call__(self, waveform: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Features of sound.

        Args:
            waveform: [b, n] float32 in [-1, 1].
            mask: [b, n] bool, True where valid, which comes first; default all.

        Returns:
            [b, (n // 160 + 1) // 4, width] in the compute dtype, 25 Hz; those that `feature_mask` gives
            as False mean nothing.

        Raises:
            ValueError: for sound too short for one.
        """
        if not self.num_features(waveform.shape[-1]):
            least = (self.patch_frames - 1) * self.hop_length
            wanted = f"[b, n] of at least {least} samples, which make a feature"
            raise ValueError(f"a semantic encoder needs sound {wanted}, got {list(waveform.shape)}")
        valid = None if mask is None else self.feature_mask(mask)
        return self.encode(self.embed(self.mel_patches(waveform, mask)), valid)

    @nn.nowrap
    def feature_mask(self, mask: jax.Array) -> jax.Array:
        """[b, t] bool of [b, n]: which features are of valid samples, as many as sound alone has."""
        counts = self.num_features(jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.int32))
        has_sound = jnp.any(mask, axis=-1, keepdims=True)
        return has_sound & (jnp.arange(self.num_features(mask.shape[-1]))[None] < counts)

    @nn.nowrap
    def num_features(self, num_samples: jax.Array | int) -> jax.Array | int:
        """Of sound of so many samples."""
        return decibels.num_frames(num_samples, self.hop_length) // self.patch_frames

    @nn.nowrap
    def mel_patches(self, waveform: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Mel spectra as they are heard, in decibels: [b, t, num_mels, patch_frames], float32.

        Frames that fill no patch are dropped. Needs no parameters.
        """
        levels = self.mel_decibels(waveform, mask)
        count = levels.shape[1] // self.patch_frames
        frames = levels[:, : count * self.patch_frames]
        frames = frames.reshape(len(levels), count, self.patch_frames, self.num_mels)
        return frames.swapaxes(2, 3)

    @nn.nowrap
    def mel_decibels(self, waveform: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """See decibels.mel_decibels."""
        return decibels.mel_decibels(
            waveform,
            mask,
            sample_rate=self.sample_rate,
            frame_length=self.frame_length,
            hop_length=self.hop_length,
            num_mels=self.num_mels,
            range_db=_RANGE_DB,
        )

    def embed(self, patches: jax.Array) -> jax.Array:
        """What enters the transformer, [b, t, width], of `mel_patches`: each knows its place in its
        chunk."""
        inverse = jax.lax.rsqrt(self.mel_variance.value + _BATCH_NORM_EPSILON)
        bands = (None, None, slice(None), None)
        standardised = (patches - self.mel_mean.value[bands]) * (inverse * self.mel_scale)[bands]
        x = (standardised + self.mel_bias[bands]).reshape(*patches.shape[:2], -1)
        x = self.patch(x.astype(self.compute_dtype))
        count = patches.shape[1]
        times = jnp.tile(self.time_positions, (-(-count // self.max_patches), 1))[:count]
        places = times + self.frequency_position[None]
        return x + places[None].astype(x.dtype)

    def encode(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """Features [b, t, width] of what `embed` gives, or of a part of it.

        Args:
            x: [b, t, width]; more than max_patches go in chunks of so many, which see one another not.
            valid: [b, t] bool, False for what is not to be seen.
        """
        batch, count, width = x.shape
        if count <= self.max_patches:
            segments = None if valid is None else valid.astype(jnp.int32)
            return self.transformer(x, segments=segments)
        valid = jnp.ones((batch, count), jnp.bool_) if valid is None else valid
        missing = -count % self.max_patches
        rows = jnp.pad(x, ((0, 0), (0, missing), (0, 0))).reshape(-1, self.max_patches, width)
        segments = jnp.pad(valid, ((0, 0), (0, missing))).reshape(-1, self.max_patches)
        features = self.transformer(rows, segments=segments.astype(jnp.int32))
        return features.reshape(batch, -1, width)[:, :count]


def make_transformer(
    *, num_layers: int, width: int, num_heads: int, remat: str, compute_dtype: str
) -> transformer.Transformer:
    """The vision transformer's blocks, as semantic encoders and what decodes them have them."""
    return transformer.Transformer(
        num_layers=num_layers,
        width=width,
        hidden_width=_HIDDEN * width,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width // num_heads,
        block="vit",
        norm_epsilon=_NORM_EPSILON,
        attention="bidirectional",
        remat=remat,
        compute_dtype=compute_dtype,
    )


def check_shape(model) -> None:
    """Raises ValueError unless the fields of `model` (a SemanticEncoder or its config) fit together."""
    for name in ("num_heads", "num_mels", "patch_frames", "max_patches", "hop_length"):
        if getattr(model, name) < 1:
            raise ValueError(
                f"a semantic encoder's {name} must be at least 1, got {getattr(model, name)}"
            )
    if model.width % model.num_heads:
        heads = f"num_heads={model.num_heads}"
        raise ValueError(f"a semantic encoder's width={model.width} must be a multiple of {heads}")
