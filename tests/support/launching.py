# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Calls of the launch scripts: the script itself, and a cloud of folders for it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "tpu_train.sh"
SLICE = ["--tpu", "demo", "--zone", "zone-a", "--accelerator", "v4-16"]
CLUSTER = ["--cluster", "pods", "--zone", "zone-a", "--project", "some-project"]
IMAGE = ["--docker-image", "us-docker.pkg.dev/some-project/repository/f3tok_jax:abc"]
REPOSITORY = "us-docker.pkg.dev/some-project/repository"
RUN = ["--config", "configs/autoencoder.py:base", "--workdir", "gs://bucket/a run"]


def launch(*arguments, environment=None, timeout=120, script=SCRIPT):
    """Runs tpu_train.sh with nothing of this shell's that could change what it does."""
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "DEVICE": "cpu",
        "REHEARSE": "no",  # a compilation of minutes
        "TMPDIR": "/tmp",
    }
    return subprocess.run(
        ["bash", str(script), *arguments],
        env={**clean, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def copy_tree(folder: pathlib.Path) -> pathlib.Path:
    """A copy of what the launch scripts need, that a test may change."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("launch", "configs", "f3tok_jax", "data_pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "setup.py", folder)
    return folder


def make_venv(folder: pathlib.Path) -> pathlib.Path:
    """An environment of the fake Python, to which every launch is well."""
    venv = folder / "fake_venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    # The one module that is really asked needs no environment.
    python.write_text(
        f'#!/bin/sh\nexport REAL_PYTHON="{sys.executable}"\n'
        f'exec bash "{ROOT}/tests/support/fake_python.sh" "$@"\n'
    )
    python.chmod(0o755)
    (venv / "installed").touch()
    return venv


class Cloud:
    """A place where gcloud, python3.11 and hostname are the fakes."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder / "cloud"
        self.folder.mkdir()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        fakes = {
            "gcloud": (
                f'#!/bin/sh\ncd "{ROOT}/tests/support"\n'
                'if [ "$1" = storage ]; then exec sh fake_storage.sh "$@"; fi\n'
                f'exec "{sys.executable}" -S fake_gcloud.py "$@"\n'
            ),
            "hostname": '#!/bin/sh\necho "t1v-n-0123-w-${FAKE_HOSTNAME##*-w-}"\n',
            "python3.11": (ROOT / "tests" / "support" / "fake_python.sh").read_text(),
        }
        self._bin = bin_folder
        for name, text in fakes.items():
            self.program(name, text)
        self.environment = {
            "FAKE_CLOUD": str(self.folder),
            "REAL_PYTHON": sys.executable,
            "VENV": str(
                make_venv(self.folder)
            ),  # not that of this checkout, which would look closely
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "POLL_SECONDS": "0",
            "RETRY_SECONDS": "0",
            "GRACE_SECONDS": "5",
            "TMPDIR": str(folder),
        }

    def program(self, name: str, text: str) -> None:
        (self._bin / name).write_text(text)
        (self._bin / name).chmod(0o755)

    def has_python_3_10(self) -> None:
        """From now on there is no other Python on the workers."""
        for name in ("python3.11", "python3.12", "python3.13", "python"):
            self.program(name, "#!/bin/sh\nexit 127\n")
        self.program("python3", (ROOT / "tests" / "support" / "fake_python.sh").read_text())

    def launch(self, *arguments, script=SCRIPT, **more):
        return launch(*arguments, environment={**self.environment, **more}, script=script)

    def calls(self, verb: str) -> list[list[str]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [call[call[0] == "alpha" :] for call in map(json.loads, lines)]
        return [call for call in calls if call[0] == "compute" and call[3] == verb]

    def bucket(self, path: str = "bucket/a run") -> pathlib.Path:
        """The folder that stands for gs://PATH."""
        return self.folder / "buckets" / path

    def home(self, worker: int, node: str = "demo") -> pathlib.Path:
        home = self.folder / f"{node}-w-{worker}"
        home.mkdir(exist_ok=True)
        return home


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
