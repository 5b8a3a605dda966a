# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The launch scripts: what a dry run prints, what is refused, what every worker installs.

The stored outputs under tests/golden/ are rewritten by REWRITE_GOLDEN=1 pytest tests/launch/test_launch.py;
read the difference before you keep it.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from f3tok_jax.devices import slices
from tests.support import launching

_GOLDEN = launching.ROOT / "tests" / "golden"
_SPOT = ["--accelerator=v5e-16", "--spot"]
_SCRIPTS = sorted(
    [
        *launching.ROOT.glob("launch/*.sh"),
        launching.ROOT / "tests" / "run.sh",
        launching.ROOT / ".ci" / "run",
    ]
)


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", "-x", script], check=True, cwd=launching.ROOT)


def test_help_names_every_flag_and_every_command():
    result = launching.launch("--help")
    assert result.returncode == 0
    script = (launching.ROOT / "launch" / "arguments.sh").read_text(encoding="utf-8")
    parsed = script[script.index("parse_arguments() {") : script.index("set_option() {")]
    words = set(re.findall(r"--[a-z_-]{2,}", parsed)) - {
        "--dry_run",
        "--docker_image",
        "--name",
        "--help",
    }
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
        ("worker", [*launching.RUN, "--accelerator=v4-32", '--config.note=it\'s "two words"']),
        ("slice", [*launching.SLICE, *launching.RUN, "--spot", "--project=some-project"]),
        *(
            (f"slice_{name}", [*launching.SLICE, f"--accelerator={accelerator}", *launching.RUN])
            for name, accelerator in (("v4", "v4-32"), ("v5p", "v5p:4x4x4"), ("v6e", "v6e-16"))
        ),
        (
            "two_slices",
            [
                "all",
                *launching.SLICE,
                *launching.RUN,
                "--num_slices=2",
                "--flags=data_parallel",
                "--reserved",
            ],
        ),
        ("setup", ["setup", *launching.SLICE]),
        ("stop", ["stop", *launching.SLICE, *launching.RUN]),
        ("delete", ["delete", *launching.SLICE]),
        ("xpk", [*launching.CLUSTER, *launching.IMAGE, *launching.RUN, *_SPOT]),
        (
            "xpk_two_slices",
            [
                *launching.CLUSTER,
                f"--image_repository={launching.REPOSITORY}",
                *launching.RUN,
                *("--accelerator=v5p-128", "--num_slices=2", "--priority=high", "--storage=shards"),
                *("--reserved", "--reservation=ours", '--config.note=it\'s $HOME\n"and" $(HOME)'),
            ],
        ),
        ("xpk_logs", ["logs", *launching.CLUSTER, *launching.RUN]),
        ("xpk_delete", ["delete", *launching.CLUSTER, *launching.RUN]),
        (
            "flex",
            ["create", *launching.SLICE, "--flex", "--max_run_duration=12h", "--valid_until=1d"],
        ),
        ("resume", ["resume", *launching.SLICE, *launching.RUN]),
    ],
)
def test_dry_run_prints_the_stored_commands(name, arguments, tmp_path):
    (tmp_path / "bin").mkdir()
    trap = tmp_path / "bin" / "gcloud"
    trap.write_text("#!/bin/sh\ntouch " + str(tmp_path / "touched") + "\n")
    trap.chmod(0o755)
    venv = launching.make_venv(tmp_path)
    result = launching.launch(
        *arguments,
        environment={
            "DRY_RUN": "1",
            "BUILDER": "docker",
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "VENV": str(venv),
        },
    )
    assert result.returncode == 0, result.stdout
    assert not (tmp_path / "touched").exists()
    printed = result.stdout.replace(str(venv), "ROOT/.venv").replace(str(launching.ROOT), "ROOT")
    printed = re.sub(r"^packing: .*\n", "", printed, flags=re.MULTILINE)  # what lies here today
    printed = re.sub(r"f3tok_jax:[0-9a-f]{16}\b", "f3tok_jax:CONTENT", printed)
    printed = re.sub(r"^\d\d:\d\d:\d\d|\d{8}T\d{6}Z", "TIME", printed, flags=re.MULTILINE)
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
        (["--tpu", "demo", *launching.RUN, "--accelerator", "v4-8"], "--zone is missing"),
        (["--tpu", "demo", "--zone", "zone-a", *launching.RUN], "--accelerator is missing"),
        ([*launching.SLICE, "--workdir", "gs://bucket/run"], "--config is missing"),
        ([*launching.SLICE, "--config", "configs/autoencoder.py:base"], "--workdir is missing"),
        ([*launching.SLICE, *launching.RUN, "--workdir", "runs/here"], "that every worker sees"),
        (["--tpu", "demo", "--zone", "z", "--accelerator", "v9-8", *launching.RUN], "got 'v9-8'"),
        ([*launching.RUN, "--accelerator", "v4-8", "--flags", "fast"], "--flags must be one of"),
        ([*launching.SLICE, *launching.RUN, "--zone"], "--zone needs a value"),
        (["create", "delete", *launching.SLICE], "one command at a time"),
        (["creat", *launching.SLICE], "unknown argument 'creat'"),
        (["create", *launching.SLICE, "--valid_until=soon"], "--valid_until must be a number with"),
    ],
)
def test_what_is_missing_is_said_by_name(arguments, message):
    result = launching.launch(*arguments, environment={"DRY_RUN": "1"})
    assert result.returncode == 1
    assert message in result.stdout
    assert "+ gcloud" not in result.stdout


