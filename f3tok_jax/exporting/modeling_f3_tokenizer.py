# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer's autoencoder in PyTorch: sound to latents at 25 Hz and back.

    extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    inputs = extractor(waveforms, sampling_rate=model.config.sampling_rate, return_tensors="pt")
    encoded = model.encode(**inputs)
    audio = model.decode(encoded.latents, encoded.padding_mask).audio

Sound is [b, 1, n] in [-1, 1], latents are [b, t, latent_dim] float32. Of a batch that is padded on the
right every row is what it would be alone. A stream gives its chunks one after the other, of any
lengths, with use_cache=True and the padding_cache that the same method gave for the chunk before; the
last with use_cache=False. No gradient passes from chunk to chunk.

This file needs PyTorch and transformers 5 alone. In float32 it computes what f3tok_jax's Autoencoder
does with compute_dtype float32, within rounding; the geometry is SpectroStream's (arXiv 2508.05207),
the bottleneck F3-Tokenizer's (arXiv 2606.06357).
"""

from collections.abc import Mapping
import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils import ModelOutput

_SAME_KERNEL = (3, 3)  # of a stage's convolution without stride

Cache = dict[str, torch.Tensor]


class F3TokenizerConfig(PreTrainedConfig):
    """The geometry of an autoencoder.

    Attributes:
        sampling_rate: Hz.
        hop_length: samples; a frame of the STFT is two hops.
        fold: neighbouring frequency bins that become channels.
        strides: (time, frequency) of each stage of the encoder.
        encoder_channels: input width of each stage; the last is also the output's.
        decoder_channels: the same of the decoder, in the encoder's order.
        compression: exponent of the magnitudes that the network sees and says.
        latent_dim: values per latent.
        decoder_lookahead: latents, 0 or 1, that the decoder sees after its own.
        normalize: whether latents have mean 0 and rms 1.
        epsilon: added to their variance.
        latents_fingerprint: of the weights that made the latents.
    """

    model_type = "f3_tokenizer"

    sampling_rate: int = 16_000
    hop_length: int = 160
    fold: int = 8
    strides: list | tuple = ((1, 2), (1, 2), (2, 1), (2, 1))
    encoder_channels: list | tuple = (32, 64, 64, 96)
    decoder_channels: list | tuple = (32, 64, 64, 96)
    compression: float = 0.5
    latent_dim: int = 32
    decoder_lookahead: int = 1
    normalize: bool = True
    epsilon: float = 1e-5
    latents_fingerprint: str = ""

    @property
    def samples_per_latent(self) -> int:
        return self.hop_length * math.prod([time for time, _ in self.strides])

    @property
    def encoder_lookahead(self) -> int:
        """Samples after a latent's end that it depends on."""
        return self.hop_length

    @property
    def bottom_width(self) -> int:
        """Values per latent between the convolutions and the linear layers, over their channels."""
        return self.hop_length // (self.fold * math.prod([bins for _, bins in self.strides]))


@dataclasses.dataclass
class F3TokenizerOutput(ModelOutput):
    """What encode, decode and forward return.

    Attributes:
        audio: [b, 1, n] float32.
        latents: [b, t, latent_dim] float32.
        padding_mask: of the latents [b, t] or, from decode, of the samples [b, n]; True where valid.
        padding_cache: for the next chunk of a stream.
    """

    audio: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    padding_mask: torch.Tensor | None = None
    padding_cache: Cache | None = None


class _Conv(nn.Conv2d):
    """Over frames and bins [b, c, frames, bins]; it ends with its stride's last frame."""

    cache_name = ""

    def __init__(self, inputs: int, outputs: int, kernel, stride=(1, 1)):
        super().__init__(inputs, outputs, kernel, stride)
        self.past, below = kernel[0] - stride[0], (kernel[1] - 1) // 2
        self.margins = (below, kernel[1] - stride[1] - below)  # bins, below and above

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        x = _with_past(x, self.past, cache, self.cache_name)
        return super().forward(F.pad(x, self.margins))


