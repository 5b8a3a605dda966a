# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The representation encoder: a causal transformer on latents, whole or in a stream."""

from flax import linen as nn
import jax

from f3tok_jax.models import bottleneck
from f3tok_jax.models.transformer import cache as cache_lib
from f3tok_jax.models.transformer import layers
from f3tok_jax.models.transformer import transformer


class RepresentationEncoder(nn.Module):
    """Latents to representations at the same rate; a representation sees no latent after its own.

    Source: F3-Tokenizer (arXiv 2606.06357) for what it is trained on; the shape is ours.
    """

    latent_dim: int
    num_layers: int
    width: int
    hidden_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    norm_epsilon: float
    qk_norm: bool
    window: int  # latents that attention spans, itself included; 0 for all
    input_noise: float  # alpha ~ U(0, this), one per example, where a key is given; latents have 1
    remat: str  # one of transformer.REMATS
    compute_dtype: str  # one of transformer.COMPUTE_DTYPES

    attention = "causal"  # no field; for transformer.forward_flops

    def setup(self):
        if self.latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {self.latent_dim}")
        if self.input_noise < 0:
            name = "config.model.input_noise"
            raise ValueError(f"{name} must not be negative, got {self.input_noise}")
        self.input = layers.dense(
            self.width,
            (None, "embed"),
            compute_dtype=self.compute_dtype,
            init=nn.initializers.lecun_normal(),
        )
        self.transformer = self._transformer()

    def __call__(
        self,
        latents: jax.Array,
        *,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        noise_key: jax.Array | None = None,
    ) -> jax.Array:
        """Representations of whole sequences.

        Args:
            latents: [b, t, latent_dim], clean.
            positions: [b, t] int32, as transformer.Transformer has them.
            segments: [b, t] int32, which example a latent belongs to, 0 for padding; default one
                example per row.
            noise_key: of the noise on the input, in training; None for none.

        Returns:
            [b, t, width] in the compute dtype.
        """
        self._check(latents)
        if noise_key is not None and self.input_noise:
            latents = bottleneck.perturb(
                latents, noise_key, gamma=self.input_noise, segments=segments
            )
        return self.transformer(self.input(latents), positions=positions, segments=segments)

    @nn.nowrap
    def initial_cache(self, batch_size: int, max_length: int = 0) -> cache_lib.Cache:
        """Memory of an encoder that has seen nothing; `max_length` latents where window is 0."""
        return self._transformer().initial_cache(batch_size, max_length)

    def step(
        self, latents: jax.Array, cache: cache_lib.Cache, *, mask: jax.Array | None = None
    ) -> tuple[jax.Array, cache_lib.Cache]:
        """Representations of the next chunk of a stream, equal to those of the whole.

        Args:
            latents: [b, k, latent_dim].
            cache: from `initial_cache` or the previous step.
            mask: [b, k] bool, False for padding; default all True.

        Returns:
            [b, k, width] in the compute dtype, and the next cache.
        """
        self._check(latents)
        return self.transformer.step(self.input(latents), cache, mask=mask)

    @nn.nowrap
    def _transformer(self) -> transformer.Transformer:
        return transformer.of_fields(self)

    @nn.nowrap
    def _check(self, latents: jax.Array) -> None:
        if latents.ndim != 3 or latents.shape[-1] != self.latent_dim:
            raise ValueError(
                f"the representation encoder takes latents [b, t, {self.latent_dim}], got "
                f"{list(latents.shape)}"
            )
