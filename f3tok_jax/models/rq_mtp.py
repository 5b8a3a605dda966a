# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Random-quantized multi-token prediction: frozen codes of the frames ahead, and heads for them.

A frame is standardised, multiplied by one frozen matrix and gets, per codebook, the index of the
largest product as its label. Head k predicts the labels k frames ahead. Only the heads train.

Source: F3-Tokenizer (arXiv 2606.06357) Eq. 5; BEST-RQ (arXiv 2202.01855) for the quantizer;
NEST-RQ (arXiv 2409.08680) for several tokens ahead from a causal encoder.
"""

from collections.abc import Mapping, Sequence

from flax import linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models import bottleneck
from f3tok_jax.models import log_normalizer as log_normalizer_lib
from f3tok_jax.signal import spectra

HEADS = ("linear", "bottleneck")

_PRECISION = jax.lax.Precision.HIGHEST
# Of the logits at the start, as a variance: small, so that the first loss is ln(codebook_size).
_INITIAL_VARIANCE = 0.01


def make_codebooks(
    seed: int, *, input_dim: int, num_codebooks: int, codebook_size: int, code_dim: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the frozen projections and codebooks.

    Made on the host by the one generator whose stream NumPy promises never to change, so that a run
    has the same labels on every mesh, platform and version.

    Args:
        seed: of the run.
        input_dim: width of the frames.
        num_codebooks: G, each with a projection of its own.
        codebook_size: V, codes per codebook.
        code_dim: width of a code.

    Returns:
        Projections [G, input_dim, code_dim], Xavier uniform, and codes [G, V, code_dim] of norm 1;
        float64.
    """
    sizes = dict(input_dim=input_dim, num_codebooks=num_codebooks, codebook_size=codebook_size)
    for name, value in (sizes | {"code_dim": code_dim}).items():
        if value < 1:
            raise ValueError(f"{name} of the random quantizer must be at least 1, got {value}")
    draw = np.random.RandomState(seed)
    bound = np.sqrt(6.0 / (input_dim + code_dim))
    projections = draw.uniform(-bound, bound, (num_codebooks, input_dim, code_dim))
    codes = draw.standard_normal((num_codebooks, codebook_size, code_dim))
    return projections, codes / np.linalg.norm(codes, axis=-1, keepdims=True)


def make_table(seed: int, **sizes: int) -> np.ndarray:
    """Returns projections times codes, [input_dim, G * V] float32; arguments of `make_codebooks`.

    With codes of norm 1 the nearest code is the one with the largest product, whatever the norm of
    the projected frame, so that both maps can be multiplied once and for all.
    """
    projections, codes = make_codebooks(seed, **sizes)
    table = np.einsum("gdc,gvc->dgv", projections, codes)
    return table.reshape(table.shape[0], -1).astype(np.float32)


def standardize(
    features: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    *,
    epsilon: float = 1e-5,
    layer_norm: bool = False,
) -> jax.Array:
    """Gives every channel mean 0 and standard deviation 1 over a data set.

    Args:
        features: [b, t, d].
        mean: [d], of the data set, from `finish_statistics`.
        std: [d], likewise.
        epsilon: added to the standard deviation, and to the variance of the layer norm.
        layer_norm: also give every frame mean 0 and rms 1 over its channels.

    Returns:
        [b, t, d] float32.
    """
    features = (features.astype(jnp.float32) - mean[None, None]) / (std[None, None] + epsilon)
    return bottleneck.normalize(features, epsilon=epsilon) if layer_norm else features


def codes_of(features: jax.Array, table: jax.Array, *, num_codebooks: int) -> jax.Array:
    """Labels of standardised frames.

    One float32 product at the highest precision and its largest entries: the same labels on every
    mesh.

    Args:
        features: [b, t, d], from `standardize`.
        table: [d, G * V], from `make_table`.
        num_codebooks: G.

    Returns:
        [b, t, G] int32, below V.
    """
    products = jnp.matmul(features.astype(jnp.float32), table, precision=_PRECISION)
    products = products.reshape(*features.shape[:2], num_codebooks, -1)
    return jax.lax.stop_gradient(jnp.argmax(products, axis=-1).astype(jnp.int32))


