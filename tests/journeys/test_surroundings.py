# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Programs in surroundings that are not as usual: consoles, terminals, disks, shared memory."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from f3tok_jax.runs import saved_states
from tests.support import sounds
from tests.support import toy_run

_ROOT = pathlib.Path(__file__).parents[2]
_SHORT = ("--config.num_steps=8", "--config.loop.sample_every=4")


def _run(command: dict, *before: str, env=None, **options) -> subprocess.CompletedProcess:
    """Runs a program; `before` are the words of a command that runs it."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    arguments = [*before, *command["args"]]
    environment = command["env"] | (env or {})
    return subprocess.run(arguments, env=environment, timeout=300, check=False, **options)


def _toy(shards, workdir, cache, *more: str) -> dict:
    return toy_run.command(shards, workdir, cache, *_SHORT, *more, num_devices=1)


def _is_whole(workdir) -> bool:
    return saved_states.latest_step(str(workdir)) == 8 and (workdir / "DONE").exists()


def _slow(*values: str) -> list:
    """A run each, of what another parameter shows as well: all at once, or from another side."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "| true", *_slow(">&-", ">&- 2>&-")])
def test_a_run_needs_nobody_who_listens(closed, shards, cache, tmp_path):
    command = _toy(shards, tmp_path / "run", cache)
    shell = ["bash", "-c", f'set -o pipefail; "$0" "$@" {closed}']
    ended = _run(command, *shell)
    assert ended.returncode == 0, ended.stderr
    assert _is_whole(tmp_path / "run")


def test_the_program_starts_where_no_error_can_be_written():
    shell = ["sh", "-c", '"$0" -m f3tok_jax.train --help 2>&-', sys.executable]
    ended = subprocess.run(shell, cwd=_ROOT, stdout=subprocess.PIPE, text=True, timeout=300)
    assert ended.returncode == 0 and "--workdir" in ended.stdout


_ASCII = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}


def test_a_console_of_ascii_can_name_every_path(shards, cache, tmp_path):
    there = pathlib.Path(shutil.copytree(shards, tmp_path / "caf\xe9"))
    workdir = tmp_path / "\u0440\u0443\u0441"
    ended = _run(_toy(there, workdir, cache), env=_ASCII | {"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 0, ended.stderr
    assert "caf\\xe9" in ended.stdout and _is_whole(workdir)


def test_a_file_system_of_ascii_reads_every_path_and_refuses_what_it_cannot_write(
    shards, cache, tmp_path
):
    there = pathlib.Path(shutil.copytree(shards, tmp_path / "caf\xe9"))
    variables = _ASCII | {"PYTHONUTF8": "0"}
    ended = _run(_toy(there, tmp_path / "run", cache), env=variables)
    assert ended.returncode == 0, ended.stderr
    assert _is_whole(tmp_path / "run")
    ended = _run(_toy(shards, there / "run", cache), env=variables)
    assert ended.returncode == 1 and "set PYTHONUTF8=1" in ended.stderr
    assert ended.stderr.count("\n") == 1 and not (there / "run").exists()


def test_a_terminal_that_hangs_up_leaves_a_checkpoint(shards, cache, tmp_path):
    command = _toy(shards, tmp_path, cache)
    ended = _run(command, env={"TOY_HANG_UP_AT": "2"})
    assert ended.returncode == 42, ended.stderr
    assert "told to leave: saved step" in ended.stdout
    assert _run(command).returncode == 0 and _is_whole(tmp_path)


def test_under_nohup_a_terminal_may_hang_up(shards, cache, tmp_path):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    command = _toy(shards, tmp_path, cache)
    ended = _run(command, env={"TOY_HANG_UP_AT": "2"}, preexec_fn=ignore)
    assert ended.returncode == 0, ended.stderr
    assert _is_whole(tmp_path)


@pytest.fixture
def namespace():
    """Words that run a shell command with mounts of its own."""
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    try:
        if subprocess.run([*words, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
            raise OSError
    except OSError:
        pytest.skip("this machine lets nobody mount a disk of its own")
    return words


@pytest.mark.parametrize("options", ["size=4k,nr_inodes=1", *_slow("ro")])
def test_shared_memory_is_not_needed(options, namespace, shards, cache, tmp_path):
    shell = f'mount -t tmpfs -o {options} none /dev/shm && exec "$0" "$@"'
    ended = _run(_toy(shards, tmp_path, cache), *namespace, shell)
    assert ended.returncode == 0, ended.stderr
    assert _is_whole(tmp_path) and "not written" not in ended.stdout
    assert list(tmp_path.glob("events.out.tfevents.*"))


def _on_a_small_disk(place: pathlib.Path, size: str) -> str:
    place.mkdir()
    mount = f"mount -t tmpfs -o size={size} none {place}"
    return f'{mount} && "$0" "$@"; code=$?; ls -R {place}; exit $code'


@pytest.mark.reliability("R08")
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_disk_that_others_fill_ends_a_run_with_4(step, namespace, shards, cache, tmp_path):
    place = tmp_path / "disk"
    command = _toy(shards, place / "run", cache, "--config.loop.sample_every=2")
    variables = {"TOY_FILL_AT": str(step), "TOY_FILL": str(place / "others")}
    ended = _run(command, *namespace, _on_a_small_disk(place, "4m"), env=variables)
    assert ended.returncode == 4, ended.stderr
    said = ended.stderr
    assert said.startswith("f3tok_jax.train: ") and said.count("\n") == 1, said
    assert "No space left on device" in said or "free" in said


def test_a_build_on_a_full_disk_is_one_sentence_and_4(namespace, tmp_path):
    files = sounds.write_folder(tmp_path / "sounds", num_files=40)
    place = tmp_path / "disk"
    program = [sys.executable, "-m", "data_pipelines.build_shards", "--source=folder"]
    for workers in (1, 2):
        flags = [f"--input={files}", f"--output={place}/shards", f"--num_workers={workers}"]
        command = {"args": [*program, *flags], "env": {**os.environ, "PYTHONPATH": str(_ROOT)}}
        shutil.rmtree(place, ignore_errors=True)
        ended = _run(command, *namespace, _on_a_small_disk(place, "500k"))
        assert ended.returncode == 4, ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert "No space left on device" in ended.stderr and "manifest.json" not in ended.stdout
