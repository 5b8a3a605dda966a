# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How programs begin and end: overrides, the home, one sentence for each kind of error, exit codes."""

import argparse
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import zlib

from etils import epath
import numpy as np
import pytest
import safetensors.numpy
import soundfile

from data_pipelines import command

_ROOT = pathlib.Path(__file__).parents[2]


def _parser() -> command.Parser:
    parser = command.make_parser(
        "python -m house.door", "Opens a door.\n\n    python -m house.door"
    )
    parser.add_argument("--workdir", type=command.path, default="here")
    parser.add_argument("--num", type=command.at_least(2), default=3, help="of doors")
    return parser


def _run(work, *arguments: str) -> int:
    return command.run(_parser(), work, arguments)


def _raise(error: BaseException):
    def work(given):
        raise error

    return work


def test_usage_shows_what_must_be_given_and_that_there_are_flags(capsys):
    parser = _parser()
    parser.add_argument("--kind", required=True, choices=("front", "back"), help="of door")
    parser.add_argument("files", nargs="+", help="keys")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    usage, _, more = capsys.readouterr().out.partition("\n")
    assert usage == "usage: python -m house.door --kind={front,back} [flags] files [files ...]"
    assert more.startswith("\nOpens a door.") and "--num NUM" in more


def test_overrides_are_separated_from_other_arguments():
    overrides, rest = command.split_overrides(
        [
            "train",
            "--config=a.py",
            "--config.seed=1",
            "--config.num_steps",
            "3",
            "--noconfig.bottleneck.perturb",
            "--workdir=x",
        ]
    )
    assert overrides == ["--config.seed=1", "--config.num_steps=3", "--noconfig.bottleneck.perturb"]
    assert rest == ["train", "--config=a.py", "--workdir=x"]


def test_only_a_program_with_a_config_takes_overrides(capsys):
    parser = _parser()
    parser.add_config()
    seen = []
    arguments = ["--config=a.py", "--config.seed=1", "--num=5"]
    assert command.run(parser, seen.append, arguments) == 0
    assert (seen[0].config, seen[0].overrides, seen[0].num) == ("a.py", ["--config.seed=1"], 5)
    assert _run(seen.append, "--num=5") == 0
    assert vars(seen[1]) == {
        "workdir": "here",
        "num": 5,
    }  # Some programs hand on all flags that there are.
    assert _run(seen.append, "--config.seed=1") == 1
    assert "unrecognized arguments: --config.seed=1" in capsys.readouterr().err


def test_overrides_are_those_of_a_program_whose_config_is_named_elsewhere():
    parser, seen = _parser(), []
    parser.set_defaults(overrides=())
    assert command.run(parser, seen.append, ["--config.seed=1", "--num=5"]) == 0
    assert seen[0].overrides == ["--config.seed=1"]


def test_the_home_is_expanded_wherever_a_path_begins(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert command.path("~/runs") == "/home/ada/runs"
    assert command.path("~/a=2,~/b=1") == "/home/ada/a=2,/home/ada/b=1"
    assert command.path("test=~/a") == "test=/home/ada/a"
    assert (
        command.path("tfds:~/a@train=1,tfds:~/b=2") == "tfds:/home/ada/a@train=1,tfds:/home/ada/b=2"
    )
    assert command.path("runs/a~b/~") == "runs/a~b/~"
    assert command.file("~/x.json") == pathlib.Path("/home/ada/x.json")
    overrides, _ = command.split_overrides(
        ["--config.data.train=~/a", "--config.data.heldout", "~"]
    )
    assert overrides == ["--config.data.train=/home/ada/a", "--config.data.heldout=/home/ada"]


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "below.json", "/"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a file that can be written"):
            command.file(str(place))
    for place in (tmp_path / "file", tmp_path / "new" / "folder" / "x.json"):
        assert command.file(str(place)) == place


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--num=1", "argument --num: must be at least 2, got '1'"),
        ("--num=many", "argument --num: must be at least 2, got 'many'"),
        ("--nu=3", "unrecognized arguments: --nu=3"),
        ("--work=x", "unrecognized arguments: --work=x"),
    ],
)
def test_a_wrong_flag_is_one_sentence(argument, words, capsys):
    assert _run(lambda given: 0, argument) == 1
    said = capsys.readouterr().err
    assert said == f"house.door: {words}; see --help\n"


