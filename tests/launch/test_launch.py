# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The launch scripts: what a dry run prints, and rehearsals against a gcloud made of folders.

The stored outputs under tests/golden/ are rewritten by REWRITE_GOLDEN=1 pytest tests/launch/test_launch.py;
read the difference before you keep it.
"""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import time

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_GOLDEN = _ROOT / "tests" / "golden"
_SCRIPTS = sorted([*_ROOT.glob("launch/*.sh"), _ROOT / "tests" / "run.sh", _ROOT / ".ci" / "run"])
_SLICE = ["--tpu", "demo", "--zone", "zone-a", "--accelerator", "v5litepod-8"]
_RUN = ["--config", "configs/autoencoder.py:base", "--workdir", "gs://bucket/a run"]


def _launch(*arguments, environment=None, timeout=120):
    """Runs tpu_train.sh with nothing of this shell's that could change what it does."""
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "DEVICE": "cpu",
        "TMPDIR": "/tmp",
    }
    return subprocess.run(
        ["bash", str(_ROOT / "launch" / "tpu_train.sh"), *arguments],
        env={**clean, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", "-x", script], check=True, cwd=_ROOT)


def test_help_names_every_flag_and_every_command():
    result = _launch("--help")
    assert result.returncode == 0
    script = (_ROOT / "launch" / "tpu_train.sh").read_text(encoding="utf-8")
    parsed = script[script.index("parse_arguments() {") : script.index("set_option() {")]
    words = set(re.findall(r"--[a-z_-]{2,}", parsed)) - {"--dry_run", "--name", "--help"}
    words |= set(re.findall(r"^ +(create .*)\)$", parsed, re.MULTILINE)[0].split(" | "))
    assert len(words) > 20
    missing = {
        word for word in words if not re.search(rf"(?<![\w-]){word}(?![\w-])", result.stdout)
    }
    assert not missing


@pytest.mark.reliability("R28")
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("main_job", []),
        ("worker", [*_RUN, "--accelerator=v4-32", '--config.note=it\'s "two words"']),
        ("slice", [*_SLICE, *_RUN, "--spot", "--project=some-project"]),
        (
            "two_slices",
            ["all", *_SLICE, *_RUN, "--num_slices=2", "--flags=data_parallel", "--reserved"],
        ),
        ("setup", ["setup", *_SLICE]),
        ("stop", ["stop", *_SLICE, *_RUN]),
        ("delete", ["delete", *_SLICE]),
    ],
)
def test_dry_run_prints_the_stored_commands(name, arguments, tmp_path):
    (tmp_path / "bin").mkdir()
    trap = tmp_path / "bin" / "gcloud"
    trap.write_text("#!/bin/sh\ntouch " + str(tmp_path / "touched") + "\n")
    trap.chmod(0o755)
    result = _launch(
        *arguments, environment={"DRY_RUN": "1", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    )
    assert result.returncode == 0, result.stdout
    assert not (tmp_path / "touched").exists()
    printed = result.stdout.replace(str(_ROOT), "ROOT")
    printed = re.sub(r"^\d\d:\d\d:\d\d", "TIME", printed, flags=re.MULTILINE)
    golden = _GOLDEN / f"launch_{name}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(printed, encoding="utf-8")
    assert printed == golden.read_text(encoding="utf-8")


@pytest.mark.reliability("R28")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workdir", "gs://bucket/run"], "--config is missing"),
        (["--config", "configs/autoencoder.py:base"], "--workdir is missing"),
        (["create", "--zone", "zone-a"], "--tpu is missing"),
        (["--tpu", "demo", *_RUN, "--accelerator", "v4-8"], "--zone is missing"),
        (["--tpu", "demo", "--zone", "zone-a", *_RUN], "--accelerator is missing"),
        ([*_SLICE, "--workdir", "gs://bucket/run"], "--config is missing"),
        ([*_SLICE, "--config", "configs/autoencoder.py:base"], "--workdir is missing"),
        ([*_SLICE, "--config", "c", "--workdir", "runs/here"], "that every worker sees"),
        (["--tpu", "demo", "--zone", "z", "--accelerator", "v9-8", *_RUN], "got 'v9-8'"),
        ([*_RUN, "--accelerator", "v4-8", "--flags", "fast"], "--flags must be one of"),
        ([*_SLICE, *_RUN, "--zone"], "--zone needs a value"),
        (["create", "delete", *_SLICE], "one command at a time"),
        (["creat", *_SLICE], "unknown argument 'creat'"),
    ],
)
def test_what_is_missing_is_said_by_name(arguments, message):
    result = _launch(*arguments, environment={"DRY_RUN": "1"})
    assert result.returncode == 1
    assert message in result.stdout
    assert "+ gcloud" not in result.stdout


