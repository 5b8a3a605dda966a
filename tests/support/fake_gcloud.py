# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A gcloud for the tests of the launch scripts: workers are folders, ssh runs the command there.

$FAKE_CLOUD holds `calls` (every call as JSON), `state` (of the queued resource; of several lines each is
told once, the last for ever), `states` (what `state` is after each create, a line each with commas
between states), `quota` (if there, create fails; with a number, so many times), `scp_failures`,
`ssh_failures`, `status_failures`, `describe_failures` (how many copies, commands, questions for the jobs
or for the resource fail), `notice` (said on stderr by every call), `scp_folders` (permissions of the
folders copied from), `buckets/` (see fake_storage.sh) and one home per worker, `<node>-w-<number>`.

`state` is that of demo in zone-a of some-project, which is gcloud's own; that of another resource is
`state of PROJECT ZONE NAME`. What real gcloud refuses is refused: flags that it does not know, a resource
that exists already, the deletion of none.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

_CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
_WORKERS = 2  # of each node
_PROJECT = "some-project"
_FLAGS = {
    "describe": ["--format"],
    "create": [
        *("--accelerator-type", "--runtime-version", "--node-id", "--node-count", "--node-prefix"),
        *("--provisioning-model", "--max-run-duration", "--valid-until-duration"),
    ],
    "delete": [],
    "ssh": ["--worker", "--command"],
    "scp": ["--worker"],
}
_SWITCHES = {
    "create": ["--spot", "--reserved"],
    "delete": ["--force", "--quiet"],
    "ssh": ["--quiet"],
    "scp": ["--quiet"],
}


def main(arguments: list[str]) -> int:
    with open(_CLOUD / "calls", "a", encoding="utf-8") as calls:
        calls.write(json.dumps(arguments) + "\n")
    if (_CLOUD / "notice").exists():
        print((_CLOUD / "notice").read_text(), end="", file=sys.stderr)
    if arguments == ["config", "get-value", "project"]:
        print(_PROJECT)
        return 0
    if arguments[0] == "alpha":
        arguments = arguments[1:]
    assert arguments[:2] == ["compute", "tpus"], arguments
    kind, verb = arguments[2:4]
    given = _parse(verb, arguments[4:])
    state = _state(given)
    if kind == "queued-resources":
        return {"describe": _describe, "create": _create, "delete": _delete}[verb](given, state)
    if not state.exists() or state.read_text().split()[:1] != ["ACTIVE"]:
        print("ERROR: could not connect: the node is gone", file=sys.stderr)
        return 255
    if verb == "scp":
        return _scp(*given.names)
    assert verb == "ssh", arguments
    if _fails("ssh") or ("job.sh status" in given.command and _fails("status")):
        print("ERROR: [255] connection closed by remote host", file=sys.stderr)
        return 255
    return max(_on_worker(home, given.command) for home in _homes(given.names[0]))


def _parse(verb: str, words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"gcloud {verb}", allow_abbrev=False)
    parser.add_argument("names", nargs="+" if verb != "scp" else 2)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", default=_PROJECT)
    for flag in _FLAGS[verb]:
        parser.add_argument(flag)
    for flag in _SWITCHES.get(verb, []):
        parser.add_argument(flag, action="store_true")
    return parser.parse_intermixed_args(words)


def _state(given: argparse.Namespace) -> pathlib.Path:
    """The file of the resource's state; a node of several is one of its own resource."""
    node = given.names[-1].partition(":")[0]
    for name in (node, node.rpartition("-")[0]):
        is_first = (given.project, given.zone, name) == (_PROJECT, "zone-a", "demo")
        path = _CLOUD / ("state" if is_first else f"state of {given.project} {given.zone} {name}")
        if path.exists():
            return path
    first = (given.project, given.zone, node) == (_PROJECT, "zone-a", "demo")
    return _CLOUD / ("state" if first else f"state of {given.project} {given.zone} {node}")


def _not_found(given: argparse.Namespace) -> int:
    where = f"projects/{given.project}/locations/{given.zone}/queuedResources/{given.names[0]}"
    print(f"ERROR: (gcloud) NOT_FOUND: Resource '{where}' was not found", file=sys.stderr)
    return 1


def _describe(given: argparse.Namespace, state: pathlib.Path) -> int:
    if _fails("describe"):
        print("ERROR: the network is unreachable", file=sys.stderr)
        return 1
    states = state.read_text().split() if state.exists() else []
    if not states:
        return _not_found(given)
    print(states[0])
    if len(states) > 1:
        state.write_text("\n".join(states[1:]))
    return 0


def _create(given: argparse.Namespace, state: pathlib.Path) -> int:
    if state.exists():
        print("ERROR: ALREADY_EXISTS: the resource exists already", file=sys.stderr)
        return 1
    if (_CLOUD / "quota").exists() and (not (_CLOUD / "quota").read_text() or _fails("quota", "")):
        print("ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUS' has been exceeded.", file=sys.stderr)
        return 1
    states = _CLOUD / "states"
    first, *rest = states.read_text().splitlines() if states.exists() else ["ACTIVE"]
    if rest:
        states.write_text("\n".join(rest))
    state.write_text(first.replace(",", "\n"))
    return 0


def _delete(given: argparse.Namespace, state: pathlib.Path) -> int:
    if not state.exists():
        return _not_found(given)
    state.unlink()
    for home in _CLOUD.glob(f"{given.names[0]}-*w-*"):
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