def log_mel_frames(
    waveform: jax.Array,
    *,
    sample_rate: int,
    samples_per_latent: int,
    num_mels: int = 80,
    frames_per_latent: int = 4,
) -> jax.Array:
    """Log-mel frames at the rate of the latents: the classic features to quantize instead.

    The window is two and a half hops and centred on its hop, so that a latent's frames hear 3/4 of
    a hop beyond either end of its span: `log_mel_reach` samples.

    Args:
        waveform: [b, n] in [-1, 1], zeros where there is no sound.
        sample_rate: Hz.
        samples_per_latent: samples.
        num_mels: bands.
        frames_per_latent: mel frames, side by side, in one row.

    Returns:
        [b, ceil(n / samples_per_latent), frames_per_latent * num_mels] float32, log10.

    Raises:
        ValueError: if `frames_per_latent` does not divide `samples_per_latent`.
    """
    if samples_per_latent % frames_per_latent:
        raise ValueError(
            f"frames_per_latent={frames_per_latent} must divide the {samples_per_latent} samples "
            "of a latent"
        )
    hop_length = samples_per_latent // frames_per_latent
    waveform = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % samples_per_latent)))
    mel = spectra.mel_spectrogram(
        waveform,
        sample_rate=sample_rate,
        frame_length=5 * hop_length // 2,
        hop_length=hop_length,
        num_mels=num_mels,
    )
    return spectra.log10_mel(mel).reshape(mel.shape[0], -1, frames_per_latent * num_mels)


