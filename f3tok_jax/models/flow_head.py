# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The flow head: what a language model's state becomes, a patch of clean latents.

Conventions, wherever a time or a guidance scale is named: t = 0 is noise and t = 1 is data,
x_t = t x + (1 - t) e, and the velocity is x - e. Guidance w goes from the velocity u without
condition to the velocity c with it, u + w (c - u): 0 ignores the condition, 1 is the condition
alone. A time of others that counts from data to noise is 1 - t; a scale s of those who write
c + s (c - u) is our w - 1.

After each patch the head says how likely the sound is to end there, if it has not ended before. A
sound is taken to end where it is more likely than not to have ended: at the median of the lengths
that the head foretells. Asking each patch alone for more than one half would pass by an end of
which the head is certain, but not of its place.
"""

from collections.abc import Callable
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.transformer import layers
from f3tok_jax.models.transformer import transformer as transformer_lib

_TIME_FEATURES = 256  # sinusoids of the time
_TILE = 16  # positions, of bfloat16 in a TPU's memory
_TIME_SCALE = 1000.0  # of t in [0, 1], so that the sinusoids tell neighbours apart


class FlowHead(nn.Module):
    """A bidirectional transformer over [condition and time, previous patches, noisy patch].

    Source: the local diffusion transformer of VoxCPM (github.com/OpenBMB/VoxCPM) and of DiTAR
    (arXiv 2502.03930); flow matching with linear paths (arXiv 2210.02747).
    """

    latent_dim: int
    patch: int  # latents that one state of the language model becomes
    history: int  # patches before it that are seen clean; 0 for none
    num_layers: int
    width: int
    hidden_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    norm_epsilon: float
    qk_norm: bool
    use_token: bool  # whether the condition has the representation beside the state
    row: int  # positions at most where the sequences of patches go together; see `_transform`
    remat: str  # one of transformer.REMATS
    compute_dtype: str  # one of transformer.COMPUTE_DTYPES
    unrolled: bool = False  # as a transformer's

    # No fields: every position sees all others; for transformer.forward_flops, too.
    window = 0
    attention = "bidirectional"

    def setup(self):
        if self.patch < 1 or self.history < 0 or self.latent_dim < 1:
            raise ValueError(
                "the flow head needs a patch and a latent_dim of at least 1 and a history of at "
                f"least 0, got {self.patch}, {self.latent_dim} and {self.history}"
            )
        # Without biases: a condition of zeros is none.
        self.state_in = self._dense(self.width, use_bias=False)
        if self.use_token:
            self.token_in = self._dense(self.width, use_bias=False)
        self.time_hidden = self._dense(self.width)
        self.time_out = self._dense(self.width)
        self.latents_in = self._dense(self.width)
        normal = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "embed"))
        self.roles = self.param("roles", normal, (2, self.width), jnp.float32)
        self.transformer = transformer_lib.of_fields(self, attention=self.attention)
        # The first velocity is 0, its loss the variance of x - e.
        self.latents_out = self._dense(self.latent_dim, into=False, init=nn.initializers.zeros)
        self.stop_hidden = self._dense(self.width)
        self.stop_out = self._dense(1, into=False, init=nn.initializers.zeros)

    def __call__(
        self,
        states: jax.Array,
        tokens: jax.Array,
        time: jax.Array,
        noisy: jax.Array,
        history: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Velocities and stop logits in one call, for initialising and for tests."""
        condition = self.condition(states, tokens)
        return self.velocity(condition, time, noisy, history), self.stop_logits(states)

    def condition(self, states: jax.Array, tokens: jax.Array) -> jax.Array:
        """What a patch is made from; zeros stand for no condition.

        Args:
            states: [..., d] of the language model, after the last patch that was read.
            tokens: [..., d] audio token of that patch, zeros before the first.

        Returns:
            [..., width] float32.
        """
        condition = self.state_in(states)
        if self.use_token:
            condition = condition + self.token_in(tokens)
        return condition.astype(jnp.float32)

    def velocity(
        self, condition: jax.Array, time: jax.Array, noisy: jax.Array, history: jax.Array
    ) -> jax.Array:
        """The velocity at `noisy`, at a time [n] float32 in [0, 1]; the rest as in `flow`."""
        return self.flow(condition, self.time_token(time), noisy, history)

    def time_token(self, time: jax.Array) -> jax.Array:
        """[n, width] of times [n] float32 in [0, 1]."""
        with jax.named_scope("flow_head"):
            return self.time_out(nn.silu(self.time_hidden(time_features(time))))

    def flow(
        self, condition: jax.Array, time_token: jax.Array, noisy: jax.Array, history: jax.Array
    ) -> jax.Array:
        """The velocity at `noisy`, at a time of which the token is known.

        Args:
            condition: [n, width], of `condition`; zeros for none.
            time_token: [n, width].
            noisy: [n, patch, latent_dim], x_t.
            history: [n, history * patch, latent_dim] clean latents before the patch, zeros where
                there are none.

        Returns:
            [n, patch, latent_dim] float32.
        """
        with jax.named_scope("flow_head"):
            first = (condition + time_token)[:, None].astype(self.compute_dtype)
            roles = self.roles.astype(self.compute_dtype)
            past = self.latents_in(history) + roles[None, :1]
            current = self.latents_in(noisy) + roles[None, 1:]
            x = self._transform(jnp.concatenate([first, past, current], axis=1))
            return self.latents_out(x[:, -self.patch :]).astype(jnp.float32)

    def stop_logits(self, states: jax.Array) -> jax.Array:
        """[...] float32, log-odds that the patch which the state has read last was the last."""
        hidden = nn.silu(self.stop_hidden(states))
        return self.stop_out(hidden)[..., 0].astype(jnp.float32)

    def _transform(self, x: jax.Array) -> jax.Array:
        """The transformer over many short sequences [n, s, width], as many as fit into a row.

        Scores of a few positions leave nearly all of a TPU's lanes empty. In longer rows, where
        segments keep the sequences apart, they do not, and where rows are whole tiles of a TPU's
        memory its attention kernel has them. A CPU is faster with one sequence per row, as are so few
        that all of them are not one tile.
        """
        count, length, width = x.shape
        fitting = range(1, max(self.row // length, 1) + 1)
        dividing = [number for number in fitting if count % number == 0]
        whole = [number for number in dividing if number * length % _TILE == 0]
        per_row = max(whole or dividing)
        if per_row == 1 or count * length <= _TILE:
            return self.transformer(x)
        rows = x.reshape(count // per_row, per_row * length, width)
        segments = 1 + jnp.arange(rows.shape[1], dtype=jnp.int32)[None] // length
        segments = jnp.broadcast_to(segments, rows.shape[:2])
        return self.transformer(rows, segments=segments).reshape(x.shape)

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


def time_features(time: jax.Array) -> jax.Array:
    """Sinusoids [n, k] float32 of times [n] float32 in [0, 1]."""
    half = _TIME_FEATURES // 2
    exponents = jnp.arange(half, dtype=jnp.float32) / half
    angles = _TIME_SCALE * time[:, None] * (10_000.0**-exponents)[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def log_survival(stop_logits: jax.Array) -> jax.Array:
    """Logarithm of how likely sound is to go on after a patch, where it went on until there."""
    return jax.nn.log_sigmoid(-stop_logits)


def has_ended(survival: jax.Array) -> jax.Array:
    """Whether sound ends, by the sum of `log_survival` over its patches so far."""
    return survival < -math.log(2)


def patches_of(latents: jax.Array, patch: int) -> jax.Array:
    """[b, t, d] to [b, t // patch, patch, d]; what does not fill a patch is left out."""
    count = latents.shape[1] // patch
    whole = latents[:, : count * patch]
    return whole.reshape(latents.shape[0], count, patch, latents.shape[2])


def latents_of(patches: jax.Array) -> jax.Array:
    """[b, n, patch, d] to [b, n * patch, d]."""
    return patches.reshape(patches.shape[0], -1, patches.shape[3])


def history_of(patches: jax.Array, count: int) -> jax.Array:
    """The patches before each of [b, n, patch, d]: [b, n, count * patch, d], zeros before all."""
    total = patches.shape[1]
    padded = jnp.pad(patches, ((0, 0), (count, 0), (0, 0), (0, 0)))
    windows = [padded[:, offset : offset + total] for offset in range(count)]
    shape = (*patches.shape[:2], count * patches.shape[2], patches.shape[3])
    return jnp.concatenate(windows, axis=2) if count else jnp.zeros(shape, patches.dtype)