class _TransposedConv(nn.ConvTranspose2d):
    """Upsamples frames, causally, and bins."""

    cache_name = ""

    def __init__(self, inputs: int, outputs: int, kernel, stride):
        super().__init__(inputs, outputs, kernel, stride)
        self.past, self.margin = (kernel[0] - 1) // stride[0], (kernel[1] - stride[1]) // 2

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        frames, bins = x.shape[2] * self.stride[0], x.shape[3] * self.stride[1]
        y = super().forward(_with_past(x, self.past, cache, self.cache_name))
        first = self.past * self.stride[0]
        return y[:, :, first : first + frames, self.margin : self.margin + bins]


def _with_past(x: torch.Tensor, count: int, cache: Cache | None, name: str) -> torch.Tensor:
    """`x` after the `count` frames before it: zeros, or what the stream's last chunk left."""
    if not count:
        return x
    past = None if cache is None else cache.get(name)
    if past is None:
        past = x.new_zeros(x.shape[0], x.shape[1], count, x.shape[3])
    x = torch.cat([past, x], dim=2)
    if cache is not None:
        cache[name] = _kept(x[:, :, x.shape[2] - count :])
    return x


def _kept(x: torch.Tensor) -> torch.Tensor:
    """What a cache holds: no view of the caller's buffer, and no graph."""
    return x.detach().clone()


