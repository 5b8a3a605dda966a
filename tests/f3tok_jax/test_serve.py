# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The program: refusals before JAX, one line when it listens, and how it ends."""

import contextlib
import http.client
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from f3tok_jax import serve
from f3tok_jax.inference import shipped
from f3tok_jax.serving import guard
from f3tok_jax.serving import server
from tests.support import page_server
from tests.support import tiny_models

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder."""
    folder = tmp_path_factory.mktemp("served") / "run"
    tiny_models.write_run(folder)
    return str(folder)


def test_what_is_wrong_is_one_sentence(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("F3TOK_MODEL", raising=False)
    monkeypatch.setattr(shipped, "names", lambda: [])
    with server.bind("127.0.0.1", 0) as listens:
        taken = listens.getsockname()[1]
        wrong = {
            (): "--model must name a run of the autoencoder or",
            ("nowhere",): "got nowhere, which is no folder",
            (run, f"--port={taken}"): "--host and --port must be free",
            (run, "--port=-1"): "--port: must be at least 0",
            (run, "--max_seconds=0"): "--max_seconds: must be at least 1",
            (run, "--step=77", "--max_seconds=inf"): "--max_seconds: must be finite, got 'inf'",
            (run, "--step=77", "--max_seconds=nan"): "--max_seconds: must be at least 1",
            (run, "--port=0", "--step=77"): "must hold a checkpoint of step 77",
        }
        for arguments, words in wrong.items():
            assert serve.main(arguments) == 1
            said = capsys.readouterr()
            assert words in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_it_says_where_it_is_and_ends_when_it_is_told_to(run, tmp_path, number, code):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(60 * 16_000), 16_000, format="WAV")
    sound = file.getvalue()
    process = subprocess.Popen(
        [sys.executable, "-m", "f3tok_jax.serve", "--port=0", "--host=127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "F3TOK_MODEL": run,
            "TMPDIR": str(tmp_path),
        },
    )
    with process:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.stderr.read()
        assert line.endswith(f"/ serves {run}; Ctrl-C ends it\n")
        port = int(line.split("/")[2].partition(":")[2])
        served = page_server.Served(port)
        assert served.ask("/").code == 200 and served.ask("/", host="evil.example").code == 421
        # Whoever has asked for something is left, and so is nothing of it.
        asking = threading.Thread(target=_ask_in_vain, args=(served, sound))
        asking.start()
        while not list(tmp_path.glob("f3tok_*/given")) and asking.is_alive():
            time.sleep(0.001)
        process.send_signal(number)
        asking.join()
        out, err = process.communicate(timeout=60)
    assert process.returncode == code and out == ""
    assert err == ("f3tok_jax.serve: stopped by Ctrl-C\n" if code == 130 else "")
    assert list(tmp_path.iterdir()) == []


def _ask_in_vain(served: page_server.Served, sound: bytes) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        served.ask("/api/reconstruction", sound)


def test_who_opens_it_to_others_is_told_so(run, monkeypatch, capsys):
    guarded = []
    monkeypatch.setattr(server, "of", lambda app: guarded.append(app) or _Ended())
    assert serve.main([run, "--port=0", "--host=0.0.0.0"]) == 0
    said = capsys.readouterr()
    assert said.err == "note: all who can reach 0.0.0.0 can use the model: there is no password\n"
    assert serve.main([run, "--port=0"]) == 0
    assert capsys.readouterr().err == ""
    found = [(app._by_address, app._hosts) for app in guarded]
    names = guard.names("0.0.0.0", is_local=False)
    assert found == [(True, names), (False, {"127.0.0.1", "localhost", "[::1]"})]


class _Ended:
    def run(self, sockets):
        assert len(sockets) == 1
