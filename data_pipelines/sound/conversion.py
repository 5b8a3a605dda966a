# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""From sound of any rate and number of channels to mono PCM16 at one rate, or a refusal."""

from collections.abc import Iterator
import dataclasses
import fractions
import math

import numpy as np

from data_pipelines.records import pcm16
from data_pipelines.sound import audio_files
from data_pipelines.sound import levels
from data_pipelines.sound import refusals
from data_pipelines.sound import transforms


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How sound becomes records.

    Attributes:
        sample_rate: Hz, of the records.
        segment_length: samples per record at `sample_rate`.
        mono: one of transforms.MONO_POLICIES.
        min_seconds: shorter sound is refused.
        max_seconds: longer sound is refused, from its header where that tells.
        limits: of the levels of a sound.
        keep_damaged: sound that is truncated or damaged is kept as far as it is whole.
    """

    sample_rate: int
    segment_length: int
    mono: str
    min_seconds: float
    max_seconds: float
    limits: levels.Limits = levels.Limits()
    keep_damaged: bool = False

    def meter(self, sound: audio_files.Sound) -> levels.Meter:
        """A meter for the stretches of a sound that become records."""
        length = fractions.Fraction(self.segment_length, self.sample_rate) * sound.sample_rate
        return levels.Meter(full_scale=sound.full_scale, stretch=length)


def pcm16_blocks(
    sound: audio_files.Sound,
    conversion: Conversion,
    counts: dict[str, int],
    meter: levels.Meter | None = None,
) -> Iterator[np.ndarray]:
    """Yields a sound as mono PCM16 at the conversion's rate, in blocks of bounded size.

    Whether the sound is refused is known only when the blocks are exhausted: keep them apart until
    then.

    Args:
        sound: what to read.
        conversion: rate, channel policy and limits.
        counts: "clipped_samples" is added to, and "kept_" with the reason for sound of which only
            the front is kept.
        meter: of the conversion, shown what is read; the limits are not applied here, but for a
            sample that is far beyond full scale.

    Yields:
        [samples], int16.

    Raises:
        refusals.Refused: whatever is wrong with the sound, also what the decoder raised unforeseen.
    """
    try:
        yield from _pcm16_blocks(sound, conversion, counts, meter or conversion.meter(sound))
    except refusals.Refused:
        raise
    except Exception as error:  # One bad file never ends a build, whatever libsndfile makes of it.
        raise refusals.Refused(
            "undecodable", f"{type(error).__name__}: {audio_files.sentence(error)}"
        ) from error


def _pcm16_blocks(
    sound: audio_files.Sound, conversion: Conversion, counts: dict[str, int], meter: levels.Meter
) -> Iterator[np.ndarray]:
    rate = sound.sample_rate
    _check_header(sound, conversion)
    resampler = transforms.Resampler(rate, conversion.sample_rate)
    num_read, num_clipped, num_written = 0, 0, 0
    lowest, highest, is_silent = math.inf, -math.inf, True
    blocks = _whole_or_kept(sound, conversion, counts)
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)
        mono = transforms.to_mono(block, policy=conversion.mono)
        num_read += len(mono)
        if num_read > conversion.max_seconds * rate:
            raise refusals.Refused("too_long", f"more than {conversion.max_seconds:g} s")
        channels = block if conversion.mono == "mean" else mono[:, None]
        peak, block_lowest, block_highest = meter.add(channels, mono)
        if not (math.isfinite(block_lowest) and math.isfinite(block_highest)):
            raise refusals.Refused(
                "not_finite", f"NaN or infinite samples before {num_read / rate:.2f} s"
            )
        check_peak(peak)
        lowest, highest = min(lowest, block_lowest), max(highest, block_highest)
        # A change of rate may overshoot.
        bound = max(block_highest, -block_lowest) if rate == conversion.sample_rate else math.inf
        pcm, clipped = pcm16.from_float(resampler(mono, last=following is None), peak=bound)
        num_clipped += clipped
        if pcm.size:
            num_written += pcm.size
            is_silent = is_silent and not pcm.any()
            yield pcm
        block = following
    if num_read == 0:
        raise refusals.Refused("no_samples", "the header is followed by no samples")
    seconds = num_read / rate
    if seconds < conversion.min_seconds or num_written == 0:
        raise refusals.Refused(
            "too_short", f"{seconds:.4f} s, the limit is {conversion.min_seconds:g} s"
        )
    if lowest == highest or is_silent:
        raise refusals.Refused("silent", f"{seconds:.2f} s in which every sample is the same")
    if num_clipped > num_written // 2:
        detail = f"{num_clipped} of {num_written} samples lie beyond full scale: rescale it"
        raise refusals.Refused("out_of_range", detail)
    counts["clipped_samples"] += num_clipped


def check_peak(peak: float) -> None:
    """Raises refusals.Refused for a sample that no gain could have made, or too much of it."""
    if peak > 10.0 ** (levels.MAX_PEAK_DB / 20.0):
        by = f"a sample is {20.0 * math.log10(peak):.1f} dB beyond full scale"
        raise refusals.Refused("out_of_range", f"{by}: floats must lie in [-1, 1], rescale it")


def _whole_or_kept(
    sound: audio_files.Sound, conversion: Conversion, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    """Yields the blocks of a sound; one that is not whole is refused, or counted as kept."""
    if sound.problem and not conversion.keep_damaged:
        raise sound.problem
    is_empty = True
    try:
        for block in sound.blocks:
            is_empty = False
            yield block
    except refusals.Refused as refusal:
        if is_empty or not conversion.keep_damaged or refusal.reason not in refusals.KEEPABLE:
            raise
        counts[f"kept_{refusal.reason}"] += 1


def _check_header(sound: audio_files.Sound, conversion: Conversion) -> None:
    rate = sound.sample_rate
    if rate < 1:
        raise refusals.Refused("unsupported", f"a sample rate of {rate} Hz")
    if sound.num_frames is not None:
        seconds = sound.num_frames / rate
        if seconds > conversion.max_seconds:
            by = f"{seconds:.0f} s by its header ({sound.num_frames} samples at {rate} Hz)"
            raise refusals.Refused("too_long", f"{by}, the limit is {conversion.max_seconds:g} s")
        if 0 < seconds < conversion.min_seconds:
            limit = f"the limit is {conversion.min_seconds:g} s"
            raise refusals.Refused("too_short", f"{seconds:.4f} s, {limit}")
    audio_files.check_rate(rate)
