# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion transformer: noise becomes all latents of a sound at once, whose length is given.

Times, velocities and guidance are those of models.flow_head. What is read of a text, one vector per
token, is attended to; zeros in its place are no text.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import flow_head
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.models.transformer import conditioning
from f3tok_jax.models.transformer import layers
from f3tok_jax.models.transformer import transformer as transformer_lib


class DiffusionTransformer(nn.Module):
    """A bidirectional transformer over noisy latents, modulated by the time, which attends to a text.

    Source: the generator of UniFlow-Audio (github.com/wsntxxn/UniFlow-Audio) as LoSATok and
    DashengTokenizer use it, without its long skips, its convolutions and its input that is aligned in
    time; norms and feed-forward layers are this package's.
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
    modulation_rank: int  # of each block's own part of what time changes; at least 1
    remat: str  # one of transformer.REMATS
    compute_dtype: str  # one of transformer.COMPUTE_DTYPES
    unrolled: bool = False  # as a transformer's

    # No fields: every position sees all others; for transformer.forward_flops, too.
    window = 0
    attention = "bidirectional"

    def setup(self):
        if self.latent_dim < 1 or self.modulation_rank < 1:
            raise ValueError(
                "the diffusion transformer needs a latent_dim and a modulation_rank of at least 1, "
                f"got {self.latent_dim} and {self.modulation_rank}"
            )
        zeros = nn.initializers.zeros
        self.time_hidden = self._dense(self.width)
        self.time_out = self._dense(self.width)
        # Blocks begin as those of a transformer that knows of no time.
        self.modulation = self._dense(conditioning.PER_BLOCK * self.width, init=zeros)
        self.last_modulation = self._dense(2 * self.width, init=zeros)
        # Features of language models are of any scale; without biases zeros stay zeros.
        self.text_norm = layers.RMSNorm(self.norm_epsilon)
        self.text_in = self._dense(self.width, use_bias=False)
        self.latents_in = self._dense(self.width)
        self.transformer = transformer_lib.of_fields(self, attention=self.attention)
        # The first velocity is 0, its loss the variance of x - e.
        self.latents_out = self._dense(self.latent_dim, into=False, init=zeros)

    def __call__(
        self,
        noisy: jax.Array,
        mask: jax.Array,
        time: jax.Array,
        text: jax.Array,
        text_mask: jax.Array,
    ) -> jax.Array:
        """The velocity at `noisy`, which does not depend on what lies outside the masks.

        Args:
            noisy: [b, t, latent_dim], x_t.
            mask: [b, t] bool, True where there is sound.
            time: [b] float32 in [0, 1].
            text: [b, s, any width], what a language model has read; zeros for no text.
            text_mask: [b, s] bool.

        Returns:
            [b, t, latent_dim] float32, of no meaning where the mask is False.
        """
        with jax.named_scope("diffusion_transformer"):
            vector = self.time_out(nn.silu(self.time_hidden(flow_head.time_features(time))))
            heard = nn.silu(vector)
            condition = conditioning.Condition(
                vector=vector.astype(jnp.float32),
                modulation=self.modulation(heard).astype(jnp.float32),
                context=self.text_in(self.text_norm(text)),
                mask=text_mask,
            )
            x = self.transformer(
                self.latents_in(noisy), segments=mask.astype(jnp.int32), condition=condition
            )
            last = self.last_modulation(heard).astype(jnp.float32)[:, None]
            x = conditioning.modulated(x, *jnp.split(last, 2, axis=-1))
            return self.latents_out(x).astype(jnp.float32)

    def _dense(
        self,
        features: int,
        *,
        use_bias: bool = True,
        into: bool = True,
        init: Callable[..., jax.Array] | None = None,
    ) -> nn.Dense:
        """A layer into the transformer's width, or out of it."""
        return layers.dense(
            features,
            (None, "embed") if into else ("embed", None),
            compute_dtype=self.compute_dtype,
            init=init or nn.initializers.lecun_normal(),
            use_bias=use_bias,
        )


def sample(
    model: DiffusionTransformer,
    params: Any,
    key: jax.Array,
    mask: jax.Array,
    text: jax.Array,
    text_mask: jax.Array,
    *,
    sampler: sampler_lib.Sampler,
) -> jax.Array:
    """Latents of whole sounds.

    Args:
        model: the module.
        params: its parameters.
        key: of the noise; that of a frame depends on its row and place alone.
        mask: [b, t] bool: how long each is.
        text: [b, s, any width].
        text_mask: [b, s] bool.
        sampler: which steps there are, and their guidance.

    Returns:
        [b, t, latent_dim] float32, zero where the mask is False.
    """

    def velocity(text: jax.Array, time: jax.Array, x: jax.Array) -> jax.Array:
        of_all = lambda rows: jnp.concatenate([rows] * (x.shape[0] // rows.shape[0]))
        return model.apply({"params": params}, x, of_all(mask), time, text, of_all(text_mask))

    noise = noise_of(key, (*mask.shape, model.latent_dim))
    made = sampler(sampler_lib.guided(velocity, text, sampler.guidance), noise)
    return jnp.where(mask[..., None], made, 0.0)


def noise_of(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Noise [b, t, d] by row and frame alone, however long and however many the rows are."""

    def frame(row: jax.Array, place: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, row), place)
        return jax.random.normal(own, shape[2:])

    frames = jax.vmap(frame, in_axes=(None, 0))
    return jax.vmap(frames, in_axes=(0, None))(jnp.arange(shape[0]), jnp.arange(shape[1]))


def forward_flops(
    model: DiffusionTransformer, length: int, *, num_tokens: int, text_width: int
) -> float:
    """Multiplications and additions of one row: of `length` latents and so many tokens of text."""
    queries, values = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    across = 2 * model.width * (length * queries + num_tokens * values)  # both sides
    across += 2 * length * num_tokens * queries
    per_row = text_width * model.width * num_tokens + 2 * model.latent_dim * model.width * length
    return sum(transformer_lib.forward_flops(model, length)) + 2.0 * (
        model.num_layers * across + per_row
    )