class _DensePair(nn.Module):
    """A linear map and, beside it, one with a hidden layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.output(F.elu(self.hidden(x)))


class _DownStage(nn.Module):
    """Convolutions beside a mean over the stride."""

    def __init__(self, inputs: int, outputs: int, strides):
        super().__init__()
        self.strides = tuple(strides)
        self.same = _Conv(inputs, inputs, _SAME_KERNEL)
        self.down = _Conv(inputs, outputs, _kernel(strides), self.strides)
        self.shortcut = _Conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        # As wide as its stride, but its windows begin where a kernel's do: half of it below.
        beside = F.avg_pool2d(F.pad(x, ((self.strides[1] - 1) // 2, 0)), self.strides)
        if self.shortcut is not None:
            beside = self.shortcut(beside, cache)
        return beside + self.down(F.elu(self.same(F.elu(x), cache)), cache)


class _UpStage(nn.Module):
    """The mirror of `_DownStage`: convolutions beside repetition."""

    def __init__(self, inputs: int, outputs: int, strides):
        super().__init__()
        self.strides = tuple(strides)
        self.up = _TransposedConv(inputs, outputs, _kernel(strides), self.strides)
        self.same = _Conv(outputs, outputs, _SAME_KERNEL)
        self.shortcut = _Conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        beside = x if self.shortcut is None else self.shortcut(x, cache)
        for axis, times in enumerate(self.strides, start=2):
            beside = beside.repeat_interleave(times, dim=axis)
        return beside + self.same(F.elu(self.up(F.elu(x), cache)), cache)


class F3TokenizerEncoder(nn.Module):
    """Waveform to latents, of whole frames."""

    def __init__(self, config: F3TokenizerConfig):
        super().__init__()
        self.config = config
        channels = [*config.encoder_channels, config.encoder_channels[-1]]
        width = config.bottom_width * channels[-1]
        self.stem = _Conv(2 * config.fold, channels[0], _edge_kernel(config.fold))
        self.stages = nn.ModuleList(
            _DownStage(channels[i], channels[i + 1], strides)
            for i, strides in enumerate(config.strides)
        )
        self.dense_pair = _DensePair(width, width, config.latent_dim)
        self._analysis = _analysis_matrix(config.hop_length)

    def forward(self, waveform: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """[b, t * samples_per_latent + encoder_lookahead] float32 -> [b, t, latent_dim] float32."""
        config = self.config
        hops = waveform.unflatten(1, (-1, config.hop_length))
        frames = torch.cat([hops[:, :-1], hops[:, 1:]], dim=-1)
        spectrum = _scale_magnitudes(_product(frames, self._analysis), config.compression - 1)
        x = spectrum.unflatten(2, (-1, 2 * config.fold)).permute(0, 3, 1, 2)
        x = self.stem(x.to(self.stem.weight.dtype), cache)
        for stage in self.stages:
            x = stage(x, cache)
        x = self.dense_pair(x.permute(0, 2, 3, 1).flatten(2)).float()
        if not config.normalize:
            return x
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred * torch.rsqrt(variance + config.epsilon)


class F3TokenizerDecoder(nn.Module):
    """Latents to waveform; what it says comes `decoder_lookahead` latents late."""

    def __init__(self, config: F3TokenizerConfig):
        super().__init__()
        self.config = config
        channels = [*config.decoder_channels, config.decoder_channels[-1]]
        width = config.bottom_width * channels[-1]
        self.dense_pair = _DensePair(config.latent_dim, width, width)
        self.stages = nn.ModuleList(  # in the encoder's order
            _UpStage(channels[i + 1], channels[i], strides)
            for i, strides in enumerate(config.strides)
        )
        self.output = _Conv(channels[0], 2 * config.fold, _edge_kernel(config.fold))
        self._synthesis = _synthesis_matrix(config.hop_length)

    def forward(self, latents: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """[b, t, latent_dim] -> [b, t * samples_per_latent] float32."""
        config = self.config
        x = self.dense_pair(latents.to(self.output.weight.dtype))
        x = x.unflatten(2, (config.bottom_width, -1)).permute(0, 3, 1, 2)
        for stage in reversed(self.stages):
            x = stage(x, cache)
        x = self.output(F.elu(x), cache).float()
        spectrum = x.permute(0, 2, 3, 1).flatten(2)
        spectrum = _scale_magnitudes(spectrum, 1 / config.compression - 1)
        frames = _product(spectrum, self._synthesis)
        first, second = frames.split(config.hop_length, dim=-1)
        # The second half of the frame before, in the layout [b, 1, frames, hop].
        before = _with_past(second[:, None], 1, cache, "tail")[:, 0, :-1]
        return (first + before).flatten(1)


class F3TokenizerModel(PreTrainedAudioTokenizerBase):
    """Sound to latents and back."""

    config_class = F3TokenizerConfig
    base_model_prefix = "f3_tokenizer"
    main_input_name = "input_values"

    def __init__(self, config: F3TokenizerConfig):
        super().__init__(config)
        self.encoder = F3TokenizerEncoder(config)
        self.decoder = F3TokenizerDecoder(config)
        for name, module in self.named_modules():
            if isinstance(module, (_Conv, _TransposedConv)):
                module.cache_name = name
        self.post_init()

    def encode(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> F3TokenizerOutput:
        """Latents of sound.

        Args:
            input_values: [b, 1, n] or [b, n], float in [-1, 1] at config.sampling_rate. Zeros are
                appended up to a whole number of latents; in a stream what is left waits for the next
                chunk.
            padding_mask: [b, n], True or 1 where valid, which comes first; None for all.
            padding_cache: of the chunk before; None for a whole sound, or for the first chunk.
            use_cache: more will follow.

        Returns:
            latents, their padding_mask, and with use_cache the padding_cache.

        Raises:
            ValueError: for sound of several channels or in integers, a mask of another shape, or a
                cache of decode or of another batch.
        """
        waveform, mask = _checked_sound(input_values, padding_mask)
        cache = _opened(padding_cache, use_cache, "waveform", waveform.shape[0])
        if padding_cache is not None:
            waveform = torch.cat([padding_cache["waveform"], waveform], dim=1)
            mask = torch.cat([padding_cache["mask"], mask], dim=1)
        hop, ahead = self.config.samples_per_latent, self.config.encoder_lookahead
        if use_cache:
            count = max(0, (waveform.shape[1] - ahead) // hop)
            cache["waveform"] = _kept(waveform[:, count * hop :])
            cache["mask"] = _kept(mask[:, count * hop :])
            waveform, mask = waveform[:, : count * hop + ahead], mask[:, : count * hop]
        else:
            count = -(-waveform.shape[1] // hop)
            missing = count * hop - waveform.shape[1]
            waveform, mask = F.pad(waveform, (0, missing + ahead)), F.pad(mask, (0, missing))
        latents = waveform.new_zeros(waveform.shape[0], 0, self.config.latent_dim)
        if count:
            latents = self.encoder(waveform, cache)
        valid = mask.unflatten(1, (count, hop)).any(dim=-1) if count else mask[:, :0]
        return F3TokenizerOutput(
            latents=latents, padding_mask=valid, padding_cache=cache if use_cache else None
        )

    def decode(
        self,
        latents: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> F3TokenizerOutput:
        """Sound of latents.

        Args:
            latents: [b, t, latent_dim].
            padding_mask: [b, t], True or 1 where valid, which comes first; None for all.
            padding_cache: of the chunk before; None for a whole sequence, or for the first chunk.
            use_cache: more will follow. The sound of a chunk comes decoder_lookahead latents late.

        Returns:
            audio [b, 1, t * samples_per_latent], its padding_mask, and with use_cache the
            padding_cache.

        Raises:
            ValueError: for latents of another width, a mask of another shape, or a cache of encode or
                of another batch.
        """
        latents, mask = _checked_latents(latents, self.config.latent_dim, padding_mask)
        cache = _opened(padding_cache, use_cache, "late", latents.shape[0])
        hop, ahead = self.config.samples_per_latent, self.config.decoder_lookahead
        begins = not cache or "tail" not in cache
        if padding_cache is not None:
            mask = torch.cat([padding_cache["late"], mask], dim=1)
        if use_cache:  # Whether what is not heard yet is valid.
            cache["late"] = _kept(mask[:, max(0, mask.shape[1] - ahead) :])
            mask = mask[:, : max(0, mask.shape[1] - ahead)]
        else:
            latents = F.pad(latents, (0, 0, 0, ahead))
        audio = latents.new_zeros(latents.shape[0], 0, dtype=torch.float32)
        if latents.shape[1]:
            audio = self.decoder(latents, cache)
        if begins:
            audio = audio[:, ahead * hop :]
        return F3TokenizerOutput(
            audio=audio[:, None],
            padding_mask=mask.repeat_interleave(hop, dim=1),
            padding_cache=cache if use_cache else None,
        )

    def forward(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> F3TokenizerOutput:
        """Sound [b, 1, n] -> its reconstruction [b, 1, n], and the latents with their mask."""
        encoded = self.encode(input_values, padding_mask)
        audio = self.decode(encoded.latents, encoded.padding_mask).audio
        return F3TokenizerOutput(
            audio=audio[..., : input_values.shape[-1]],
            latents=encoded.latents,
            padding_mask=encoded.padding_mask,
        )


def _checked_sound(
    input_values: torch.Tensor, padding_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sound and mask, both [b, n]; the sound is zeros where it is not valid."""
    if input_values.ndim == 3 and input_values.shape[1] == 1:
        input_values = input_values[:, 0]
    if input_values.ndim != 2:
        raise ValueError(
            f"input_values must be [b, 1, n] or [b, n], mono, got {tuple(input_values.shape)}: mix "
            "its channels first"
        )
    if not input_values.is_floating_point():
        raise ValueError(
            f"input_values must be float in [-1, 1], got {input_values.dtype}: scale them"
        )
    mask = _checked_mask(padding_mask, input_values)
    return torch.where(mask, input_values.float(), 0.0), mask


