# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""FLOPs that no implementation of an autoencoder and its discriminators can do without.

Multiplications and additions of the products with weights, of one sound: of a kernel those taps that
meet it, and neither padding nor the zeros by which a formulation makes its shapes equal. Spectra are
left out: they have no weights, and a fast Fourier transform makes a product of them unnecessary.
"""

from collections.abc import Sequence
import dataclasses
import math

from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import semantic_autoencoder
from f3tok_jax.models import semantic_coder
from f3tok_jax.models import semantic_encoder
from f3tok_jax.models import vocos_decoder as vocos_lib
from f3tok_jax.models.discriminators import bands as bands_lib
from f3tok_jax.models.discriminators import dac
from f3tok_jax.models.discriminators import frequencies
from f3tok_jax.models.transformer import transformer


@dataclasses.dataclass(frozen=True)
class Forward:
    """Of one pass forward.

    Attributes:
        first: of the layers that read the input itself, to which a gradient need not go back.
        others: of all other layers.
    """

    first: float
    others: float

    @property
    def total(self) -> float:
        return self.first + self.others


def halves(
    model: autoencoder_lib.Autoencoder | semantic_coder.SemanticCoder, latents: int
) -> tuple[Forward, Forward]:
    """Of so many latents, encoder and decoder, without what is frozen."""
    if isinstance(model, semantic_coder.SemanticCoder):
        return acoustic_half(model.autoencoder, latents), vocos_decoder(model.autoencoder, latents)
    return encoder(model, latents), decoder(model, latents)


def frozen(
    model: autoencoder_lib.Autoencoder | semantic_coder.SemanticCoder, latents: int
) -> float:
    """Of so many latents, of one sound, through what is frozen: all that the semantic half is of."""
    if not isinstance(model, semantic_coder.SemanticCoder):
        return 0.0
    own, total = model.autoencoder, 0.0
    if own.fusion == "latents":
        total += 2.0 * latents * own.bottleneck_dim * (own.feature_dim + own.latent_dim)
    features = -(-latents * model.samples_per_latent // model.encoder.samples_per_feature)
    return total + _features(model.encoder, features)


def _features(model: semantic_encoder.SemanticEncoder, features: int) -> float:
    """Of so many features, which see those of their chunk."""
    names = ("num_layers", "width", "num_heads", "remat", "compute_dtype")
    blocks = semantic_encoder.make_transformer(**{name: getattr(model, name) for name in names})
    whole, rest = divmod(features, model.max_patches)
    total = 2.0 * features * model.num_mels * model.patch_frames * model.width
    total += whole * sum(transformer.forward_flops(blocks, model.max_patches))
    return total + (sum(transformer.forward_flops(blocks, rest)) if rest else 0.0)


def encoder(model: autoencoder_lib.Autoencoder, latents: int) -> Forward:
    """Of so many latents, from the spectrum on."""
    frames, bins = latents * model.hops_per_latent, model.hop_length // model.fold
    widths = (*model.encoder_channels, model.encoder_channels[-1])
    stem = (
        _conv((frames, bins), autoencoder_lib.edge_kernel(model.fold)) * 2 * model.fold * widths[0]
    )
    total = 0.0
    for strides, width, following in zip(model.strides, widths, widths[1:]):
        total += _conv((frames, bins), autoencoder_lib.SAME_KERNEL) * width * width
        frames, bins = frames // strides[0], bins // strides[1]
        kernel = autoencoder_lib.kernel_of(strides)
        total += _conv((frames, bins), kernel, strides) * width * following
        total += (following != width) * frames * bins * width * following
    bottom = bins * widths[-1]
    encoded = model.bottleneck.encoder_dim(model.latent_dim)
    total += latents * _dense_pair(bottom, bottom, encoded)
    return Forward(2.0 * stem, 2.0 * total)


def decoder(model: autoencoder_lib.Autoencoder, latents: int) -> Forward:
    """Of so many latents, to the spectrum; those before them, which are dropped, not counted."""
    reductions = [math.prod(pair[axis] for pair in model.strides) for axis in (0, 1)]
    frames, bins = latents, model.hop_length // model.fold // reductions[1]
    widths = (*model.decoder_channels, model.decoder_channels[-1])
    bottom, total = bins * widths[-1], 0.0
    total += latents * bottom * bottom
    stages = list(zip(model.strides, widths, widths[1:]))
    for strides, width, before in reversed(stages):
        total += (before != width) * frames * bins * before * width
        total += _conv((frames, bins), autoencoder_lib.kernel_of(strides), strides) * before * width
        frames, bins = frames * strides[0], bins * strides[1]
        total += _conv((frames, bins), autoencoder_lib.SAME_KERNEL) * width * width
    edge = autoencoder_lib.edge_kernel(model.fold)
    total += _conv((frames, bins), edge) * widths[0] * 2 * model.fold
    return Forward(2.0 * 2 * latents * model.latent_dim * bottom, 2.0 * total)


def acoustic_half(model: semantic_autoencoder.SemanticAutoencoder, latents: int) -> Forward:
    """Of so many latents, from the mel spectrum to what the bottleneck hears; the semantic half, which is
    frozen, not counted."""
    patch = latents * model.num_mels * model.patch_frames * model.feature_dim
    if model.fusion == "features":
        return Forward(2.0 * patch, 0.0)
    width, said = model.latent_dim, model.bottleneck.encoder_dim(model.latent_dim)
    return Forward(2.0 * patch, 2.0 * latents * width * (model.feature_dim + said))


def vocos_decoder(model: semantic_autoencoder.SemanticAutoencoder, latents: int) -> Forward:
    """Of so many latents, to the spectrum."""
    width, hidden = model.decoder_width, model.decoder_hidden_width
    frames = latents * model.samples_per_latent // model.decoder_hop_length
    met = pairs(frames, vocos_lib.KERNEL, 1, vocos_lib.KERNEL // 2)
    total = met * width * width
    total += model.decoder_blocks * (met * width + frames * 2 * width * hidden)
    total += frames * width * 2 * (model.decoder_frame_length // 2 + 1)
    return Forward(2.0 * frames * model.latent_dim * width, 2.0 * total)


def discriminators(config, num_samples: int) -> Forward:
    """Of one sound of so many samples; `config` has the fields of Discriminators."""
    by_kind = {
        "folded": (_folded_period, _folded_bands),
        "dac": (_dac_period, _dac_bands),
        "multi_frequency": (None, _multi_frequency),
    }
    of_period, of_bands = by_kind[config.kind]
    periods = config.periods if of_period else ()
    parts = [of_period(config, period, num_samples) for period in periods]
    parts += [of_bands(config, window, num_samples) for window in config.stft_windows]
    return Forward(2.0 * sum(first for first, _ in parts), 2.0 * sum(others for _, others in parts))


def _conv(coarse: tuple[int, int], kernel: Sequence[int], strides: Sequence[int] = (1, 1)) -> int:
    """Pairs of an output and a tap that meet the input, of a causal convolution over (time,
    frequency) to `coarse` positions, or of a transposed one from them."""
    low = (kernel[0] - strides[0], (kernel[1] - strides[1]) // 2)
    return math.prod(map(pairs, coarse, kernel, strides, low))


def pairs(outputs: int, taps: int, stride: int, low: int, inputs: int = 0) -> int:
    """Pairs of an output and a tap that meet the input along one axis.

    Args:
        outputs: positions.
        taps: of the kernel.
        stride: between the inputs of two neighbouring outputs.
        low: zeros before the input.
        inputs: positions of it; 0 for outputs * stride.
    """
    inputs = inputs or outputs * stride
    firsts = range(-low, outputs * stride - low, stride)
    return sum(max(0, min(first + taps, inputs) - max(first, 0)) for first in firsts)


def _dense_pair(width: int, hidden: int, output: int) -> float:
    return width * hidden + hidden * output + width * output


def _folded_period(config, period: int, num_samples: int) -> tuple[float, float]:
    fold, widths = config.period_fold, config.period_channels
    steps = -(-num_samples // (period * fold))
    blocks = -(-steps // 3)
    first = period * pairs(steps, 5, 1, 2) * fold * widths[0]
    others = period * steps * widths[0] * widths[1]
    joined = period * pairs(blocks, 3, 1, 1)
    others += joined * sum(one * two for one, two in zip(widths[1:], [*widths[2:], 1]))
    return first, others


def _folded_bands(config, window: int, num_samples: int) -> tuple[float, float]:
    frames = -(-num_samples * bands_lib.HOPS_PER_WINDOW // window)
    fold, width = config.stft_fold, config.stft_channels
    edges = bands_lib.band_edges(config.stft_bands, num_groups=window // 2 // fold)
    groups = [high - low for low, high in zip(edges, edges[1:])]
    over_frames = pairs(frames, 3, 1, 1)
    first = over_frames * sum(pairs(size, 3, 1, 1) for size in groups) * 2 * fold * width
    half, blocks = -(-frames // 2), [-(-size // 2) for size in groups]
    others = frames * sum(groups) * width * width
    over_frames = pairs(half, 3, 1, 1)
    others += over_frames * sum(pairs(size, 3, 1, 1) for size in blocks) * width * width
    return first, others + over_frames * pairs(sum(blocks), 3, 1, 1) * width


def _dac_period(config, period: int, num_samples: int) -> tuple[float, float]:
    steps, widths = -(-num_samples // period), (1, *config.period_channels)
    products = []
    for layer, (width, following) in enumerate(zip(widths, widths[1:])):
        stride = dac.PERIOD_STRIDE if layer < len(config.period_channels) - 1 else 1
        outputs = (steps - 1) // stride + 1
        taps = dac.PERIOD_KERNEL
        products.append(period * pairs(outputs, taps, stride, taps // 2, steps) * width * following)
        steps = outputs
    logits = period * pairs(steps, 3, 1, 1) * widths[-1]
    return products[0], sum(products[1:]) + logits


def _dac_bands(config, window: int, num_samples: int) -> tuple[float, float]:
    frames = -(-num_samples * bands_lib.HOPS_PER_WINDOW // window)
    edges = bands_lib.band_edges(config.stft_bands, num_groups=window // 2)
    first = others = 0.0
    total = 0
    for bins in (high - low for low, high in zip(edges, edges[1:])):
        width = 2
        for kernel, stride in zip(dac.STFT_KERNELS, dac.STFT_STRIDES):
            outputs = (bins - 1) // stride + 1
            met = pairs(frames, kernel[0], 1, kernel[0] // 2)
            met *= pairs(outputs, kernel[1], stride, kernel[1] // 2, bins)
            product = met * width * config.stft_channels
            first, others = (product + first, others) if width == 2 else (first, others + product)
            width, bins = config.stft_channels, outputs
        total += bins
    return first, others + pairs(frames, 3, 1, 1) * pairs(total, 3, 1, 1) * config.stft_channels


def _multi_frequency(config, window: int, num_samples: int) -> tuple[float, float]:
    sizes = [-(-num_samples * bands_lib.HOPS_PER_WINDOW // window), window // 2]
    following = [*frequencies.widths(window, config.stft_channels), 1]
    products, width = [], 2
    for after, stride in zip(following, [*frequencies.STRIDES, 1]):
        outputs = [-(-size // stride) for size in sizes]
        met = math.prod(pairs(one, 3, stride, 1, two) for one, two in zip(outputs, sizes))
        products.append(met * width * after)
        width, sizes = after, outputs
    return products[0], sum(products[1:])
