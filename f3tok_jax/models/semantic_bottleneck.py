# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Features of a semantic encoder in few dimensions, and back: LoSATok's SemBo."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import initialization


class SemanticBottleneck(nn.Module):
    """Two linear maps with a GELU between, frame by frame, and their mirror; no norms.

    Trained alone on features of a frozen encoder by losses.semantic.feature_reconstruction and
    time_relation. After that its `down` is frozen, and its `up` has done its work.

    Source: LoSATok (arXiv 2605.27840).
    """

    feature_dim: int  # of the semantic encoder
    hidden_dim: int
    latent_dim: int
    compute_dtype: str  # of the products; parameters are float32

    def setup(self):
        self.down = Mapping(self.hidden_dim, self.latent_dim, self.compute_dtype)
        self.up = Mapping(self.hidden_dim, self.feature_dim, self.compute_dtype)

    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features [b, t, feature_dim] to latents [b, t, latent_dim] and back to features, float32."""
        latents = self.features_to_latents(features)
        return latents, self.up(latents)

    def features_to_latents(self, features: jax.Array) -> jax.Array:
        """[b, t, feature_dim] to [b, t, latent_dim] float32."""
        if features.shape[-1] != self.feature_dim:
            raise ValueError(
                f"the semantic bottleneck takes features [b, t, {self.feature_dim}], got "
                f"{list(features.shape)}; give the width of the semantic encoder as feature_dim"
            )
        return self.down(features)


class Mapping(nn.Module):
    """A linear map, an exact GELU, a linear map."""

    hidden_dim: int
    output_dim: int
    compute_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, t, d] to [b, t, output_dim] float32."""
        options = dict(dtype=self.compute_dtype, kernel_init=initialization.TORCH_UNIFORM)
        x = nn.Dense(self.hidden_dim, name="hidden", **options)(x)
        x = nn.gelu(x, approximate=False)
        return nn.Dense(self.output_dim, name="output", **options)(x).astype(jnp.float32)
