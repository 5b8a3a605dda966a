# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A semantic autoencoder and the frozen encoder that it hears through, as one model of sound."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import bottleneck as bottleneck_lib
from f3tok_jax.models import semantic_autoencoder
from f3tok_jax.models import semantic_encoder

AUTOENCODER, ENCODER = "autoencoder", "semantic_encoder"  # at the top of the parameters
BOTTLENECK = "semantic_bottleneck"  # of the autoencoder what comes from elsewhere


class SemanticCoder(nn.Module):
    """Sound to latents and back, as models.autoencoder has it, but of whole sounds alone.

    Its parameters are made by `joined`: they hold all variables of the semantic encoder, too.
    """

    encoder: semantic_encoder.SemanticEncoder
    autoencoder: semantic_autoencoder.SemanticAutoencoder

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.autoencoder.sample_rate

    @property
    def samples_per_latent(self) -> int:
        return self.autoencoder.samples_per_latent

    @property
    def latent_rate(self) -> float:
        """Latents per second, Hz."""
        return self.autoencoder.latent_rate

    @property
    def latent_dim(self) -> int:
        return self.autoencoder.latent_dim

    @property
    def level_db(self) -> float:
        """DBFS of rms, as of models.autoencoder."""
        return self.autoencoder.level_db

    @property
    def bottleneck(self) -> bottleneck_lib.Bottleneck:
        return self.autoencoder.bottleneck

    @property
    def encoder_history(self) -> int:
        """Samples before a latent's beginning that its acoustic half depends on: half a window. The
        semantic half hears all of a sound, which no margin makes up for."""
        return self.autoencoder.frame_length // 2

    @property
    def encoder_lookahead(self) -> int:
        """Likewise after a latent's end."""
        return self.autoencoder.frame_length // 2

    def __call__(
        self,
        waveform: jax.Array,
        *,
        mask: jax.Array | None = None,
        noise_key: jax.Array | None = None,
    ) -> semantic_autoencoder.Coded:
        """Reconstructs `waveform` [b, n]; see SemanticAutoencoder."""
        features = self._features(waveform, mask)
        return self.autoencoder(waveform, features, mask=mask, noise_key=noise_key)

    def waveform_to_latents(
        self, waveform: jax.Array, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Clean latents [b, ceil(n / samples_per_latent), latent_dim] float32 of sounds [b, n], whose
        valid samples, which come first, are `mask` [b, n]; None for all."""
        features = self._features(waveform, mask)
        return self.autoencoder.waveform_to_latents(waveform, features, mask=mask)

    def latents_to_waveform(
        self, latents: jax.Array, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Sound [b, t * samples_per_latent] of whole sequences of latents; see SemanticAutoencoder."""
        return self.autoencoder.latents_to_waveform(latents, mask=mask)

    @nn.nowrap
    def gains(self, waveform: jax.Array, mask: jax.Array) -> jax.Array:
        """[b, 1] float32: what brings each sound [b, n] to `level_db`; see level.gains."""
        return self.autoencoder.gains(waveform, mask)

    @nn.nowrap
    def frame_mask(self, mask: jax.Array) -> jax.Array:
        """[b, t] bool: latents with any sound in them, of samples that are [b, n] bool."""
        _, heard = self.autoencoder.heard(mask, mask)
        return heard[:, :: self.samples_per_latent]

    def _features(self, waveform: jax.Array, mask: jax.Array | None) -> jax.Array:
        """What the frozen encoder says of sound; no gradient flows to it."""
        waveform, mask = self.autoencoder.heard(waveform, mask)
        # Of latents more often than features, the last feature may be of fewer samples.
        per_feature = self.encoder.samples_per_feature
        waveform = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % per_feature)))
        lengths = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.int32)
        lengths += -lengths % per_feature
        mask = jnp.arange(waveform.shape[1])[None] < lengths
        variables = self.get_variable("params", ENCODER)
        with jax.named_scope(ENCODER):
            unbound = self.encoder.clone(parent=None, name=None)
            return jax.lax.stop_gradient(unbound.apply(variables, waveform, mask))


def joined(params: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a SemanticCoder.

    Args:
        params: that are trained, of the autoencoder.
        frozen: under ENCODER the semantic encoder's variables, {"params", "statistics"}; under
            BOTTLENECK, where latents are fused, the parameters of that part of the autoencoder.
    """
    rest = {name: part for name, part in frozen.items() if name != ENCODER}
    return {ENCODER: frozen[ENCODER], AUTOENCODER: {**params, **rest}}


def parted(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `joined` puts together, such as a tree of shardings: what is trained, and what is frozen."""
    trained = dict(params[AUTOENCODER])
    rest = {BOTTLENECK: trained.pop(BOTTLENECK)} if BOTTLENECK in trained else {}
    return trained, {ENCODER: params[ENCODER], **rest}
