# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A gcloud for the tests of the launch scripts: workers are folders, ssh runs the command there.

$FAKE_CLOUD holds `calls` (every call as JSON), `state` (of the queued resource; of several lines each is
told once, the last for ever), `states` (what `state` is after each create, a line each with commas
between states), `quota` (if there, create fails; with a number, so many times), `scp_failures`,
`ssh_failures`, `status_failures`, `describe_failures` (how many copies, commands, questions for the jobs
or for the resource fail), `scp_folders` (permissions of the folders copied from), `buckets/` (see
fake_storage.sh) and one home per worker, `<node>-w-<number>`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

_CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
_WORKERS = 2  # of each node


def main(arguments: list[str]) -> int:
    with open(_CLOUD / "calls", "a", encoding="utf-8") as calls:
        calls.write(json.dumps(arguments) + "\n")
    if arguments[0] == "alpha":
        arguments = arguments[1:]
    assert arguments[:2] == ["compute", "tpus"], arguments
    kind, verb, name = arguments[2:5]
    if kind == "queued-resources":
        return {"describe": _describe, "create": _create, "delete": _delete}[verb](name)
    state = _CLOUD / "state"
    if not state.exists() or state.read_text().split()[:1] != ["ACTIVE"]:
        print("ERROR: could not connect: the node is gone", file=sys.stderr)
        return 255
    if verb == "scp":
        return _scp(arguments[4], arguments[5])
    assert verb == "ssh", arguments
    command = next(word for word in arguments if word.startswith("--command="))
    if _fails("ssh") or ("job.sh status" in command and _fails("status")):
        print("ERROR: [255] connection closed by remote host", file=sys.stderr)
        return 255
    return max(_on_worker(home, command.removeprefix("--command=")) for home in _homes(name))


def _describe(name: str) -> int:
    if _fails("describe"):
        print("ERROR: the network is unreachable", file=sys.stderr)
        return 1
    state = _CLOUD / "state"
    states = state.read_text().split() if state.exists() else []
    if not states:
        print(f"ERROR: NOT_FOUND: {name} was not found", file=sys.stderr)
        return 1
    print(states[0])
    if len(states) > 1:
        state.write_text("\n".join(states[1:]))
    return 0


def _create(name: str) -> int:
    if (_CLOUD / "quota").exists() and (not (_CLOUD / "quota").read_text() or _fails("quota", "")):
        print("ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUS' has been exceeded.", file=sys.stderr)
        return 1
    states = _CLOUD / "states"
    first, *rest = states.read_text().splitlines() if states.exists() else ["ACTIVE"]
    if rest:
        states.write_text("\n".join(rest))
    (_CLOUD / "state").write_text(first.replace(",", "\n"))
    return 0


def _delete(name: str) -> int:
    (_CLOUD / "state").unlink(missing_ok=True)
    for home in _CLOUD.glob("*-w-*"):
        shutil.rmtree(home, ignore_errors=True)
    return 0


def _homes(node: str) -> list[pathlib.Path]:
    homes = [_CLOUD / f"{node}-w-{number}" for number in range(_WORKERS)]
    for home in homes:
        home.mkdir(exist_ok=True)
    return homes


def _fails(what: str, kind: str = "_failures") -> bool:
    failures = _CLOUD / f"{what}{kind}"
    left = int(failures.read_text()) if failures.exists() else 0
    if left:  # else another call may be reading
        failures.write_text(str(left - 1))
    return left > 0


def _scp(source: str, target: str) -> int:
    with open(_CLOUD / "scp_folders", "a", encoding="utf-8") as folders:
        folders.write(f"{pathlib.Path(source).parent.stat().st_mode & 0o777:o}\n")
    if _fails("scp"):
        return 1
    node, _, path = target.partition(":")
    for home in _homes(node):
        shutil.copy(source, home / path)
    return 0


def _on_worker(home: pathlib.Path, command: str) -> int:
    environment = {**os.environ, "HOME": str(home), "FAKE_HOSTNAME": home.name}
    for name in ("ZONE", "PROJECT", "ACCELERATOR", "VENV", "DRY_RUN"):
        environment.pop(name, None)  # a worker knows only what it is told
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
