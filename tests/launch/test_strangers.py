# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Values that are programs to a shell: none is run, none becomes another argument."""

import shlex

import pytest

from tests.support import launching

# Each would make the file CANARY if a shell, bash's arithmetic, gcloud or ssh took it for its own.
_PAYLOADS = [
    "$(touch CANARY)",
    "`touch CANARY`",
    "; touch CANARY ;",
    "' ; touch CANARY ; '",
    '" ; touch CANARY ; "',
    "x && touch CANARY #",
    "| touch CANARY",
    "\ntouch CANARY\n",
    "BASH_VERSINFO[$(touch CANARY)0]",
    "--command=touch CANARY",
    "-oProxyCommand=touch${IFS}CANARY",
    "\\$(touch CANARY) {SLICE} ~ * \\\\' é",
]
_NUMBERS = ["NUM_SLICES", "MAX_RESTARTS", "POLL_SECONDS", "RETRY_SECONDS", "GRACE_SECONDS"]
_VARIABLES = [*_NUMBERS, "LINES_SHOWN", "ZONE", "PROJECT", "ACCELERATOR", "RUNTIME", "DRY_RUN"]
_OPTIONS = ["--tpu", "--zone", "--project", "--accelerator", "--num_slices", "--runtime", "--flags"]
_REFUSED = [*_VARIABLES, *_OPTIONS, "--max_restarts", "--config"]


def _payloads(folder) -> list[str]:
    return [payload.replace("CANARY", str(folder / "canary")) for payload in _PAYLOADS]


def _given(name: str, value: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables of a course in which the name has the value."""
    if name in _VARIABLES:
        option = f"--{name.lower()}"
        pairs = zip(launching.SLICE[::2], launching.SLICE[1::2], strict=True)
        kept = [word for pair in pairs if pair[0] != option for word in pair]
        return [*kept, *launching.RUN], {name: value}
    return [*launching.SLICE, *launching.RUN, f"{name}={value}"], {}


@pytest.mark.reliability("R29")
@pytest.mark.parametrize("name", _REFUSED)
def test_what_has_a_form_is_held_to_it(name, cloud, tmp_path):
    for payload in _payloads(tmp_path):
        arguments, variables = _given(name, payload)
        for more in ([], ["--dry-run"]):
            result = cloud.launch(*arguments, *more, **variables)
            assert result.returncode == 1, result.stdout
            assert name.removeprefix("--").lower() in result.stdout.lower()
            assert "+ gcloud" not in result.stdout
    assert not (cloud.folder / "calls").exists()
    assert not (tmp_path / "canary").exists()


@pytest.mark.reliability("R29")
@pytest.mark.parametrize("name", ["--workdir", "--config.note", "--config"])
def test_a_dry_run_shows_free_text_as_one_word(name, cloud, tmp_path):
    for payload in _payloads(tmp_path):
        value = {"--workdir": "gs://bucket/", "--config": "configs/autoencoder.py:"}.get(name, "")
        arguments, _ = _given(name, value + payload)
        result = cloud.launch(*arguments, "--dry-run")
        assert result.returncode == 0, result.stdout
        text = result.stdout[result.stdout.index("+ gcloud") :]
        words = shlex.split(text[: text.index("... until every worker")])
        start = next(word for word in words if "job.sh start" in word)
        assert f"{name}={value}{payload}" in shlex.split(start.removeprefix("--command="))
    assert not (cloud.folder / "calls").exists()
    assert not (tmp_path / "canary").exists()


@pytest.mark.reliability("R29")
def test_free_text_arrives_on_every_worker_as_it_was_given(cloud, tmp_path):
    payloads = _payloads(tmp_path)
    given = [
        f"--config=configs/autoencoder.py:{payloads[-1]}",
        f"--workdir=gs://bucket/{payloads[-1]}",
        *(f"--config.note={payload}" for payload in payloads),
        *(f"--{payload}=1" for payload in payloads if not payload.startswith("-")),
    ]
    result = cloud.launch(*launching.SLICE, *given, "--num_slices=2")
    assert result.returncode == 0, result.stdout
    for node in ("demo-0", "demo-1"):
        text = (cloud.home(1, node) / "train_arguments").read_text()
        slices = ["--accelerator=v4-16", "--num_slices=2"]
        compiled = f"--compilation_cache=gs://bucket/{payloads[-1]}/compiled"
        wanted = ["-m", "f3tok_jax.train", *given[:2], *slices, *given[2:], compiled]
        assert text.split("\0")[:-1] == wanted
    assert not (tmp_path / "canary").exists()


@pytest.mark.reliability("R29")
def test_a_work_folder_names_its_jobs_and_nothing_else(cloud, tmp_path):
    (cloud.folder / "state").write_text("ACTIVE")
    assert cloud.launch("setup", *launching.SLICE).returncode == 0
    for payload in _payloads(tmp_path):
        result = cloud.launch("status", *launching.SLICE, f"--workdir=gs://bucket/{payload}")
        assert result.stdout.count("absent") == 2, result.stdout
    assert not (tmp_path / "canary").exists()
