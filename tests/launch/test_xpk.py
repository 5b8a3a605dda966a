# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs on a GKE cluster: what xpk is asked for, and what the real one makes of it.

The real xpk pins what our lock pins otherwise, so it has an environment of its own; tests/run.sh --slow
makes it, or by hand:

    python -m venv /tmp/xpk && /tmp/xpk/bin/pip install xpk==1.16.0
    F3TOK_XPK=/tmp/xpk/bin/xpk pytest tests/launch/test_xpk.py
"""

import pathlib
import re
import signal
import subprocess

import pytest
import yaml

from tests.support import launching

_WHOLE = [*launching.CLUSTER, *launching.IMAGE, "--accelerator", "v5e-16"]
_RESTARTED = {42, 124, 129, 130, 134, 137, 143}
_PAYLOADS = [
    "two words",
    'it\'s "quoted"',
    "$HOME $(HOME) $$ $$(HOME) ${HOME} $((1 + 1)) `id`",
    "$(touch CANARY) ; touch CANARY & # {SLICE} {args} {{x}} %s ~ * ? [a] \\ \\\\ \\$(HOME)",
    "a line\nanother with $(HOME) and $$\n\ttabs and é\n",
    "- yaml: [x] | > 'y'",
    "-oProxyCommand=touch CANARY",
    "",
]


@pytest.fixture
def cluster(cloud):
    """A cloud with a cluster: xpk is a fake."""
    cloud.program("xpk", (launching.ROOT / "tests" / "support" / "fake_xpk.sh").read_text())
    return cloud


def _calls(cloud, verb: str) -> list[list[str]]:
    path = cloud.folder / "xpk_calls"
    text = path.read_text() if path.exists() else ""
    calls = [call.split("\0") for call in text.split("\0\0")[:-1]]
    return [call for call in calls if call[1] == verb]


def _name(*arguments: str) -> str:
    result = launching.launch("status", *launching.CLUSTER, *arguments, "--dry-run")
    assert result.returncode == 0, result.stdout
    return re.search(r"--filter-by-job (\S+)", result.stdout).group(1)


def test_a_run_is_one_workload_whoever_asks_again(cluster):
    first = cluster.launch("run", *_WHOLE, *launching.RUN, "--spot", "--priority=low")
    again = cluster.launch("run", *_WHOLE, *launching.RUN, "--spot", "--priority=low")
    assert first.returncode == again.returncode == 0, first.stdout + again.stdout
    (call,) = _calls(cluster, "create")
    for words in (
        ["--tpu-type", "v5litepod-4x4", "--num-slices", "1", "--spot"],
        ["--priority", "low"],
        ["--max-restarts", "20"],
        ["--termination-grace-period-seconds", "5"],
        ["--cluster", "pods"],
    ):
        at = call.index(words[0])
        assert call[at : at + len(words)] == words
    assert "exists already" in again.stdout


@pytest.mark.parametrize(
    "message, created, said",
    [
        ("jobset completed successfully", 0, "has finished"),
        ("jobset failed due to reaching max number of restarts", 1, "has failed"),
        ("applying FailJobSet failure policy action (first failed job: x)", 1, "has failed"),
    ],
)
def test_what_has_ended_is_started_again_only_where_it_failed(cluster, message, created, said):
    name = _name(*launching.RUN)
    (cluster.folder / "workloads").write_text(
        f"{name}   t   medium   4   4   4   Finished   {message}   t\n"
    )
    result = cluster.launch("run", *_WHOLE, *launching.RUN)
    assert result.returncode == 0, result.stdout
    assert said in result.stdout
    assert len(_calls(cluster, "create")) == len(_calls(cluster, "delete")) == created


def test_another_run_is_never_taken_for_this_one(cluster):
    name = _name(*launching.RUN)
    (cluster.folder / "workloads").write_text(
        f"{name}-2   t   medium   4   4   4   Admitted   there   t\n"
    )
    assert cluster.launch("run", *_WHOLE, *launching.RUN).returncode == 0
    assert len(_calls(cluster, "create")) == 1


@pytest.mark.parametrize("code", [0, 124, 125, 1])
def test_the_end_of_the_workload_is_that_of_the_command(cluster, code):
    (cluster.folder / "xpk_ends").write_text(str(code))
    result = cluster.launch(*_WHOLE, *launching.RUN)
    assert result.returncode == code, result.stdout
    assert len(_calls(cluster, "create")) == 1
    assert "waits for chips and trains by itself" in result.stdout
    assert "+ bash launch/tpu_train.sh delete --zone zone-a" in result.stdout


@pytest.mark.parametrize("command", ["stop", "delete"])
def test_a_workload_is_deleted_by_its_work_folder(cluster, command):
    cluster.launch("run", *_WHOLE, *launching.RUN)
    result = cluster.launch(command, *launching.CLUSTER, *launching.RUN)
    assert result.returncode == 0, result.stdout
    assert (cluster.folder / "workloads").read_text() == ""


@pytest.mark.parametrize("verb", ["list", "create"])
def test_a_failure_of_xpk_is_passed_on_in_a_sentence(cluster, verb):
    (cluster.folder / "xpk_fails").write_text(verb)
    result = cluster.launch("run", *_WHOLE, *launching.RUN)
    assert result.returncode == 1
    assert "[XPK] XPK failed" in result.stdout
    said = [line for line in result.stdout.splitlines() if line.startswith("tpu_train.sh: ")]
    assert len(said) == 1
    # What xpk has failed to create may be there all the same.
    assert ("may be there; if it is:" in result.stdout) == (verb == "create")
    assert len(_calls(cluster, "create")) == (verb == "create")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*_WHOLE, *launching.RUN], "xpk is not installed: pip install xpk=="),
        ([*_WHOLE, *launching.RUN, "--tpu=demo"], "--tpu and --cluster are two ways"),
        ([*_WHOLE, *launching.RUN, "--backend=gke"], "--backend must be local, tpu or xpk"),
        ([*launching.RUN, "--backend=xpk", "--zone=z"], "--cluster is missing"),
        ([*launching.RUN, "--backend=tpu", "--zone=z"], "--tpu is missing"),
        (
            [*launching.CLUSTER, *launching.IMAGE, *launching.RUN, "--dry-run"],
            "--accelerator is missing",
        ),
        ([*_WHOLE, *launching.RUN[2:], "--dry-run"], "--config is missing"),
        ([*_WHOLE, *launching.RUN, "--workdir=runs/a", "--dry-run"], "that every worker sees"),
        ([*_WHOLE, *launching.RUN, "--reserved", "--dry-run"], "--reservation NAME"),
        ([*_WHOLE, *launching.RUN, "--priority=urgent"], "--priority must be"),
        (
            [*launching.CLUSTER, "--accelerator=v5e-16", *launching.RUN, "--dry-run"],
            "--image_repository is missing",
        ),
        (["create", *_WHOLE, *launching.RUN, "--dry-run"], "xpk cluster create"),
        ([*_WHOLE, *launching.RUN, "--accelerator=v5e-4", "--dry-run"], "v5litepod-2x2"),
    ],
)
def test_what_is_missing_is_said_by_name(arguments, message):
    result = launching.launch(*arguments, environment={"XPK": "/nowhere/xpk"})
    assert result.returncode == 1, result.stdout
    assert message in result.stdout
    assert " workload create" not in result.stdout


@pytest.mark.parametrize("value", ["$(touch CANARY)", "a: b\nc: d", "'"])
@pytest.mark.parametrize(
    "name",
    [
        "backend",
        "cluster",
        "image_repository",
        "docker-image",
        "priority",
        "reservation",
        "storage",
    ],
)
def test_what_goes_into_a_manifest_is_held_to_its_form(name, value):
    result = launching.launch(*_WHOLE, *launching.RUN, f"--{name}={value}", "--dry-run")
    assert result.returncode == 1, result.stdout
    assert f"--{name} must be" in result.stdout
    assert "+ " not in result.stdout


def test_names_are_labels_and_of_one_work_folder_each():
    folders = [
        "gs://bucket/a/run",
        "gs://bucket/b/run",
        "gs://bucket/RUN",
        "gs://b/7 days é/",
        "/x",
    ]
    arms = [f"gs://bucket/sweep/gamma={gamma},width=64" for gamma in ("0.5", "1.0", "1.5")]
    names = [_name("--workdir", folder) for folder in [*folders, *arms]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,26}[a-z0-9])?", name) for name in names), names
    assert names[0].startswith("run-") and names[5].startswith("gamma-0-5")
    assert _name("--workdir", "gs://bucket/a/run//") == names[0]


def test_a_cluster_restarts_what_the_table_says():
    table = (launching.ROOT / "launch" / "README.md").read_text()
    rows = re.findall(r"^\| ([0-9, ]+) \| [^|]+ \| (starts again|as 42)", table, re.MULTILINE)
    codes = {int(code) for row, _ in rows for code in row.split(",")}
    assert codes == _RESTARTED


# The real xpk.


def _manifest(real_xpk, cloud, *arguments) -> dict:
    result = cloud.launch(
        "run", *_WHOLE, *launching.RUN, *arguments, XPK=str(real_xpk), GRACE_SECONDS="120"
    )
    assert result.returncode == 0, result.stdout
    return yaml.safe_load((real_xpk.parent / "manifest.yaml").read_text())


def _pod(manifest: dict) -> tuple[dict, dict, dict]:
    """The JobSet's only job, its pod and the pod's only container."""
    (job,) = manifest["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return job, pod, container


@pytest.mark.slow
@pytest.mark.parametrize("num_slices", [1, 2])
@pytest.mark.parametrize(
    "accelerator, pods, chip, topology",
    [
        ("v4-32", 4, "tpu-v4-podslice", "2x2x4"),
        ("v5e-16", 4, "tpu-v5-lite-podslice", "4x4"),
        ("v5p-128", 16, "tpu-v5p-slice", "4x4x4"),
        ("v6e:8x8", 16, "tpu-v6e-slice", "8x8"),
        ("tpu7x-32", 4, "tpu7x", "2x2x4"),
    ],
)
def test_the_real_xpk_accepts_each_generation(
    real_xpk, cloud, accelerator, pods, chip, topology, num_slices
):
    manifest = _manifest(
        real_xpk,
        cloud,
        f"--accelerator={accelerator}",
        f"--num_slices={num_slices}",
        "--priority=high",
    )
    job, pod, container = _pod(manifest)
    spec = job["template"]["spec"]
    assert manifest["metadata"]["name"] == _name(*launching.RUN)
    assert job["replicas"] == num_slices
    assert spec["parallelism"] == spec["completions"] == pods
    assert spec["backoffLimit"] == 0
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == chip
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["image"] == launching.IMAGE[1]
    assert pod["priorityClassName"] == "high"
    assert pod["terminationGracePeriodSeconds"] == 120
    # What is not among the codes fails the job, and a job that fails so fails the JobSet at once.
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 20
    assert manifest["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "NotIn"
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert _RESTARTED <= set(rule["onExitCodes"]["values"])
    assert not {1, 2, 3, 4, 43} & set(rule["onExitCodes"]["values"])


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [["--flex"], ["--spot"], ["--reserved", "--reservation=ours"]])
def test_the_real_xpk_accepts_each_kind_of_capacity(real_xpk, cloud, capacity):
    assert _manifest(real_xpk, cloud, *capacity, "--storage=shards", "--workdir=/mnt/shared/run")


def _expanded(script: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of a command: $(NAME) where it knows the name, and $ for $$."""

    def value(match):
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, script, flags=re.DOTALL)


