# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Builds of shards in the test's own process, as every other takes a second, and what they left."""

from collections.abc import Sequence
import functools
import json
import pathlib
import sys

import pytest

from data_pipelines import build_shards
from data_pipelines.building import builder
from data_pipelines.building import split
from data_pipelines.building import workers
from data_pipelines.inputs import listing
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from tests.support import sounds

PROGRAM = [sys.executable, "-m", "data_pipelines.build_shards"]


def flags(folder: pathlib.Path, output: pathlib.Path, *more: str) -> list[str]:
    """Returns the program's flags for sounds of a folder at 16 kHz, and two workers."""
    given = ("--source=folder", f"--input={folder}", f"--output={output}")
    return [*given, "--sample_rate=16000", "--num_workers=2", *more]


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Returns the exit code of the program, what it prints, and what it says on stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", functools.partial(_run_here, workers.run))
        code = build_shards.main(arguments)
    return code, *capsys.readouterr()


def _run_here(run_workers, *given, **options):
    return run_workers(*given, **options | {"num_workers": 0})


def build(
    source: listing.Input,
    output: pathlib.Path,
    *,
    fraction: float = 0.0,
    label: str = "",
    num_workers: int = 0,
) -> dict[str, manifest.Manifest]:
    """Builds with the conversion of `sounds`, in silence."""
    holdout, say = split.Holdout(fraction, label), lambda line: None
    conversion = sounds.conversion()
    return builder.build(
        source, output, conversion, holdout=holdout, num_workers=num_workers, say=say
    )


def check_workers(source: listing.Input, output: pathlib.Path) -> None:
    """Of four speakers one is held out whole, in the same bytes with any number of workers."""
    found = []
    for num_workers in (0, 1, 3):
        folder, options = output / str(num_workers), dict(fraction=0.25, label="speaker")
        manifests = build(source, folder, num_workers=num_workers, **options)
        found.append(files(folder))
        assert len(manifests["test"].labels["speaker"]) == 1
        assert len(manifests["train"].labels["speaker"]) == 3
    assert found[0] == found[1] == found[2]


def first_records(folder: pathlib.Path) -> dict[str, sound_records.Record]:
    """Source -> its first record."""
    shard_set = sources.ShardSet(folder)
    found = [shard_set[index] for index in range(len(shard_set))]
    return {record.source: record for record in found if record.offset == 0}


def refusals(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Sound -> reason and detail of its refusal."""
    lines = (folder / manifest.REFUSALS_NAME).read_text().splitlines()
    return {line["path"]: (line["reason"], line["detail"]) for line in map(json.loads, lines)}


def reasons(folder: pathlib.Path) -> dict[str, str]:
    """Sound -> reason of its refusal."""
    return {path: reason for path, (reason, _) in refusals(folder).items()}


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Path below a folder -> content, of every file."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