def _checked_latents(
    latents: torch.Tensor, latent_dim: int, padding_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and mask [b, t]; the latents are zeros where they are not valid."""
    if latents.ndim != 3 or latents.shape[2] != latent_dim:
        raise ValueError(f"latents must be [b, t, {latent_dim}], got {tuple(latents.shape)}")
    mask = _checked_mask(padding_mask, latents[..., 0])
    return torch.where(mask[..., None], latents, 0.0), mask


def _checked_mask(padding_mask: torch.Tensor | None, masked: torch.Tensor) -> torch.Tensor:
    if padding_mask is None:
        return torch.ones_like(masked, dtype=torch.bool)
    if padding_mask.shape != masked.shape:
        raise ValueError(
            f"padding_mask must be {tuple(masked.shape)}, as what it masks, got "
            f"{tuple(padding_mask.shape)}"
        )
    return padding_mask.bool()


def _opened(
    padding_cache: Mapping[str, torch.Tensor] | None, use_cache: bool, own: str, batch_size: int
) -> Cache | None:
    """A copy to write to; the caller's stays as it is. None for a sound that is no stream."""
    if padding_cache is None:
        return {} if use_cache else None
    if own not in padding_cache or padding_cache[own].shape[0] != batch_size:
        raise ValueError(
            "padding_cache must be what the same method gave for the chunk before, of as many rows "
            f"as here, {batch_size}; got {sorted(padding_cache)}"
        )
    return dict(padding_cache)


def _kernel(strides) -> tuple[int, ...]:
    return tuple(max(3, 2 * stride) for stride in strides)


def _edge_kernel(fold: int) -> tuple[int, int]:
    """Of the first and last convolution: 7 x 7 bins, or 3 x 3 groups of folded ones."""
    return (7, 7) if fold == 1 else (3, 3)


def _product(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """In float32 under autocast, too: in bfloat16 a spectrum is off by 0.4 %, which can be heard."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ matrix.to(x.device)


def _scale_magnitudes(spectrum: torch.Tensor, power: float) -> torch.Tensor:
    """Multiplies the complex bins (real and imaginary side by side) by their magnitude^power."""
    if power == 0:
        return spectrum
    bins = spectrum.unflatten(-1, (-1, 2))
    energy = bins.square().sum(dim=-1, keepdim=True)
    return (bins * (energy + 1e-8) ** (0.5 * power)).flatten(-2)


# Made on the host, whatever device a model is built on, and no parameters: they follow from the hop.
def _analysis_matrix(hop_length: int) -> torch.Tensor:
    """[2 hop, 2 hop] float32: samples of a frame to its windowed spectrum."""
    window = _hann(hop_length)
    matrix = window[:, None] * _cosines(hop_length) / window.square().sum().sqrt()
    return matrix.to(torch.float32)


def _synthesis_matrix(hop_length: int) -> torch.Tensor:
    """[2 hop, 2 hop] float32: spectrum to a frame, whose overlapping sum inverts the analysis."""
    window = _hann(hop_length)
    squares = window.square() + window.roll(hop_length).square()
    doubling = torch.full((2 * hop_length,), 2.0, dtype=torch.float64, device="cpu")
    doubling[:2] = 1.0  # Every bin but DC stands for two of the full transform.
    inverse = (doubling * _cosines(hop_length)).T / (2 * hop_length)
    return (inverse * window.square().sum().sqrt() * window / squares).to(torch.float32)


def _hann(hop_length: int) -> torch.Tensor:
    samples = torch.arange(2 * hop_length, dtype=torch.float64, device="cpu")
    return 0.5 - 0.5 * torch.cos(math.pi * samples / hop_length)


def _cosines(hop_length: int) -> torch.Tensor:
    """[2 hop, 2 hop]: the real and imaginary basis of every bin but Nyquist, interleaved."""
    samples = torch.arange(2 * hop_length, dtype=torch.float64, device="cpu")
    angle = math.pi * torch.outer(samples, samples[:hop_length]) / hop_length
    return torch.stack([torch.cos(angle), -torch.sin(angle)], dim=-1).flatten(1)
