# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Builds shards, their manifest and refusals from sound files, tars, Parquet, TFDS or corpora.

    python -m data_pipelines.build_shards --source=folder --input=DIR --output=SHARDS --holdout=0.1
    python -m data_pipelines.build_shards --source=debian --input=speech_text --output=SHARDS

--source=debian has real recordings, with texts, languages, speakers and licences, out of packages
that apt fetches once; most are for measuring only, `--input=shippable` is for weights to be shipped.

The same command gives the same bytes, whatever the number of workers. A build that was killed
leaves no manifest, hence nothing that passes for a shard set; the same command then continues it.

Exit codes: 0 finished, 1 wrong arguments or input, 4 a full disk, 42 told to leave
by SIGTERM or SIGHUP (the same command goes on), 130 Ctrl-C; stderr says which.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import os
import sys

from data_pipelines import command
from data_pipelines.building import builder
from data_pipelines.building import split
from data_pipelines.inputs import delimited
from data_pipelines.inputs import embedded
from data_pipelines.inputs import folders
from data_pipelines.inputs import listing
from data_pipelines.inputs import parquet
from data_pipelines.inputs import tfds
from data_pipelines.inputs import webdataset
from data_pipelines.inputs.debian import catalogue
from data_pipelines.inputs.debian import recordings
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import conversion as conversion_lib
from data_pipelines.sound import levels
from data_pipelines.sound import transforms

# --source -> kind of input; its first field is --input, the others have flags of their names.
_INPUTS = {
    "folder": folders.Folder,
    "webdataset": webdataset.Tars,
    "parquet": parquet.Parquet,
    "tfds": tfds.Tfds,
}
# --source -> what is chosen of a list of names; the flags it has.
_CHOSEN = {"embedded": ("num_clips", "hours", "seed"), "debian": ("data_dir",)}
_INPUT_HELP = (
    "folder of sound files; folder, file, glob or 'part-{000..009}' of tars or Parquet files; TFDS "
    "data set; names of corpora; names of sets and packages of Debian, with commas between"
)


def _parser() -> command.Parser:
    parser = command.make_parser("python -m data_pipelines.build_shards", __doc__)
    add = parser.add_argument
    add("--source", required=True, choices=(*_INPUTS, *_CHOSEN), help="kind of input")
    add("--input", type=command.path, default="", help=_INPUT_HELP)
    add("--output", required=True, type=command.path, help="folder of the shard set")
    add("--sample_rate", type=command.at_least(1_000), default=24_000, help="of the records, Hz")
    seconds = command.at_least(0.01, float)
    add("--segment_seconds", type=seconds, default=20.0, help="longest record, s")
    add("--holdout", type=float, default=0.0, help="fraction of the sounds for OUTPUT/test")
    text = "label, such as speaker, whose values go to one side whole; text, transcript or caption "
    text += "for what is said or heard; several with commas between, each on one side whole: the "
    text += "first meets the fraction, and sounds that are on two sides are left out"
    add("--holdout_by", default="", metavar="LABEL,...", help=text)
    seconds = command.at_least(0.0, float)
    add("--min_seconds", type=seconds, default=0.1, help="shorter sounds are refused")
    add("--max_seconds", type=seconds, default=6 * 3600.0, help="longer sounds are refused")
    text = "use sounds that are truncated or damaged as far as they are whole, without transcripts"
    add("--keep_damaged", action="store_true", help=text)
    text = "what becomes of several channels"
    add("--mono", choices=transforms.MONO_POLICIES, default="mean", help=text)
    text = "of texts whose column or ending does not say it: what is said, or what is heard"
    add("--text_kind", choices=sound_records.TEXT_KINDS, default="", help=text)
    add("--num_workers", type=command.at_least(1), default=os.cpu_count(), help="processes")

    text = "levels beyond which a sound is refused, rather than used and said"
    add = parser.add_argument_group(text).add_argument
    not_below_0, level = command.at_least(0.0, float), command.at_least(levels.LEAST_DB, float)
    add("--max_clipped", type=not_below_0, help="share of samples at full scale or beyond")
    add("--min_rms_db", type=level, help="root of the mean square, dBFS")
    add("--max_dc", type=not_below_0, help="mean of the samples, share of full scale")
    add("--min_bandwidth", type=not_below_0, help="frequency that it reaches, Hz")
    add("--max_mix_loss_db", type=not_below_0, help="what mixing the channels loses, dB")
    _add_inputs(parser)
    return parser


