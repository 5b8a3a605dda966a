# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What F3-Tokenizer's modules in PyTorch are given: refused in one sentence where it cannot be meant.

Values are looked at where a program runs by itself; what is traced, compiled or exported is not.
"""

from collections.abc import Mapping, Sequence

import torch

from .autoencoder_f3_tokenizer import Cache

_MOST = 10.0 ** (24 / 20)  # times full scale: above it, sound was not scaled to [-1, 1]


def checked_sound(
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
    mask = checked_mask(padding_mask, input_values)
    sound = torch.where(mask, input_values.float(), 0.0)
    # Of NaN nothing is true.
    if _is_eager() and sound.numel() and not (most := sound.abs().max()) <= _MOST:
        raise ValueError(
            f"input_values must be finite and in [-1, 1], got {most.item():g}: scale them, as integers "
            "of 16 bits by 1 / 32768"
        )
    return sound, mask


def checked_latents(
    latents: torch.Tensor, latent_dim: int, padding_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and mask [b, t]; the latents are zeros where they are not valid."""
    if latents.ndim != 3 or latents.shape[2] != latent_dim:
        raise ValueError(f"latents must be [b, t, {latent_dim}], got {tuple(latents.shape)}")
    mask = checked_mask(padding_mask, latents[..., 0])
    latents = torch.where(mask[..., None], latents, 0.0)
    if _is_eager() and not latents.isfinite().all():
        raise ValueError("latents must be finite, got some that are not: leave them out")
    return latents, mask


def checked_scales(scales: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
    """Scales [b] float32 of the rows of what is scaled, [b, n]."""
    if scales.shape != scaled.shape[:1]:
        raise ValueError(
            f"audio_scales must be [{scaled.shape[0]}], one of each row, got {tuple(scales.shape)}"
        )
    if _is_eager() and not ((scales > 0) & scales.isfinite()).all():
        raise ValueError(f"audio_scales must be finite and above 0, got {scales.tolist()}")
    return scales.to(scaled.device, torch.float32)


def checked_mask(
    mask: torch.Tensor | None, masked: torch.Tensor, name: str = "padding_mask"
) -> torch.Tensor:
    """A mask [b, t] bool of what it masks, all True for None; what is valid comes first."""
    if mask is None:
        return torch.ones_like(masked, dtype=torch.bool)
    if mask.shape != masked.shape:
        raise ValueError(
            f"{name} must be {tuple(masked.shape)}, as what it masks, got {tuple(mask.shape)}"
        )
    mask = mask.bool()
    if _is_eager() and (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(
            f"{name} must be True first and then False, got padding before what is valid"
        )
    return mask


def opened(
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


def check_whole(padding_cache: Mapping[str, torch.Tensor] | None, use_cache: bool) -> None:
    """Raises ValueError for a stream, of a model that hears all of a sound at once."""
    if use_cache or padding_cache is not None:
        raise ValueError(
            "a model that hears through a semantic encoder, which hears all of a sound at once, cannot "
            "stream, got use_cache or a padding_cache: give whole sounds"
        )


def check_rows(batch_size: int, **given: torch.Tensor | None) -> None:
    """Raises ValueError for what has other rows than the text."""
    for name, array in given.items():
        if array is not None and len(array) != batch_size:
            raise ValueError(f"{name} must be of {batch_size} rows, as the text, got {len(array)}")


def check_tensors(missing: Sequence[str], beyond: Sequence[str]) -> None:
    """Raises ValueError for weights that are not those of a config: they would be drawn at random."""
    for problem, names in (("lack", sorted(missing)), ("have beyond it", sorted(beyond))):
        if names:
            listed = ", ".join(names[:4]) + f" and {len(names) - 4} more" * (len(names) > 4)
            raise ValueError(
                f"the weights must be those of config.json, they {problem} {listed}: copy the folder "
                "again"
            )


def _is_eager() -> bool:
    return not torch.compiler.is_compiling()
