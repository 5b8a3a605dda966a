# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The container image: what is in it, and when it is built."""

import os
import re
import shutil
import subprocess

import pytest

from tests.support import launching

_REPOSITORY = launching.REPOSITORY
_SETUP = ["setup", *launching.CLUSTER]
_BUILDER = r"""#!/bin/bash
printf '%s ' "${0##*/}" "$@" >>"$FAKE_CLOUD/built" && echo >>"$FAKE_CLOUD/built"
case "$1" in
    info | push) ;;
    build) (cd "${!#}" && find . -type f | sort) >"$FAKE_CLOUD/context" ;;
    *) echo "manifest unknown" && exit 1 ;;
esac
"""


@pytest.fixture
def tree(tmp_path):
    """A small checkout with what does not belong to it."""
    tree = tmp_path / "tree"
    for name in ("launch", "configs"):
        shutil.copytree(launching.ROOT / name, tree / name, ignore=shutil.ignore_patterns("__py*"))
    for name in ("setup.py", "README.md", ".gitignore"):
        shutil.copy(launching.ROOT / name, tree / name)
    for arguments in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tree), *arguments], check=True)
    (tree / "id_rsa").write_text("secret")
    return tree


def _image(tree, *arguments) -> str:
    result = launching.launch(
        *_SETUP,
        f"--image_repository={_REPOSITORY}",
        "--dry-run",
        *arguments,
        script=tree / "launch" / "tpu_train.sh",
        environment={"BUILDER": "docker"},
    )
    assert result.returncode == 0, result.stdout
    return re.search(r"^image: (\S+)$", result.stdout, re.MULTILINE)[1]


def test_an_image_is_named_by_the_content_of_what_is_sent(tree):
    first = _image(tree)
    assert re.fullmatch(rf"{_REPOSITORY}/f3tok_jax:[0-9a-f]{{16}}", first)
    os.utime(tree / "setup.py", (1, 1))
    (tree / "id_rsa").write_text("another secret")
    assert _image(tree) == first
    (tree / "README.md").write_text("changed, not committed")
    changed = _image(tree)
    (tree / "README.md").rename(tree / "READ.md")
    subprocess.run(["git", "-C", str(tree), "add", "-A", "READ.md"], check=True)
    assert len({first, changed, _image(tree)}) == 3


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_an_image_is_built_of_what_goes_to_workers_and_pushed(cloud, tree, name):
    for builder in ("docker", "podman", "buildah"):
        cloud.program(builder, _BUILDER if builder == name else "#!/bin/sh\nexit 1\n")
    cloud.program("gcloud", "#!/bin/sh\necho 'ERROR: NOT_FOUND: no image'\nexit 1\n")
    result = cloud.launch(
        *_SETUP,
        f"--image_repository={_REPOSITORY}",
        script=tree / "launch" / "tpu_train.sh",
        XPK="true",
    )
    assert result.returncode == 0, result.stdout
    image = _image(tree)
    calls = (cloud.folder / "built").read_text().splitlines()
    assert re.fullmatch(
        rf"{name} build --platform linux/amd64 --file \S+ --tag {image} \S+ ", calls[-2]
    )
    assert calls[-1] == f"{name} push {image} "
    context = (cloud.folder / "context").read_text().split("\n")
    assert "./launch/Dockerfile" in context and "./setup.py" in context
    assert "./id_rsa" not in context and not any(".git/" in name for name in context)


def test_an_image_that_is_there_is_not_built(cloud, tree):
    cloud.program("docker", _BUILDER)
    cloud.program("gcloud", "#!/bin/sh\nexit 0\n")
    result = cloud.launch(
        *_SETUP,
        f"--image_repository={_REPOSITORY}",
        script=tree / "launch" / "tpu_train.sh",
        XPK="true",
    )
    assert result.returncode == 0, result.stdout
    assert "is there already" in result.stdout
    assert "build" not in (cloud.folder / "built").read_text()


def test_an_image_that_cannot_be_asked_for_is_not_built(cloud, tree):
    cloud.program("docker", _BUILDER)
    cloud.program("gcloud", "#!/bin/sh\necho no active account\nexit 1\n")
    result = cloud.launch(
        *_SETUP,
        f"--image_repository={_REPOSITORY}",
        script=tree / "launch" / "tpu_train.sh",
        XPK="true",
    )
    assert result.returncode == 1
    assert "cannot be told: no active account" in result.stdout
    assert " build " not in (cloud.folder / "built").read_text()


def test_where_nothing_builds_the_cloud_does(tree):
    result = launching.launch(
        *_SETUP,
        f"--image_repository={_REPOSITORY}",
        "--dry-run",
        script=tree / "launch" / "tpu_train.sh",
        environment={"BUILDER": "gcloud"},
    )
    assert re.search(
        r"^\+ gcloud builds submit \S+\.tar\.gz --config ", result.stdout, re.MULTILINE
    )
    assert f"--substitutions _IMAGE={_REPOSITORY}/f3tok_jax:" in result.stdout


def test_the_dockerfile_installs_as_every_worker_does():
    text = (launching.ROOT / "launch" / "Dockerfile").read_text()
    steps = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert [step[1:] for step in steps if step[0] == "RUN"] == [
        ["bash", "launch/tpu_train.sh", "install"]
    ]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", steps[0][1])
    known = subprocess.run(
        ["git", "-C", str(launching.ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for step in steps:
        if step[0] == "COPY":
            for name in step[1:-1]:
                assert any(name in (".", path) or path.startswith(f"{name}/") for path in known), (
                    name
                )
