# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""A page on this machine to hear a trained tokenizer by, in any browser.

    python -m f3tok_jax.serve
    python -m f3tok_jax.serve runs/generation --port=8123

Record or drop a sound, and switch between it and what comes out of the tokenizer while it plays; see
its latents, and what the language model answers about it where the run was trained to; type a text
and hear it where the run makes sound of texts. Nothing that is sent is kept. The page loads nothing
from elsewhere, and only browsers on this machine reach it unless --host says otherwise.

Needs the packages of the extra "serve": pip install -e '.[serve]'. Ctrl-C ends it.

Exit codes: 0 finished, 1 wrong arguments or model, 130 Ctrl-C; stderr says which.
"""

import argparse
from collections.abc import Sequence
import math
import sys

from data_pipelines import command
from f3tok_jax.runs import places


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.serve", __doc__)
    add = parser.add_argument
    text = (
        "run folder, bundle, export, or small, which comes with the package if it has it; default "
        "$F3TOK_MODEL, or small, or runs/demo"
    )
    add("model", nargs="?", type=command.path, help=text)
    add("--step", type=int, help="checkpoint to use; the newest whole one if absent")
    places.add_flag(add)
    add("--host", default="127.0.0.1", help="name or address of this machine to be reached at")
    add("--port", type=command.at_least(0), default=8000, help="0 for any that is free")
    text = "of a sound at most, given or made"
    add("--max_seconds", type=_seconds, default=60.0, help=text)
    text = "of a sound's file at most"
    add("--max_megabytes", type=command.at_least(1), default=32, help=text)
    add("--max_characters", type=command.at_least(1), default=500, help="of a text at most")
    return command.run(
        parser, _serve, arguments, interrupted=lambda given: command.EXIT_INTERRUPTED
    )


def _seconds(text: str) -> float:
    """Type of --max_seconds: without an end, one sound would keep the model from all others."""
    seconds = command.at_least(1, float)(text)
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"must be finite, got {text!r}")
    return seconds


def _serve(given: argparse.Namespace) -> None:
    from f3tok_jax.inference import model_folder
    from f3tok_jax.inference import start
    from f3tok_jax.serving import server

    folder = model_folder.find(given.model, model_folder.STAGES[0])
    with server.bind(given.host, given.port) as listens:
        is_local = server.is_loopback(listens)
        if not is_local:
            print(
                f"note: all who can reach {given.host} can use the model: there is no password",
                file=sys.stderr,
                flush=True,
            )
        with start.soon(say=command.say):
            from f3tok_jax.serving import answers
            from f3tok_jax.serving import app
            from f3tok_jax.serving import guard

        limits = answers.Limits(
            seconds=given.max_seconds,
            num_bytes=given.max_megabytes * 1_000_000,
            characters=given.max_characters,
        )
        moved = dict(given.moved or ())
        run = answers.Answers.load(folder, given.step, limits, moved=moved, say=command.say)
        hosts = guard.names(given.host, is_local=is_local)
        guarded = guard.Guard(app.App(run).starlette(), hosts, by_address=not is_local)
        command.say(f"{server.address(listens, given.host)} serves {folder}; Ctrl-C ends it")
        server.of(guarded).run(sockets=[listens])


if __name__ == "__main__":
    sys.exit(main())