def test_nothing_of_anybody_in_the_scripts():
    text = "".join(path.read_text() for path in _ROOT.glob("launch/*.sh"))
    assert not re.search(r"gs://(?!BUCKET|\.\.\.|\* |\*$)[a-z]", text)
    assert "--project=" not in text


class _Cloud:
    """A place where gcloud, python3.11 and hostname are the fakes."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder / "cloud"
        self.folder.mkdir()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        fakes = {
            "gcloud": f'#!/bin/sh\nexec "{sys.executable}" "{_ROOT}/tests/support/fake_gcloud.py" "$@"\n',
            "hostname": '#!/bin/sh\necho "t1v-n-0123-w-${FAKE_HOSTNAME##*-w-}"\n',
            "python3.11": (_ROOT / "tests" / "support" / "fake_python.sh").read_text(),
        }
        for name, text in fakes.items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod((bin_folder / name).stat().st_mode | stat.S_IXUSR)
        self.environment = {
            "FAKE_CLOUD": str(self.folder),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "POLL_SECONDS": "0.3",
            "RETRY_SECONDS": "0",
            "GRACE_SECONDS": "5",
            "TMPDIR": str(folder),
        }

    def launch(self, *arguments, **more):
        return _launch(*arguments, environment={**self.environment, **more})

    def calls(self, verb: str) -> list[list[str]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call[3] == verb]

    def home(self, worker: int, node: str = "demo") -> pathlib.Path:
        home = self.folder / f"{node}-w-{worker}"
        home.mkdir(exist_ok=True)
        return home


@pytest.fixture
def cloud(tmp_path):
    return _Cloud(tmp_path)


@pytest.mark.reliability("R29")
def test_whole_course_hands_over_arguments_exactly(cloud):
    awkward = ['--config.note=it\'s "two words" $HOME `x` \\', "--config.list=(1, 2)"]
    result = cloud.launch(*_SLICE, *_RUN, *awkward)
    assert result.returncode == 0, result.stdout
    assert "2 workers, all with the same packages and code" in result.stdout
    assert "finished: gs://bucket/a run" in result.stdout
    assert "delete --tpu demo --zone zone-a" in result.stdout
    for worker in (0, 1):
        words = (cloud.home(worker) / "train_arguments").read_text().split("\0")[:-1]
        assert words == [
            "-m",
            "f3tok_jax.train",
            "--config=configs/autoencoder.py:base",
            "--workdir=gs://bucket/a run",
            *awkward,
        ]
        log = (
            cloud.home(worker)
            / "f3tok_jobs"
            / "bucket_a_run"
            / f"slice_0000_worker_000{worker}.log"
        )
        assert "ends with 0" in log.read_text()


def test_steps_are_idempotent(cloud):
    for _ in range(2):
        result = cloud.launch("create", *_SLICE)
        assert result.returncode == 0, result.stdout
    assert "demo exists already: ACTIVE" in result.stdout
    assert len(cloud.calls("create")) == 1
    for _ in range(2):
        assert cloud.launch("delete", *_SLICE).returncode == 0
    assert len(cloud.calls("delete")) == 1


@pytest.mark.reliability("R29")
def test_quota_error_is_passed_on(cloud):
    (cloud.folder / "quota").touch()
    result = cloud.launch(*_SLICE, *_RUN)
    assert result.returncode == 1
    assert "Quota limit 'TPUS' has been exceeded" in result.stdout
    assert "could not create demo" in result.stdout
    assert not cloud.calls("ssh")


def test_suspended_slice_is_asked_for_again(cloud):
    (cloud.folder / "state").write_text("SUSPENDED")
    result = cloud.launch("create", *_SLICE, "--spot")
    assert result.returncode == 0, result.stdout
    assert len(cloud.calls("delete")) == 1
    assert "--spot" in cloud.calls("create")[0]


@pytest.mark.reliability("R29")
def test_failed_slice_ends_the_waiting(cloud):
    (cloud.folder / "state").write_text("FAILED")
    result = cloud.launch("wait", *_SLICE)
    assert result.returncode == 1
    assert "demo is FAILED and will not become active" in result.stdout


@pytest.mark.reliability("R29")
def test_copying_is_tried_again(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    (cloud.folder / "scp_failures").write_text("2")
    result = cloud.launch("setup", *_SLICE)
    assert result.returncode == 0, result.stdout
    assert len(cloud.calls("scp")) == 3


def test_workers_with_other_packages_are_refused(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    (cloud.home(1) / "packages").write_text("jax==0.1")
    result = cloud.launch("setup", *_SLICE)
    assert result.returncode == 1
    assert "do not have the same packages" in result.stdout


def _ready(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    assert cloud.launch("setup", *_SLICE).returncode == 0


@pytest.mark.reliability("R29")
def test_a_mistake_is_not_repeated(cloud):
    _ready(cloud)
    (cloud.home(0) / "exit_codes").write_text("134\n")
    (cloud.home(1) / "exit_codes").write_text("3\n")
    result = cloud.launch("run", *_SLICE, *_RUN)
    assert result.returncode == 3
    # The worker that was the cause is named, not the one that lost its peer.
    assert "slice_0000_worker_0001 ended with exit code 3" in result.stdout
    assert "ends with 134" in result.stdout and "ends with 3" in result.stdout
    assert "restart 1" not in result.stdout


@pytest.mark.reliability("R03", "R29")
@pytest.mark.parametrize(
    "code, words",
    [(42, "preempted and saved"), (124, "watchdog"), (134, "worker died"), (137, "out of memory")],
)
def test_accidents_are_restarted(cloud, code, words):
    _ready(cloud)
    (cloud.home(1) / "exit_codes").write_text(f"{code}\n")
    result = cloud.launch("run", *_SLICE, *_RUN)
    assert result.returncode == 0, result.stdout
    assert words in result.stdout
    assert "restart 1 of at most 20" in result.stdout
    assert "finished" in result.stdout


@pytest.mark.reliability("R03")
def test_restarts_have_a_budget(cloud):
    _ready(cloud)
    (cloud.home(0) / "exit_codes").write_text("137\n" * 9)
    result = cloud.launch("run", *_SLICE, *_RUN, "--max_restarts=2")
    assert result.returncode == 137
    assert "2 restarts are used up" in result.stdout


@pytest.mark.reliability("R29")
def test_preempted_slice_is_replaced_and_the_run_resumed(cloud):
    _ready(cloud)
    (cloud.home(0) / "preempt").touch()
    (cloud.home(0) / "exit_codes").write_text("42\n")
    result = cloud.launch("run", *_SLICE, *_RUN, "--spot")
    assert result.returncode == 0, result.stdout
    assert "the slice is gone" in result.stdout
    assert len(cloud.calls("delete")) == 1 and len(cloud.calls("create")) == 1
    assert "finished" in result.stdout


@pytest.mark.reliability("R03")
def test_stop_saves_and_is_not_restarted(cloud):
    _ready(cloud)
    for worker in (0, 1):
        (cloud.home(worker) / "sleep").touch()
    launcher = subprocess.Popen(
        ["bash", str(_ROOT / "launch" / "tpu_train.sh"), "run", *_SLICE, *_RUN],
        env={**os.environ, **cloud.environment, "DEVICE": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    logs = [
        cloud.home(worker) / "f3tok_jobs" / "bucket_a_run" / f"slice_0000_worker_000{worker}.log"
        for worker in (0, 1)
    ]
    _until(lambda: all(log.exists() and "step 1" in log.read_text() for log in logs))
    status = cloud.launch("status", *_SLICE, *_RUN)
    assert status.stdout.count("running") == 2
    assert cloud.launch("stop", *_SLICE, *_RUN).returncode == 0
    printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 43, printed
    assert all("saved" in log.read_text() for log in logs)
    assert "step 1" in cloud.launch("logs", *_SLICE, *_RUN).stdout


def _until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_two_slices_know_their_numbers(cloud):
    result = cloud.launch(*_SLICE, *_RUN, "--num_slices=2")
    assert result.returncode == 0, result.stdout
    create = cloud.calls("create")[0]
    assert create[create.index("--node-count") + 1] == "2"
    for number in (0, 1):
        log = (
            cloud.home(1, f"demo-{number}")
            / "f3tok_jobs"
            / "bucket_a_run"
            / f"slice_000{number}_worker_0001.log"
        )
        assert "ends with 0" in log.read_text()


def test_environment_is_made_once(tmp_path, cloud):
    environment = {**cloud.environment, "VENV": str(tmp_path / "venv"), "HOME": str(tmp_path)}
    first = _launch(*_RUN, environment=environment)
    again = _launch(*_RUN, environment=environment)
    assert first.returncode == again.returncode == 0, first.stdout
    assert "Collecting nothing" in first.stdout
    assert "is up to date" in again.stdout and "Collecting" not in again.stdout


def test_exit_code_of_the_training_is_the_scripts(tmp_path, cloud):
    (tmp_path / "exit_codes").write_text("42\n")
    result = _launch(
        *_RUN,
        environment={**cloud.environment, "VENV": str(tmp_path / "venv"), "HOME": str(tmp_path)},
    )
    assert result.returncode == 42, result.stdout


@pytest.mark.reliability("R28")
@pytest.mark.slow
@pytest.mark.parametrize("flag_set", ["default", "overlap", "data_parallel", "windowed", "debug"])
@pytest.mark.parametrize(
    "generation, topology",
    [("v4", "v4:2x2x1"), ("v5e", "v5e:2x2"), ("v5p", "v5p:2x2x1"), ("v6e", "v6e:2x2")],
)
def test_libtpu_knows_the_flags(generation, topology, flag_set):
    pytest.importorskip("libtpu", reason="the tpu extra is not installed")
    shell = (
        f'source "{_ROOT}/launch/common.sh"; source "{_ROOT}/launch/tpu_generations.sh"; '
        f"tpu_flags {generation} {flag_set}"
    )
    flags = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
    program = (
        "from jax.experimental import topologies\n"
        f"print(len(topologies.get_topology_desc(platform='tpu', topology_name='{topology}').devices))"
    )
    # An unknown flag ends the process and is named.
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_ID": "0",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "LIBTPU_INIT_ARGS": " ".join(flags.split()),
        },
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_lock_file_covers_the_core_with_exact_pins():
    lines = [
        line
        for line in (_ROOT / "launch" / "requirements.lock").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    core = re.findall(
        r'^        "([A-Za-z0-9_-]+)>=', (_ROOT / "setup.py").read_text(), re.MULTILINE
    )
    assert len(core) > 10
    assert {name.lower().replace("_", "-") for name in core} <= pinned
    assert {"espeakng-loader", "pytest", "pystoi", "tensorboardx", "matplotlib", "scipy"} <= pinned
