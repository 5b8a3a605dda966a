# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""--stage: local folders go into the run's bucket once, and the training is told where they lie."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.support import launching

_GCLOUD = """#!{python}
import json, pathlib, re, shutil, sys
cloud, words = pathlib.Path({cloud!r}), sys.argv[1:]
assert words[:3] == ["storage", "rsync", "--recursive"], words
*flags, source, target = words[3:]
target = cloud / target.removeprefix("gs://")
left_out = [one for flag in flags for one in flag.removeprefix("--exclude=").split(",")]
copied = []
for path in sorted(pathlib.Path(source).rglob("*")):
    name, there = str(path.relative_to(source)), target / path.relative_to(source)
    if path.is_file() and not any(re.match(one, name) for one in left_out) and not there.exists():
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
        copied.append(name)
with open(cloud / "copied", "a") as calls:
    calls.write(json.dumps(copied) + chr(10))
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch) -> pathlib.Path:
    """The folder that buckets lie in; `copied` has a line for every call."""
    cloud = tmp_path / "cloud"
    cloud.mkdir()
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.parent.mkdir()
    gcloud.write_text(_GCLOUD.format(python=sys.executable, cloud=str(cloud)))
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", str(gcloud.parent), prepend=":")
    return cloud


@pytest.fixture
def shards(tmp_path) -> pathlib.Path:
    """A folder of two sets, as far as names go."""
    folder = tmp_path / "my shards"
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
        (folder / part / "manifest.json").write_text(f"of {part}")
        (folder / part / "shard-00000.array_record").write_text("sound")
    (folder / "train" / ".partial").write_text("nothing")
    return folder


def _stage(*folders, workdir="gs://bucket/run") -> subprocess.CompletedProcess:
    program = (
        f'source "{launching.ROOT}/launch/common.sh"; source "{launching.ROOT}/launch/stage.sh"\n'
        'WORKDIR="$1"; shift; TRAIN_ARGUMENTS=(--first); for one in "$@"; do take_stage "$one"; done\n'
        'stage; printf "argument %s\\n" "${TRAIN_ARGUMENTS[@]}"'
    )
    command = ["bash", "-euo", "pipefail", "-c", program, "launcher", workdir, *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _map(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stderr
    first, last = [line for line in result.stdout.splitlines() if line.startswith("argument")]
    assert first == "argument --first"
    return last.removeprefix("argument ")


def _copied(cloud: pathlib.Path) -> list[list[str]]:
    return [json.loads(line) for line in (cloud / "copied").read_text().splitlines()]


def test_a_folder_is_copied_once_manifests_last_and_mapped(cloud, shards):
    mapped = _map(_stage(f"{shards}/"))
    old, _, url = mapped.removeprefix("--map=").partition("=gs://")
    assert old == str(shards) and url.startswith("bucket/run/staged/my_shards-")
    there = cloud / url
    assert {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()} == {
        *("train/manifest.json", "train/shard-00000.array_record"),
        *("test/manifest.json", "test/shard-00000.array_record"),
    }
    assert _copied(cloud)[1] == ["test/manifest.json", "train/manifest.json"]
    assert _map(_stage(shards)) == mapped and _copied(cloud)[2:] == [[], []]


def test_other_content_is_another_folder(cloud, shards):
    named = {_map(_stage(shards))}
    (shards / "train" / "manifest.json").write_text("other sound")
    named.add(_map(_stage(shards)))
    # What no manifest tells of is read.
    (shards / "model.safetensors").write_text("weights")
    named.add(_map(_stage(shards)))
    (shards / "model.safetensors").write_text("WEIGHTS")
    named.add(_map(_stage(shards)))
    (shards / "model.safetensors").rename(shards / "other.safetensors")
    named.add(_map(_stage(shards)))
    assert len(named) == 5


@pytest.mark.parametrize(
    "folder, workdir, words",
    [
        ("nowhere", "gs://bucket/run", "--stage must be a folder of this machine, got"),
        ("a=b", "gs://bucket/run", "--stage must be a folder without ="),
        (".", "/shared/run", "--stage needs a --workdir in a bucket"),
    ],
)
def test_what_cannot_be_staged_is_refused(cloud, tmp_path, folder, workdir, words):
    (tmp_path / "a=b").mkdir()
    result = _stage(tmp_path / folder, workdir=workdir)
    assert result.returncode == 1 and words in result.stderr
    assert not (cloud / "copied").exists()


def test_a_copy_that_fails_ends_the_launch(cloud, shards):
    (cloud / "bucket").write_text("not a folder")
    result = _stage(shards)
    assert (
        result.returncode == 1 and "could not be copied to gs://bucket/run/staged" in result.stderr
    )
