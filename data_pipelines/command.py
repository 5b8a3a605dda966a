# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How every program begins and ends: flags, help, one sentence for what a user can mend, exit code.

Every program ends with 130 on Ctrl-C and by SIGTERM and SIGHUP as if it did not hear of them, 143
and 129 in a shell, unless its own docstring says that it resumes.

A program's docstring is its help. What it computes with is imported after its flags are read, so
that neither --help nor a wrong flag waits for JAX.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import json
import os
import pathlib
import re
import signal
import sys
from typing import Any
import zipfile
import zlib

from data_pipelines import leaving
from data_pipelines.records import atomic

# A full disk has a code of its own: the same command goes on once there is room.
EXIT_DONE, EXIT_REFUSED, EXIT_FULL, EXIT_INTERRUPTED = 0, 1, 4, 130

_OF_FILES = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
# By name: whoever raises them has loaded their library, and --help need not.
_OF_LIBRARIES = {"soundfile.SoundFileError", "safetensors._safetensors_rust.SafetensorError"}
_MAX_SENTENCE = 2000  # characters
PACKAGES = ("data_pipelines", "f3tok_jax")


class Refused(Exception):
    """What a user can mend, with an exit code of its own."""

    def __init__(self, error: Exception | str, code: int):
        super().__init__(explain(error) if isinstance(error, Exception) else error)
        self.code = code


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of docstrings, and says the defaults that say something."""

    def add_usage(self, usage, actions, groups, prefix=None) -> None:
        """Shows what must be given: thirty flags before the first sentence hide both."""
        flags = [action for action in actions if action.option_strings]
        parts = ["%(prog)s"]
        for action in flags:
            if action.required:
                name = self._get_default_metavar_for_optional(action)
                parts.append(f"{action.option_strings[0]}={self._format_args(action, name)}")
        parts += ["[flags]"] if any(not action.required for action in flags) else []
        for action in actions:
            if not action.option_strings:
                name = self._get_default_metavar_for_positional(action)
                parts.append(self._format_args(action, name))
        super().add_usage(usage or " ".join(parts), actions, groups, prefix)

    def _get_help_string(self, action: argparse.Action) -> str:
        default, text = action.default, action.help or ""
        silent = default is False or default in (None, "", [], argparse.SUPPRESS)
        return text if silent or "default" in text else f"{text} (default %(default)s)"


class Parser(argparse.ArgumentParser):
    """Flags of a program; what is wrong with them is a ValueError, like all that a user can mend."""

    def __init__(self, **options):
        super().__init__(**{"formatter_class": _Help, "allow_abbrev": False} | options)

    def error(self, message: str):
        raise ValueError(f"{message}; see --help")

    def add_config(self) -> None:
        """Adds --config and, as `overrides`, every --config.KEY=VALUE."""
        text = "FILE.py or FILE.py:PRESET; change values by --config.KEY=VALUE"
        self.add_argument("--config", required=True, type=path, help=text)
        self.set_defaults(overrides=())

    def add_others(self) -> None:
        """Keeps as `others`, in order, flags that are not the program's own but another one's."""
        self.set_defaults(others=())


def make_parser(program: str, doc: str) -> Parser:
    """The parser of `program`, with its docstring as help: what it does, the flags, the rest."""
    what, _, more = doc.partition("\n\n")
    return Parser(prog=program, description=what, epilog=more)


def path(text: str) -> str:
    """Type of a flag that names a file, a folder or a mixture of them; "~" is the home."""
    return re.sub(r"(?:(?<=tfds:)|(?<![^=,]))~[^/=,]*", lambda at: os.path.expanduser(at[0]), text)


def file(text: str) -> pathlib.Path:
    """Type of a flag that names a local file to write: refused before the work, not after it."""
    given = pathlib.Path(path(text))
    if not is_writable(given):
        raise argparse.ArgumentTypeError(f"must be a file that can be written, got {text!r}")
    return given


def is_writable(file: pathlib.Path) -> bool:
    """Whether a local file can be made: no folder is there, and the nearest above takes files."""
    place = file.absolute()
    there = next(folder for folder in (*place.parents, place) if os.path.lexists(folder))
    return not os.path.isdir(place) and os.path.isdir(there) and os.access(there, os.W_OK)


def at_least(least: float, kind: type = int) -> Callable[[str], float]:
    """Type of a flag with a lower bound."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if kind(text) >= least:
                return kind(text)
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text!r}")

    return parse