def _of(work) -> Exception:
    """What `work` raises."""
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def _read_damaged_weights(path: pathlib.Path):
    path.write_bytes(b"no weights")
    return safetensors.numpy.load_file(path)


def _read_damaged_archive(path: pathlib.Path):
    path.write_bytes(b"PK\x03\x04 no archive")
    return np.load(path, allow_pickle=False)


@pytest.mark.parametrize(
    "work, words",
    [
        (lambda path: int("seven"), "invalid literal"),
        (lambda path: path.read_text(), "absent cannot be used: No such file or directory"),
        (lambda path: os.rename(path, path / "x"), "cannot be used"),
        (lambda path: soundfile.read(path), "absent"),
        (lambda path: soundfile.write(path / "a.wav", np.zeros(3), 16_000), "a.wav"),
        (lambda path: json.loads('{"a": '), "a JSON file must be whole, got one that is not"),
        (lambda path: b"\xff".decode("utf-8"), "text must be in the encoding that is expected"),
        (lambda path: "\xe9".encode("ascii"), "text must be in the encoding that is expected"),
        (lambda path: zlib.decompress(b"nothing"), "header"),
        (_read_damaged_archive, "zip"),
        (_read_damaged_weights, "header"),
        (lambda path: __import__("no_such_package"), "needs the package 'no_such_package'"),
        (lambda path: epath.Path("gs://no/such").exists(), "gcsfs"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(work, words, tmp_path, capsys):
    error = _of(lambda: work(tmp_path / "absent"))
    assert _run(_raise(error)) == 1
    said = capsys.readouterr().err
    assert said.startswith("house.door: ") and words in said and said.count("\n") == 1


def test_several_lines_become_one(capsys):
    assert _run(_raise(ValueError("one\n  two\n"))) == 1
    assert capsys.readouterr().err == "house.door: one two\n"


def test_an_error_may_bring_its_exit_code(capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert _run(_raise(command.Refused(full, 4))) == 4
    said = capsys.readouterr().err
    assert said == "house.door: /data/x cannot be used: No space left on device\n"


def _raised(error: Exception, cause: Exception, *, chained: bool) -> Exception:
    try:
        try:
            raise cause
        except OSError:
            if chained:
                raise error from cause
            raise error
    except Exception as raised:
        return raised


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize(
    "kind, words", [(ValueError, "it"), (RuntimeError, "/data/x cannot be used: full")]
)
def test_a_full_disk_ends_with_4_whatever_it_became(number, chained, kind, words, capsys):
    full = OSError(number, "full", "/data/x")
    assert _run(_raise(full)) == 4
    assert capsys.readouterr().err == "house.door: /data/x cannot be used: full\n"
    assert _run(_raise(_raised(kind("it"), full, chained=chained))) == 4
    assert capsys.readouterr().err == f"house.door: {words}\n"
    assert _run(_raise(OSError(errno.EACCES, "not yours", "/data/x"))) == 1


def test_an_error_that_is_its_own_cause_ends_the_program():
    # As those of JAX's are, where it takes what it filtered from a traceback for their cause.
    first, second = RuntimeError("bug"), RuntimeError("what it was made of")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(RuntimeError, match="bug"):
        _run(_raise(first))


def test_ctrl_c_is_one_line_and_130(capsys):
    assert _run(_raise(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "house.door: stopped by Ctrl-C\n"


@pytest.mark.parametrize(
    "error",
    [
        TypeError("bug"),
        AssertionError("bug"),
        KeyError("bug"),
        RuntimeError("bug"),
        ModuleNotFoundError("bug", name="f3tok_jax.nowhere"),
        ImportError("bug", name="data_pipelines.command"),
    ],
)
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error), match="bug"):
        _run(_raise(error))


def test_help_is_the_docstring_with_the_flags_and_what_they_are_without_being_given(capsys):
    with pytest.raises(SystemExit) as ended:
        _run(lambda given: 0, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "Opens a door.\n" in shown and shown.endswith("    python -m house.door\n")
    assert "of doors (default 3)" in shown


_PROGRAM = """
import sys
from data_pipelines import command
def work(given):
    {0}
    {0}
sys.stdin.read()
sys.exit(command.run(command.make_parser("door", "Prints."), work))
"""
_TEXT = r"'caf\xe9 \u2248'"
_PRINTS = (f"print({_TEXT})", f"print({_TEXT}, flush=True)")


def _program(line: str, output, **variables: str):
    """Starts a program that twice runs a line, with its standard output, once its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(line)],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **variables},
    )


@pytest.mark.parametrize("line", _PRINTS)
def test_a_console_on_a_full_disk_is_one_sentence(line):
    with open("/dev/full", "w", encoding="utf-8") as full, _program(line, full) as program:
        _, said = program.communicate("")
    assert program.returncode == 4
    assert said == "door: a file or the console cannot be used: No space left on device\n"


def _said_into_a_closed_pipe(line: str) -> tuple[str, int]:
    with _program(line, subprocess.PIPE) as program:
        program.stdout.close()
        program.stdout = None
        _, said = program.communicate("")
    return said, program.returncode


@pytest.mark.parametrize("line", _PRINTS)
def test_a_pipe_that_nobody_reads_is_one_sentence(line):
    said, code = _said_into_a_closed_pipe(line)
    assert code == 1
    assert said.startswith("door: ") and "a pipe that was closed" in said and said.count("\n") == 1


def test_a_program_goes_on_where_nobody_reads_how_far_it_is():
    said, code = _said_into_a_closed_pipe(f"command.say({_TEXT})")
    assert code == 0
    assert said.startswith("nothing is printed any more: ") and said.count("\n") == 1


def test_a_console_that_cannot_encode_gets_escapes():
    with _program(_PRINTS[0], subprocess.PIPE, PYTHONIOENCODING="ascii") as program:
        printed, said = program.communicate("")
    assert program.returncode == 0 and not said
    assert printed == 2 * "caf\\xe9 \\u2248\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_console_that_was_closed_before_the_start_is_none_at_all(closed):
    text = "from data_pipelines import command as c; import sys; p = c.Parser(prog='door'); "
    text += "sys.exit(c.run(p, lambda given: c.say('x') or print('y'), []))"
    shell = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, text]
    root = pathlib.Path(__file__).parents[2]
    ended = subprocess.run(shell, cwd=root, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_is_told_to_leave_takes_its_partial_file_along(number, tmp_path):
    text = (
        "from data_pipelines import command as c\n"
        "from data_pipelines.records import atomic\n"
        "import pathlib, sys\n"
        "def work(given):\n"
        "    with atomic.replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "        partial.write_text('half')\n"
        "        print('ready', flush=True)\n"
        "        sys.stdin.read()\n"
        "sys.exit(c.run(c.Parser(prog='door'), work, []))"
    )
    line = [sys.executable, "-c", text, str(tmp_path / "out")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(line, cwd=_ROOT, **pipes) as program:
        assert program.stdout.readline() == b"ready\n" and list(tmp_path.iterdir())
        program.send_signal(number)
        assert program.wait(60) == -number
    assert not list(tmp_path.iterdir())


def test_the_handlers_of_a_process_are_given_back():
    before, seen = signal.getsignal(signal.SIGTERM), []
    look = lambda given: seen.append(signal.getsignal(signal.SIGTERM))
    assert command.run(command.Parser(prog="door"), look, []) == 0
    assert seen != [before] and signal.getsignal(signal.SIGTERM) == before


def test_what_a_file_puts_into_a_sentence_moves_no_cursor_and_fills_no_screen(capsys):
    def work(given):
        raise ValueError(f"a key must be known, got \x1b[2J\u202e\ud800 {'x' * 10**6} in a.json")

    assert command.run(command.make_parser("p", "Does."), work, []) == 1
    said = capsys.readouterr().err.rstrip("\n")
    assert said.isprintable() and "got \\x1b[2J\\u202e\\ud800 xx" in said
    assert said.endswith("xx in a.json") and len(said) < 2100 and "characters]" in said