def _start_pod(container: dict, cloud, home: pathlib.Path) -> subprocess.Popen:
    shell, flag, script = container["command"]
    script = _expanded(script, {"HOME": "WRONG", "SLICE": "WRONG"})
    cloud.program("sleep", "#!/bin/sh\nexec /bin/sleep 0.1\n")  # xpk looks every five seconds
    environment = {
        **cloud.environment,
        "HOME": str(home),
        "VENV": str(home / "venv"),
        "DEVICE": "cpu",
    }
    return subprocess.Popen(
        [shell, flag, script],
        cwd=launching.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_what_is_given_reaches_the_training_through_xpk_and_kubernetes(real_xpk, cloud, tmp_path):
    given = [
        f"--config=configs/autoencoder.py:{_PAYLOADS[3]}",
        f"--workdir=gs://bucket/{_PAYLOADS[4]}",
        *(f"--config.note={payload}" for payload in _PAYLOADS),
    ]
    _, _, container = _pod(_manifest(real_xpk, cloud, *given))
    home = cloud.home(0)
    output, _ = _start_pod(container, cloud, home).communicate(timeout=60)
    words = (home / "train_arguments").read_text().split("\0")[:-1]
    names = ("--config", "--workdir", "--config.note")
    assert [word for word in words if word.partition("=")[0] in names] == given, output
    assert {"--accelerator=v5e-16", "--num_slices=1", "--start_seconds=900"} <= set(words)
    assert "EXIT_CODE=0" in output
    assert not list(launching.ROOT.glob("CANARY"))


@pytest.mark.slow
def test_a_pod_that_is_told_to_leave_saves(real_xpk, cloud):
    _, _, container = _pod(_manifest(real_xpk, cloud))
    home = cloud.home(0)
    (home / "sleep").touch()
    pod = _start_pod(container, cloud, home)
    launching.until((home / "train_arguments").exists)
    pod.send_signal(signal.SIGTERM)
    output, _ = pod.communicate(timeout=60)
    assert "saved" in output
    assert pod.returncode == 42, output