def log_mel_reach(samples_per_latent: int, *, frames_per_latent: int = 4) -> int:
    """Samples beyond either end of a latent's span that its `log_mel_frames` hear."""
    hop_length = samples_per_latent // frames_per_latent
    return -(-(5 * hop_length // 2 - hop_length) // 2)


def measure_statistics(
    features: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over the valid frames of a batch; add those of all batches on the host, in float64.

    Args:
        features: [b, t, d].
        mask: [b, t], bool, True where a frame is valid.

    Returns:
        Sum [d], sum of squares [d] and number of frames, float32.
    """
    features = jnp.where(mask[..., None], features.astype(jnp.float32), 0.0)
    return (
        jnp.sum(features, axis=(0, 1)),
        jnp.sum(jnp.square(features), axis=(0, 1)),
        jnp.sum(mask, dtype=jnp.float32),
    )


def finish_statistics(sums: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, [d] float32, of added `measure_statistics`.

    Raises:
        ValueError: if there was no valid frame, or the sums are not finite.
    """
    total, squares, count = (np.asarray(value, np.float64) for value in sums)
    if not count > 0 or not np.isfinite(total).all() or not np.isfinite(squares).all():
        raise ValueError(
            f"statistics of the frames to quantize need finite values of at least one valid frame, "
            f"got {int(count)} frames"
        )
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0.0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


@flax.struct.dataclass
class Outcome:
    """How well every head predicted, as sums to divide once after all have been added.

    Attributes:
        loss: [K] float32, cross-entropies summed over frames and codebooks, nats.
        correct: [K] float32, predictions that were right.
        weight: [K] float32, predictions that were asked for; divides either sum.
    """

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array

    def total(self, weight: jax.Array | None = None) -> jax.Array:
        """The loss to train on: the mean over heads of each head's mean, 0 without any target.

        Args:
            weight: [K], of the whole batch where this is a part of it; default its own.
        """
        weight = self.weight if weight is None else weight
        return jnp.mean(self.loss / jnp.maximum(weight, 1.0))

    def metrics(self) -> dict[str, tuple[jax.Array, jax.Array]]:
        """(sum, weight) of loss and accuracy per head: "rq_loss/k1", "rq_accuracy/k1", ..."""
        result = {}
        for k in range(self.loss.shape[0]):
            result[f"rq_loss/k{k + 1}"] = self.loss[k], self.weight[k]
            result[f"rq_accuracy/k{k + 1}"] = self.correct[k], self.weight[k]
        return result


class Heads(nn.Module):
    """K heads on the states of a causal encoder; head k predicts the labels k frames ahead.

    One head's logits exist at a time: they are made again for the gradient, because all of them
    together would be the largest array of the step. What their softmax divides by is kept.
    """

    num_heads: int  # K
    num_codebooks: int  # G
    codebook_size: int  # V
    kind: str = "linear"  # or "bottleneck": RMSNorm and a linear map per k, then one per (k, g)
    bottleneck_dim: int = 512  # of the kind "bottleneck"
    norm_epsilon: float = 1e-6  # of its RMSNorm
    compute_dtype: str = "float32"  # of the products; sums, logits and losses are float32

    @nn.compact
    def __call__(
        self,
        states: jax.Array,
        labels: jax.Array,
        segments: jax.Array,
        is_true: jax.Array | None = None,
    ) -> Outcome:
        """Losses and accuracies of all heads.

        Args:
            states: [b, t, d], of the encoder; a state has seen no frame after its own.
            labels: [b, t, G] int32, from `codes_of`.
            segments: [b, t] int32, which example a frame belongs to, 0 for padding.
            is_true: as `shifted_targets` has it.

        Returns:
            Sums over all positions whose target is k frames ahead in the same segment.
        """
        if self.kind not in HEADS:
            raise ValueError(f"kind of the heads must be one of {HEADS}, got {self.kind!r}")
        targets, valid = shifted_targets(labels, segments, is_true, num_heads=self.num_heads)
        # What stands in padding, NaN included, must not reach a gradient.
        states = jnp.where((segments != 0)[..., None], states, 0.0)
        kept = jax.checkpoint_policies.save_only_these_names(log_normalizer_lib.NAME)
        head = jax.checkpoint(self._one_head, policy=kept)
        _, sums = jax.lax.scan(
            lambda _, inputs: (None, head(states, *inputs)),
            None,
            (self._parameters(states.shape[-1]), targets, valid),
        )
        return Outcome(*sums)

    def _parameters(self, width: int) -> dict[str, jax.Array]:
        """The heads' parameters, stacked over k."""

        def matrix(name: str, shape: tuple[int, ...], axes: tuple, variance: float) -> jax.Array:
            which = dict(in_axis=1, out_axis=tuple(range(2, len(shape))), batch_axis=0)
            init = nn.initializers.variance_scaling(variance, "fan_in", "truncated_normal", **which)
            return self.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)

        count, inner, params = self.num_heads, width, {}
        if self.kind == "bottleneck":
            inner = self.bottleneck_dim
            ones = nn.with_logical_partitioning(nn.initializers.ones, ("layers", "embed"))
            params["norm"] = self.param("norm", ones, (count, width), jnp.float32)
            params["down"] = matrix("down", (count, width, inner), ("layers", "embed", None), 1.0)
        shape = (count, inner, self.num_codebooks, self.codebook_size)
        axes = ("layers", "embed", None, "vocabulary")
        params["output"] = matrix("output", shape, axes, _INITIAL_VARIANCE)
        return params

    def _one_head(
        self, states: jax.Array, params: Mapping[str, jax.Array], targets: jax.Array, valid
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = self._logits(states, params)
        # Compared instead of gathered: codes may be spread over devices, and a gather's gradient is
        # a scatter.
        chosen = targets[..., None] == jnp.arange(self.codebook_size)[None, None, None]
        log_normalizer = log_normalizer_lib.log_normalizer(logits)
        target_logit = jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
        valid = jnp.broadcast_to(valid[..., None], targets.shape)
        loss = jnp.where(valid, log_normalizer - target_logit, 0.0)
        correct = valid & (target_logit >= jnp.max(logits, axis=-1))
        return (
            jnp.sum(loss),
            jax.lax.stop_gradient(jnp.sum(correct, dtype=jnp.float32)),
            jnp.sum(valid, dtype=jnp.float32),
        )

    def _logits(self, states: jax.Array, params: Mapping[str, jax.Array]) -> jax.Array:
        """Logits [b, t, G, V] float32 of one head."""
        dtype = jnp.dtype(self.compute_dtype)
        if self.kind == "bottleneck":
            states = states.astype(jnp.float32)
            mean_square = jnp.mean(jnp.square(states), axis=-1, keepdims=True)
            states *= jax.lax.rsqrt(mean_square + self.norm_epsilon) * params["norm"][None, None]
            down = nn.with_logical_constraint(params["down"], ("embed", None))
            states = jnp.matmul(states.astype(dtype), down.astype(dtype))
        # One head's weights, gathered over the chips that share them.
        output = nn.with_logical_constraint(params["output"], ("embed", None, "vocabulary"))
        states, output = states.astype(dtype), output.astype(dtype)
        logits = jnp.einsum("btd,dgv->btgv", states, output, preferred_element_type=jnp.float32)
        return nn.with_logical_constraint(logits, ("batch", "time", None, "vocabulary"))


def shifted_targets(
    labels: jax.Array,
    segments: jax.Array,
    is_true: jax.Array | None = None,
    *,
    num_heads: int,
) -> tuple[jax.Array, jax.Array]:
    """What each head is to predict, and where.

    Args:
        labels: [b, t, G] int32.
        segments: [b, t] int32, 0 for padding.
        is_true: [b, t] bool, labels that may be targets, as edges.true_frames says; default all.
        num_heads: K.

    Returns:
        Targets [K, b, t, G], the labels k frames ahead, and valid [K, b, t], bool: False where that
        is past the end, in padding, in or behind another segment, or not to be a target.
    """
    length = labels.shape[1]
    targets, valid = [], []
    same = segments != 0
    is_true = jnp.ones(segments.shape, bool) if is_true is None else is_true
    for k in range(1, num_heads + 1):
        ahead = jnp.pad(segments[:, k:], ((0, 0), (0, min(k, length))))
        same &= ahead == segments
        targets.append(jnp.pad(labels[:, k:], ((0, 0), (0, min(k, length)), (0, 0))))
        valid.append(same & jnp.pad(is_true[:, k:], ((0, 0), (0, min(k, length)))))
    return jnp.stack(targets), jnp.stack(valid)


def code_usage(labels: jax.Array, segments: jax.Array, *, codebook_size: int) -> jax.Array:
    """How often each code occurs in valid frames.

    Args:
        labels: [b, t, G] int32.
        segments: [b, t] int32, 0 for padding.
        codebook_size: V.

    Returns:
        [G, V] float32 counts; they add over batches.
    """
    labels = jnp.where((segments != 0)[..., None], labels, -1)
    is_code = labels[..., None] == jnp.arange(codebook_size)[None, None, None]
    return jnp.sum(is_code, axis=(0, 1), dtype=jnp.float32)


def perplexity(usage: jax.Array) -> jax.Array:
    """Codes in use per codebook, [G] float32: exp of the entropy of `usage` [G, V]; 1 if empty."""
    share = usage / jnp.maximum(jnp.sum(usage, axis=-1, keepdims=True), 1.0)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-30)), axis=-1))


def collapse_warning(
    index: int, perplexity: float, *, codebook_size: int, min_share: float = 0.4
) -> str:
    """A sentence for a codebook that is used too little to teach anything; "" for another.

    Args:
        index: of the codebook.
        perplexity: of its codes; of many more frames than codes.
        codebook_size: V.
        min_share: of V that the perplexity should reach.
    """
    if perplexity >= min_share * codebook_size:
        return ""
    return (
        f"codebook {index} of RQ-MTP has collapsed: its codes have perplexity {perplexity:.1f}, "
        f"below {min_share:.0%} of {codebook_size}; check the statistics that standardise its "
        "input, or use fewer codes"
    )
