# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The routes, as a browser asks them of a real server: answers, refusals, limits, turns."""

import concurrent.futures
import errno
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from f3tok_jax.serving import answers as answers_lib
from f3tok_jax.serving import app as app_lib
from f3tok_jax.serving import guard
from f3tok_jax.serving import page
from tests.support import page_server
from tests.support import tiny_models

_LIMITS = answers_lib.Limits(seconds=2.0, num_bytes=100_000, characters=5, waiting=2)
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An autoencoder's page."""
    run = tmp_path_factory.mktemp("served") / "run"
    tiny_models.write_run(run)
    answers = answers_lib.Answers.load(str(run), None, _LIMITS, moved={}, say=print)
    with page_server.served(guard.Guard(app_lib.App(answers).starlette(), _HOSTS)) as found:
        yield found


@pytest.fixture(scope="module")
def sound():
    """A second of a WAV file."""
    file = io.BytesIO()
    values = 0.1 * np.random.default_rng(0).normal(size=16_000)
    soundfile.write(file, values, 16_000, format="WAV")
    return file.getvalue()


def test_the_page_and_all_that_it_names_are_there(served):
    found = served.ask("/")
    assert found.code == 200 and found.headers["content-type"].startswith("text/html")
    for name, kind in page.FILES.items():
        given = served.ask(f"/{name}")
        assert given.code == 200 and given.headers["content-type"].startswith(kind)
    for answer in (found, given, served.ask("/nowhere")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert "http" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_a_sound_goes_through(served, sound):
    found = served.ask("/api/reconstruction", sound)
    assert found.code == 200 and found.found["seconds"] == 1.0
    assert served.ask("/api/model").found["stage"] == "autoencoder"


@pytest.mark.parametrize(
    "path, body, code, words",
    [
        ("/api/reconstruction", b"no sound", 422, "the sound cannot be encoded: "),
        ("/api/reconstruction", bytes(100_001), 413, "at most 100,000 bytes, got more"),
        ("/api/transcript", b"", 422, "a run that answers about sound, got one that does not"),
        ("/api/speech", b'{"text": "a"}', 422, "a run that makes sound of texts"),
        ("/api/speech", b'{"text": 7}', 400, "JSON with a text"),
        ("/api/speech", b'{"text": "a", "seconds": "1"}', 400, "JSON with a text"),
        ("/api/speech", b'{"text": "a", "seed": -1}', 400, "JSON with a text"),
        ("/api/speech", b'{"text": "a", "seed": 1.5}', 400, "JSON with a text"),
        ("/api/speech", b'{"text": "a", "more": 1}', 400, "JSON with a text"),
        ("/api/speech", b'["a"]', 400, "JSON with a text"),
        ("/api/speech", b"[" * 60_000, 400, "JSON with a text"),
        ("/api/speech", b"\xff", 400, "JSON with a text"),
        ("/api/reconstruction", None, 405, "Method Not Allowed"),
        ("/nowhere", None, 404, "Not Found"),
        ("/../setup.py", None, 404, "Not Found"),
        ("/page.js/../../../setup.py", None, 404, "Not Found"),
        ("/%2e%2e/%2e%2e/setup.py", None, 404, "Not Found"),
    ],
)
def test_what_cannot_be_is_said_in_json(served, path, body, code, words):
    found = served.ask(path, body)
    assert (found.code, words in found.found["error"]) == (code, True), found
    assert found.found.keys() == {"error"} and "\n" not in found.found["error"]


def test_a_sound_of_more_seconds_than_bytes_say_is_too_large(served):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(48_000), 16_000, format="FLAC")
    found = served.ask("/api/reconstruction", file.getvalue())
    assert found.code == 413 and "at most 2 s long" in found.found["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_a_stranger_may_have_led_here_is_refused(served, sound, host):
    for body in (None, sound):
        path = "/" if body is None else "/api/reconstruction"
        found = served.ask(path, body, host=host)
        assert found.code == 421 and "must be asked by the name" in found.found["error"]


@pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST", "127.0.0.1:9", "[::1]:8000"])
def test_its_own_names_are_welcome_by_any_port(served, host):
    assert served.ask("/", host=host).code == 200


@pytest.mark.parametrize(
    "headers",
    [
        dict(origin="http://evil.example"),
        dict(origin="null"),
        dict(origin="http://127.0.0.1:1"),
        dict(sec_fetch_site="cross-site"),
        dict(sec_fetch_site="same-site"),
        dict(sec_fetch_site="same-site", sec_fetch_mode="navigate", sec_fetch_dest="document"),
        dict(origin="http://["),
    ],
)
def test_pages_of_others_are_refused(served, sound, headers):
    found = served.ask("/api/reconstruction", sound, **headers)
    assert found.code == 403 and "only its own page" in found.found["error"]


def test_its_own_page_is_welcome(served, sound):
    host = f"127.0.0.1:{served.port}"
    headers = dict(host=host, origin=f"http://{host}", sec_fetch_site="same-origin")
    assert served.ask("/api/reconstruction", sound, **headers).code == 200


class _Slow:
    """Answers as slowly as a test wants, or with an error."""

    limits = answers_lib.Limits(waiting=1)
    questions, kinds = ["transcription"], ["caption"]

    def __init__(self, error: Exception | None = None):
        self.error, self.begun, self.goes_on = error, threading.Semaphore(0), threading.Event()
        self.at_once, self.most_at_once, self.asked = 0, 0, []

    def model(self):
        known = dict(model="m", step=1, sample_rate=16_000, latent_rate=25.0, latent_dim=8)
        limits = dict(seconds=1.0, num_bytes=10, characters=5)
        return dict(known, questions=self.questions, kinds=self.kinds, limits=limits)

    def reconstruct(self, sound: bytes):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.release()
        assert self.goes_on.wait(60)
        self.at_once -= 1
        if self.error:
            raise self.error
        return {"size": len(sound)}

    def transcribe(self, *given):
        self.asked.append(given)
        return {}

    def generate(self, *given, **options):
        self.asked.append((*given, options))
        return {}


def test_one_request_of_the_model_at_a_time_and_so_many_wait():
    slow = _Slow()
    app = app_lib.App(slow)
    with (
        page_server.served(app.starlette()) as served,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        asked = [pool.submit(served.ask, "/api/reconstruction", b"abc") for _ in range(2)]
        assert slow.begun.acquire(timeout=60)
        found = served.ask("/api/model")  # which needs no turn
        assert found.code == 200
        while app._turns._here < 2:
            time.sleep(0.01)
        found = served.ask("/api/reconstruction", b"abc")
        assert (
            found.code == 503
            and "at most 1 may wait" in found.found["error"]
            and found.headers["retry-after"] == "5"
        )
        slow.goes_on.set()
        assert [one.result().found for one in asked] == [{"size": 3}] * 2
        assert served.ask("/api/reconstruction", b"abcd").found == {"size": 4}
    assert slow.most_at_once == 1


def test_who_has_gone_is_not_answered():
    slow = _Slow()
    app = app_lib.App(slow)
    with (
        page_server.served(app.starlette()) as served,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(served.ask, "/api/reconstruction", b"abc")
        assert slow.begun.acquire(timeout=60)
        with socket.create_connection(("127.0.0.1", served.port)) as leaves:
            leaves.sendall(
                b"POST /api/transcript HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na"
            )
            while app._turns._here < 2:
                time.sleep(0.01)
        time.sleep(0.2)  # until the server has heard of it
        slow.goes_on.set()
        assert first.result().code == 200
        assert served.ask("/api/transcript", b"b").code == 200
    assert slow.asked == [(b"b", "transcription")]


@pytest.mark.parametrize(
    "error, code, words",
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 507, "No space left"),
        (OSError(errno.EIO, "Input/output error"), 500, "Input/output error"),
        (ZeroDivisionError("by zero"), 500, "this is a bug of the server: by zero"),
    ],
)
def test_errors_of_the_machine_and_of_ours_are_said_too(error, code, words):
    slow = _Slow(error)
    slow.goes_on.set()
    with page_server.served(app_lib.App(slow).starlette()) as served:
        found = served.ask("/api/reconstruction", b"abc")
        assert found.code == code and words in found.found["error"]
        assert served.ask("/api/model").code == 200


def test_tasks_are_the_runs_unless_others_are_asked_for():
    slow = _Slow()
    with page_server.served(app_lib.App(slow).starlette()) as served:
        served.ask("/api/transcript", b"a"), served.ask("/api/transcript?task=language", b"b")
        served.ask("/api/speech", b'{"text": "a"}')
        given = dict(text="b", task="speech", seconds=2, seed=7)
        served.ask("/api/speech", json.dumps(given).encode())
    assert slow.asked == [
        (b"a", "transcription"),
        (b"b", "language"),
        ("a", "caption", dict(seconds=10.0, seed=0)),
        ("b", "speech", dict(seconds=2, seed=7)),
    ]