@pytest.mark.reliability("R28")
@pytest.mark.parametrize("where", [[], launching.SLICE])
def test_a_price_goes_to_whoever_adds_up_what_the_run_costs(where, cloud):
    data = "--config.data.train=gs://bucket/train"
    result = cloud.launch(*where, *launching.RUN, data, "--price", "1.25", "--dry-run")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("--price=1.25") == 1, result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        launching.RUN,
        ["install"],
        *(
            [command, *launching.SLICE, *launching.RUN]
            for command in "create wait setup run resume status logs stop delete all".split()
        ),
        [*launching.CLUSTER, *launching.RUN, *_SPOT, f"--image_repository={launching.REPOSITORY}"],
    ],
    ids=lambda arguments: "-".join(arguments[:1]) or "none",
)
def test_a_dry_run_leaves_no_trace(arguments, tmp_path):
    tree = launching.copy_tree(tmp_path / "tree")
    (tmp_path / "home").mkdir()
    environment = {"VENV": str(launching.make_venv(tmp_path))}
    there = set(tmp_path.rglob("*"))
    result = launching.launch(
        *arguments,
        "--dry-run",
        script=tree / "launch" / "tpu_train.sh",
        environment={
            "HOME": str(tmp_path / "home"),
            "TMPDIR": "/nowhere",
            "GIT_CEILING_DIRECTORIES": str(tmp_path),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
    )
    assert result.returncode == 0, result.stdout
    assert "+ " in result.stdout
    assert "nowhere" not in result.stdout.replace("/nowhere/tmp.XXXXXXXXXX", "")
    assert set(tmp_path.rglob("*")) == there


def test_an_installation_tells_what_it_fetches_and_why_it_failed():
    program = (
        f'source "{launching.ROOT}/launch/common.sh"; '
        f'source "{launching.ROOT}/launch/environment.sh"; '
        "narrate bash -c 'echo Collecting x==1 from here; echo a detail; printf why; exit 7'"
    )
    result = subprocess.run(
        ["bash", "-c", program],
        env={"PATH": os.environ["PATH"], "TMPDIR": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 7
    assert result.stdout == "  Collecting x==1\n"
    assert "a detail\nwhy\n" in result.stderr


def test_nothing_of_anybody_in_the_scripts():
    text = "".join(path.read_text() for path in launching.ROOT.glob("launch/*.sh"))
    assert not re.search(r"gs://(?!BUCKET|\.\.\.|\* |\*$)[a-z]", text)
    assert "--project=" not in text


def test_environment_is_made_once(tmp_path, cloud):
    environment = {**cloud.environment, "VENV": str(tmp_path / "venv"), "HOME": str(tmp_path)}
    first = launching.launch(*launching.RUN, environment=environment)
    again = launching.launch(*launching.RUN, environment=environment)
    assert first.returncode == again.returncode == 0, first.stdout
    assert "Collecting nothing" in first.stdout
    assert "is up to date" in again.stdout and "Collecting" not in again.stdout


def test_exit_code_of_the_training_is_the_scripts(tmp_path, cloud):
    (tmp_path / "exit_codes").write_text("42\n")
    result = launching.launch(
        *launching.RUN,
        environment={**cloud.environment, "VENV": str(tmp_path / "venv"), "HOME": str(tmp_path)},
    )
    assert result.returncode == 42, result.stdout


@pytest.mark.reliability("R28")
@pytest.mark.slow
@pytest.mark.reliability("R28")
@pytest.mark.parametrize("flag_set", list(slices.FLAGS))
@pytest.mark.parametrize(
    "generation, topology",
    [
        *(("v4", "v4:2x2x1"), ("v5e", "v5e:2x2"), ("v5p", "v5p:2x2x1"), ("v6e", "v6e:2x2")),
        ("tpu7x", "tpu7x:2x2x1"),
    ],
)
def test_libtpu_knows_the_flags(generation, topology, flag_set):
    pytest.importorskip("libtpu", reason="the tpu extra is not installed")
    flags = slices.flags(generation, flag_set)
    program = (
        "import jax\n"
        "from jax.experimental import topologies\n"
        f"topology = topologies.get_topology_desc(platform='tpu', topology_name='{topology}')\n"
        "mesh = jax.sharding.Mesh(topology.devices, ('fsdp',))\n"
        "split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('fsdp'))\n"
        "matrix = jax.ShapeDtypeStruct((512, 512), 'bfloat16', sharding=split)\n"
        "compiled = jax.jit(lambda x, y: x @ y, out_shardings=split).lower(matrix, matrix).compile()\n"
        "assert 'all-gather' in compiled.as_text()\n"
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
            "LIBTPU_INIT_ARGS": " ".join(flags),
        },
    )
    assert result.returncode == 0, result.stderr[-2000:]
