# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a finished build: every entry, row and sound accounted for, then what to look at.

The numbers are those of the manifests and add up: entries are sounds and what was passed over, rows
are what became of them, sounds are used or refused.
"""

from collections.abc import Iterator, Mapping
import math
import pathlib

from data_pipelines.building import plan as build_plan
from data_pipelines.inputs import listing
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import levels

_MOST_VALUES = 12  # of a label whose hours are said one by one

# Reason -> what is said of sounds that are beyond a limit of levels.noteworthy; the limit is in both
# braces.
_NOTEWORTHY = {
    "clipped": "with over {:.0%} of their samples at full scale: --max_clipped={:g} refuses them",
    "quiet": "below {:g} dBFS: --min_rms_db={:g} refuses them",
    "dc_offset": "off zero by over {:.0%} of full scale: --max_dc={:g} refuses them",
    "narrow": "with nothing above {:.0f} Hz: --min_bandwidth={:g} refuses them",
    "mix_loss": "with more than {:g} dB lost by mixing their channels: use --mono=left, or "
    "--max_mix_loss_db={:g} refuses them",
}


def of(manifests: Mapping[str, manifest.Manifest], output: pathlib.Path, title: str) -> str:
    """Returns the lines on all parts of a build.

    Args:
        manifests: part -> manifest.
        output: folder of the build.
        title: first line.
    """
    contents = list(manifests.values())
    # All parts were listed together.
    skipped, rows = contents[0].skipped, contents[0].rows
    num_sounds = sum(content.num_sources for content in contents)
    num_skipped = sum(skipped.values())
    lines = [title]
    if skipped:
        lines.append(
            f"  {num_sounds + num_skipped} entries: {num_sounds} sounds, {num_skipped} passed over "
            f"({counts(skipped)})"
        )
    if rows:
        of_rows = {name: number for name, number in rows.items() if name != listing.NO_ROW}
        said = counts(of_rows)
        if listing.NO_ROW in rows:
            said += f"; {rows[listing.NO_ROW]} {listing.NO_ROW}"
        lines.append(f"  {sum(of_rows.values())} rows of tables: {said}")
    for name, of_parts in contents[0].sides.items():
        found = ", ".join(f"{count} in {part}" for part, count in of_parts.items())
        lines.append(f"  held out by {name}: {found}, none in both")
    for part, content in manifests.items():
        lines.append(_sounds(part, content))
        indented = _of_part(content, build_plan.part_folder(output, part))
        lines += [f"    {line}" for line in indented]
    return "\n".join(lines)


def counts(numbers: Mapping[str, int]) -> str:
    """Returns "3 silent, 1 quiet" of names to numbers, the largest first."""
    return listing.counted(dict(sorted(numbers.items(), key=lambda pair: (-pair[1], pair[0]))))


def _sounds(part: str, content: manifest.Manifest) -> str:
    return (
        f"  {part}{': ' if part else ''}{content.num_used} of {content.num_sources} sounds used: "
        f"{content.num_records} records, {content.seconds / 3600:.3f} h at {content.sample_rate} Hz"
    )


def _of_part(content: manifest.Manifest, folder: pathlib.Path) -> Iterator[str]:
    if content.refused:
        num_refused = sum(content.refused.values())
        names = folder / manifest.REFUSALS_NAME
        yield f"{num_refused} refused: {counts(content.refused)}; {names} names them"
    if content.kept:
        yield f"kept as far as they are whole, without transcripts: {counts(content.kept)}"
    if content.duplicates:
        yield f"used sounds that have the samples of another one: {content.duplicates}"
    for kind, found in content.texts.items():
        yield (
            f"{kind}s: {found.get('texts', 0)} of {found.get('sounds', 0)} sounds, in "
            f"{found.get('records', 0)} records"
        )
    if content.lost_transcripts:
        # As build_shards rounds it to samples.
        seconds = math.ceil(10 * content.lost_seconds) / 10
        yield (
            f"{sound_records.TRANSCRIPT}s lost with sounds that are longer than a record of "
            f"{content.segment_length / content.sample_rate:g} s and were cut: "
            f"{content.lost_transcripts}; --segment_seconds={seconds:g} keeps all"
        )
    for name, values in content.labels.items():
        yield f"label {name}: {_hours(values, content.hours.get(name, {}))}"
    if content.levels:
        yield f"levels of the records: {_levels(content.levels)}"
    limits = levels.noteworthy(content.sample_rate)
    for reason, number in content.noteworthy.items():
        limit = getattr(limits, levels.REASONS[reason][0])
        yield f"{number} sounds {_NOTEWORTHY[reason].format(limit, limit)}"


def _hours(values: list[str] | None, hours: Mapping[str, float]) -> str:
    if values is None:
        return "too many values to list"
    if len(values) > _MOST_VALUES or not hours:
        return f"{len(values)} values"
    return ", ".join(f"{value} {hours[value]:.3f} h" for value in values)


def _levels(found: Mapping[str, Mapping[str, float]]) -> str:
    """Middle, and where all but a hundredth on either side lie, of the figures that say most."""
    peak, rms, bandwidth = (found[name] for name in ("peak_db", "rms_db", "bandwidth"))
    return (
        f"peak {peak['p50']:g} ({peak['p1']:g} to {peak['p99']:g}) dBFS, rms {rms['p50']:g} "
        f"({rms['p1']:g} to {rms['p99']:g}) dBFS, bandwidth {bandwidth['p50'] / 1000:.1f} "
        f"({bandwidth['p1'] / 1000:.1f} to {bandwidth['p99'] / 1000:.1f}) kHz, at most "
        f"{found['clipped']['max']:.2%} clipped"
    )