def values(kind: Callable[[str], Any] = str) -> Callable[[str], list]:
    """Type of a flag with several values of a kind, with commas between."""

    def parse(text: str) -> list:
        try:
            return [kind(value) for value in text.split(",") if value]
        except ValueError:
            problem = f"must be values with commas between, got {text!r}"
            raise argparse.ArgumentTypeError(problem) from None

    return parse


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates "--config.key=value" overrides from a program's other arguments.

    Returns:
        The overrides, and the rest in order.
    """
    overrides, rest = [], []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith(("--config.", "-config.", "--noconfig.")):
            rest.append(argument)
        elif "=" in argument or not pending or pending[0].startswith("--"):
            overrides.append(path(argument))
        else:
            overrides.append(f"{argument}={path(pending.pop(0))}")
    return overrides, rest


def run(
    parser: Parser,
    work: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
    *,
    resumes: bool = False,
    interrupted: Callable[[argparse.Namespace], int] | None = None,
    ended: Callable[[int], None] = lambda code: None,
) -> int:
    """Parses, works, and puts into one sentence what a user can mend; a bug keeps its traceback.

    An error that has a `table` of several lines shows it before its sentence.

    A process that is told to leave takes along what it has not finished writing. It ends by the
    signal, as it would without, or with 42 if it resumes, even while a library holds the main
    thread.

    Args:
        parser: of the flags.
        work: the program; returns its exit code, None for 0.
        arguments: default those of the process.
        resumes: whether the same command goes on where a signal has ended it.
        interrupted: flags -> the exit code of a program that Ctrl-C ends at once; without it, a
            KeyboardInterrupt does, once the main thread is back in Python.
        ended: gets the exit code of work that came to its end, while signals are still handled.

    Returns:
        The exit code.
    """
    _steady_console()
    name = parser.prog.removeprefix("python -m ")
    try:
        with leaving.listening(), leaving.handling(_told_to_leave(name, resumes)):
            given = parse(parser, arguments)
            with leaving.handling(_on_ctrl_c(name, given, interrupted)):
                code = work(given) or EXIT_DONE
                ended(code)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        code, sentence = EXIT_INTERRUPTED, "stopped by Ctrl-C"
    except Exception as error:
        is_refusal, full = _is_refusal(error), _full_disk(error)
        if not is_refusal and not full:
            raise
        code = EXIT_FULL if full else EXIT_REFUSED
        code = error.code if isinstance(error, Refused) else code
        sentence = explain(error if is_refusal else full)
        for line in getattr(error, "table", "").splitlines():
            _complain(_printable(line))
    _abandon_console()
    _complain(f"{name}: {sentence}")
    return code


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _told_to_leave(name: str, resumes: bool) -> dict[int, leaving.AtOnce]:
    """Handlers of the signals that end a program.

    An exception would be lost where a decoder, which is no Python, calls for bytes.
    """

    def leave(number: int) -> None:
        if resumes:
            told = f"{name}: told to leave by {signal.Signals(number).name}"
            leaving.leave(f"{told}; run the same command again", leaving.EXIT_RESUMABLE)
        atomic.remove_partials()
        leaving.die(number)

    return dict.fromkeys((signal.SIGTERM, signal.SIGHUP), leaving.AtOnce(leave))


def _on_ctrl_c(
    name: str, given: argparse.Namespace, interrupted: Callable[[argparse.Namespace], int] | None
) -> dict[int, leaving.AtOnce]:
    """The handler of Ctrl-C, where a program has one."""

    def leave(number: int) -> None:
        leaving.leave(f"{name}: stopped by Ctrl-C", interrupted(given))

    return {signal.SIGINT: leaving.AtOnce(leave)} if interrupted else {}


def explain(error: Exception) -> str:
    """An error in one sentence on one line: what a file put into it moves no cursor."""
    text = str(error) or type(error).__name__
    if isinstance(error, BrokenPipeError):
        text = "standard output must be read to its end, got a pipe that was closed"
    elif isinstance(error, OSError) and error.strerror:
        named = " and ".join(str(name) for name in (error.filename, error.filename2) if name)
        text = f"{named or 'a file or the console'} cannot be used: {error.strerror}"
    elif isinstance(error, json.JSONDecodeError):
        text = f"a JSON file must be whole, got one that is not: {text}"
    elif isinstance(error, UnicodeError):
        text = f"text must be in the encoding that is expected, got other: {text}"
    elif isinstance(error, ModuleNotFoundError) and error.name:  # Python's own words
        text = f"this needs the package {error.name!r}, which is not installed: {text}"
    text = _printable(" ".join(text.split()))
    if len(text) > _MAX_SENTENCE:  # A file may hold a value of any length.
        half = _MAX_SENTENCE // 2
        text = f"{text[:half]} [{len(text) - 2 * half} characters] {text[-half:]}"
    return text


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def say(text: str) -> None:
    """Prints how far a program is; where nobody reads that any more, the program goes on."""
    try:
        print(text, flush=True)
    except OSError as error:
        _silence_console()
        with contextlib.suppress(OSError):
            print(f"nothing is printed any more: {explain(error)}", file=sys.stderr, flush=True)


def _is_refusal(error: Exception) -> bool:
    """Whether it is of values, files, the console or an absent package, and so no bug."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    absent = isinstance(error, ImportError) and not (error.name or "").startswith(PACKAGES)
    return isinstance(error, (Refused, *_OF_FILES)) or bool(names & _OF_LIBRARIES) or absent


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk that is one or was the cause of one; None for others."""
    seen = set()  # a library may raise an error from itself, or from what it was the cause of
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in atomic.FULL:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def parse(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags that were given; raises ValueError for wrong ones."""
    rest = sys.argv[1:] if arguments is None else list(arguments)
    takes_overrides = parser.get_default("overrides") is not None
    if takes_overrides:
        overrides, rest = split_overrides(rest)
    if parser.get_default("others") is None:
        given = parser.parse_args(rest)
    else:
        given, others = parser.parse_known_args(rest)
        given.others = others
    if takes_overrides:  # after the flags of a verb, whose defaults come last
        given.overrides = overrides
    return given


def _steady_console() -> None:
    """What a console cannot encode, such as an accent in a path, is escaped, not an error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before Python began.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _abandon_console() -> None:
    """Where standard output fails, Python would fail once more, and otherwise, when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _silence_console()


def _silence_console() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
