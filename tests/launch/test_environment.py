# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The environment of a worker: what the lock pins, and where its Python comes from."""

import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile

import pytest

from tests.support import launching

_LOCK = launching.ROOT / "launch" / "requirements.lock"
_TPU_SETUP = ["setup", *launching.SLICE]


def _sections() -> dict[str, dict[str, list[str]]]:
    """The hashes of every pin `name==version`, by section."""
    sections = {}
    for line in _LOCK.read_text().splitlines():
        if found := re.match(r"# \[(\w+)\] ", line):
            pins = sections.setdefault(found[1], {})
        elif found := re.fullmatch(
            r"([a-z0-9-]+==[A-Za-z0-9.+!]+)( ; [a-z_]+ [!<>=]+ '\w.*')? \\", line
        ):
            hashes = pins.setdefault(found[1], [])
        elif found := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line):
            hashes.append(found[1])
        else:
            assert line.startswith("# What every worker installs"), line
    return sections


def test_the_lock_pins_every_file_of_what_is_asked_for():
    sections = _sections()
    assert list(sections) == ["core", "tpu", "python"]
    assert all(hashes for pins in sections.values() for hashes in pins.values())
    names = {
        section: {pin.partition("==")[0] for pin in pins} for section, pins in sections.items()
    }
    assert sum(map(len, names.values())) == len(set.union(*names.values()))
    core = re.findall(
        r'^        "([A-Za-z0-9_-]+)>=', (launching.ROOT / "setup.py").read_text(), re.MULTILINE
    )
    assert len(core) > 10
    assert {name.lower().replace("_", "-") for name in core} <= names["core"]
    extras = {"espeakng-loader", "pytest", "pystoi", "tensorboardx", "matplotlib", "scipy"}
    assert extras | {"setuptools"} <= names["core"]
    # Of 3.11's own setuptools, the project cannot be built.
    assert re.search(r"^setuptools==\S+ \\$", _LOCK.read_text(), re.MULTILINE)
    assert {"libtpu", "gcsfs"} <= names["tpu"] and names["python"] == {"uv"}
    assert not {name for name in set.union(*names.values()) if "torch" in name}


@pytest.mark.parametrize("device, sections", [("cpu", ["core"]), ("tpu", ["core", "tpu"])])
def test_what_is_installed_is_the_machines_part_of_the_lock(device, sections, tmp_path, cloud):
    environment = {"VENV": str(tmp_path / "venv"), "HOME": str(tmp_path), "DEVICE": device}
    result = cloud.launch("install", **environment)
    assert result.returncode == 0, result.stdout
    given = (tmp_path / "venv" / "requirements.txt").read_text()
    pins = re.findall(r"^([a-z0-9-]+==[^ ]+)", given, re.MULTILINE)
    assert pins == [pin for section in sections for pin in _sections()[section]]
    assert given.count("--hash=") > len(pins)


@pytest.mark.reliability("R29")
def test_workers_with_python_3_10_bring_their_own(cloud):
    cloud.has_python_3_10()
    (cloud.folder / "state").write_text("ACTIVE")
    result = cloud.launch(*_TPU_SETUP)
    assert result.returncode == 0, result.stdout
    assert "no Python 3.11 here: fetching 3.11." in result.stdout
    assert "2 workers, all with the same packages and code" in result.stdout
    for worker in (0, 1):
        folder = cloud.home(worker) / "f3tok_jax"
        assert (folder / ".venv-python" / "builds" / "bin" / "python3.11").exists()
        assert (folder / ".venv" / "installed").exists()


def test_a_mirror_goes_along_to_the_workers(cloud):
    mirror = "https://mirror/it's $HOME"
    result = cloud.launch(*_TPU_SETUP, "--dry-run", UV_PYTHON_INSTALL_MIRROR=mirror)
    line = next(line for line in result.stdout.splitlines() if "tpu_train.sh install" in line)
    command = next(word for word in shlex.split(line) if word.startswith("--command="))
    assert f"UV_PYTHON_INSTALL_MIRROR={mirror}" in shlex.split(command.removeprefix("--command="))


@pytest.mark.reliability("R29")
def test_workers_that_cannot_fetch_a_python_say_what_is_missing(cloud):
    cloud.has_python_3_10()
    (cloud.folder / "state").write_text("ACTIVE")
    for worker in (0, 1):
        (cloud.home(worker) / "no_pip").touch()
    result = cloud.launch(*_TPU_SETUP)
    assert result.returncode == 1
    assert "install python3-pip, or set PYTHON=" in result.stdout


def test_a_python_that_was_asked_for_is_never_replaced(cloud, tmp_path):
    cloud.has_python_3_10()
    result = cloud.launch("install", PYTHON="python3", VENV=str(tmp_path / "venv"))
    assert result.returncode == 1
    assert "PYTHON must be Python 3.11 or later, got 'python3'" in result.stdout
    assert not (tmp_path / "venv-python").exists()


def _build_of_this_python(folder: pathlib.Path) -> pathlib.Path:
    """Writes an archive of this machine's CPython, and uv's list of builds that has it alone."""
    prefix, version = pathlib.Path(sys.base_prefix), sysconfig.get_python_version()
    archive = folder / "cpython.tar.gz"

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        left_out = {"test", "__pycache__", "site-packages", "dist-packages"}
        return None if left_out & set(member.name.split("/")) else member

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(prefix / "bin" / f"python{version}", f"python/bin/python{version}")
        tar.add(prefix / "lib" / f"python{version}", f"python/lib/python{version}", filter=keep)
        for library in prefix.glob("lib/libpython*"):
            tar.add(library, f"python/lib/{library.name}")
    machine = os.uname().machine
    build = {
        **dict(name="cpython", os="linux", libc="gnu", prerelease="", variant=None, build=None),
        **dict(zip(("major", "minor", "patch"), sys.version_info[:3], strict=True)),
        "arch": {"family": machine, "variant": None},
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    name = f"cpython-{'.'.join(map(str, sys.version_info[:3]))}-linux-{machine}-gnu"
    (folder / "builds.json").write_text(json.dumps({name: build}))
    return folder / "builds.json"


@pytest.mark.slow
def test_the_real_uv_brings_a_python(tmp_path):
    """uv from the package index, and a build from a mirror that is a folder; about 15 s alone."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in "bash sed cat mkdir tail dirname mktemp rm".split():
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exit 1; fi\nexec "{sys.base_prefix}/bin/python3" "$@"\n'
    )
    (tools / "python3").chmod(0o755)
    version = ".".join(map(str, sys.version_info[:3]))
    program = (
        f'source "{launching.ROOT}/launch/common.sh"; '
        f'source "{launching.ROOT}/launch/environment.sh"; PYTHON_VERSION={version}; '
        'make_venv "$(find_python)"; '
        '"$VENV/bin/python" -c "import ctypes, ssl, sys; print(sys.base_prefix)"; '
        '"$VENV/bin/python" -m pip --version'
    )
    kept = {name: text for name, text in os.environ.items() if name.startswith(("PIP", "SSL"))}
    result = subprocess.run(
        ["bash", "-ec", program],
        env={
            **kept,
            **dict(PATH=str(tools), HOME=str(tmp_path), VENV=str(tmp_path / "venv")),
            "UV_PYTHON_DOWNLOADS_JSON_URL": _build_of_this_python(tmp_path).as_uri(),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path}/venv-python/builds/" in result.stdout and "\npip " in result.stdout