def _add_inputs(parser: command.Parser) -> None:
    """Adds the flags that are of some kinds of input alone."""
    not_negative = command.at_least(0)
    add = parser.add_argument_group("--source=folder").add_argument
    text = "glob on relative path or name; repeatable"
    add("--include", action="append", default=[], help=text)
    text = "glob of what is left out; repeatable"
    add("--exclude", action="append", default=[], help=text)
    text = "regular expression; its named groups are labels"
    add("--label_pattern", default="", help=text)
    text = "regular expression; its group 'name' is what tables and sidecars call a sound"
    add("--name_pattern", default="", help=text)
    text = "table of texts and labels, glob of tables, or folder that holds them; repeatable"
    add("--metadata", type=command.path, action="append", default=[], help=text)
    text = "its columns, with _ for what is left out, if it has no header or another is wanted"
    add("--metadata_columns", type=command.values(), default=[], help=text)
    text = "between its columns, where that cannot be told"
    add("--metadata_delimiter", choices=tuple(delimited.MARKS), default="", help=text)
    text = "ending, such as .txt or .lab, or glob of files with the text of one sound; repeatable"
    add("--sidecars", type=command.path, action="append", default=[], help=text)

    add = parser.add_argument_group("--source=parquet, --source=tfds").add_argument
    add("--audio_feature", default="", help="the column or feature that is the sound")

    add = parser.add_argument_group("--source=tfds, --source=debian").add_argument
    text = "where data sets are prepared, default TFDS's own; where packages are kept, default "
    text += "$XDG_CACHE_HOME/f3tok_jax/debian, else ~/.cache/f3tok_jax/debian"
    add("--data_dir", type=command.path, default="", help=text)

    add = parser.add_argument_group("--source=tfds").add_argument
    add("--split", default="train", help="which split")
    add("--source_rate", type=not_negative, default=0, help="Hz, if the data set does not say")

    add = parser.add_argument_group("--source=embedded").add_argument
    add("--num_clips", type=not_negative, default=0, help="clips of each corpus")
    text = "roughly, all corpora together"
    add("--hours", type=command.at_least(0.0, float), default=0.0, help=text)
    add("--seed", type=not_negative, default=0, help="other seeds, other clips")

    text = f"""--input takes sets and packages; PACKAGE/KIND is the {", ".join(catalogue.KINDS)} of one:
{catalogue.described()}"""
    parser.add_argument_group("--source=debian, recordings fetched by apt", text)


def _input_from_flags(values: argparse.Namespace) -> listing.Input:
    kind = _INPUTS.get(values.source)
    of_kinds = {
        name: [field.name for field in dataclasses.fields(_INPUTS[name])[1:]] for name in _INPUTS
    }
    flags = of_kinds | _CHOSEN
    fields = flags[values.source]
    for name in sorted({name for names in flags.values() for name in names} - set(fields)):
        if getattr(values, name) != _parser().get_default(name):
            raise ValueError(f"--{name} is not for --source={values.source}: leave it out")
    given = {name: getattr(values, name) for name in fields}
    given = {name: tuple(value) if type(value) is list else value for name, value in given.items()}
    names = [name.strip() for name in values.input.split(",") if name.strip()]
    if values.source == "debian":
        return recordings.choose(names, say=command.say, **given)
    if values.source == "embedded":
        return embedded.choose(names, sample_rate=values.sample_rate, say=command.say, **given)
    if not values.input:
        raise ValueError(f"--source={values.source} needs --input: {_INPUT_HELP}")
    return kind(values.input, **given)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return command.run(_parser(), _build, arguments, resumes=True)


def _build(values: argparse.Namespace) -> None:
    conversion = conversion_lib.Conversion(
        sample_rate=values.sample_rate,
        segment_length=round(values.segment_seconds * values.sample_rate),
        mono=values.mono,
        min_seconds=values.min_seconds,
        max_seconds=values.max_seconds,
        keep_damaged=values.keep_damaged,
        limits=levels.Limits(
            **{
                field.name: getattr(values, field.name)
                for field in dataclasses.fields(levels.Limits)
            }
        ),
    )
    builder.build(
        _input_from_flags(values),
        values.output,
        conversion,
        holdout=split.Holdout(values.holdout, values.holdout_by),
        num_workers=values.num_workers,
        say=command.say,
    )


if __name__ == "__main__":
    sys.exit(main())
