# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium: what is asked about is what is shown, and a microphone is let go of.

Wants playwright's Python package and a Chromium ($CHROMIUM, or of the PATH).
"""

import base64
import contextlib
import io

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from f3tok_jax.serving import answers as answers_lib
from f3tok_jax.serving import app as app_lib
from f3tok_jax.serving import guard
from tests.support import browser as browser_lib
from tests.support import page_server

_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# Lets a test say when a file has been decoded, and keeps what the microphone gives.
_HELD = """
const decode = AudioContext.prototype.decodeAudioData;
AudioContext.prototype.decodeAudioData = async function (given) {
  await new Promise((goOn) => (window.decoded = goOn));
  return decode.call(this, given);
};
const { getUserMedia } = MediaDevices.prototype;
MediaDevices.prototype.getUserMedia = async function (wanted) {
  return (window.stream = await getUserMedia.call(this, wanted));
};
"""


def _wav(count: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(count), 16_000, format="WAV")
    return file.getvalue()


class _Answers:
    """Gives every sound back, and answers how many samples it has."""

    limits = answers_lib.Limits(seconds=9.0)
    questions, kinds = ["transcription"], []

    def model(self):
        known = dict(model="m", step=1, sample_rate=16_000, latent_rate=25.0, latent_dim=8)
        limits = dict(seconds=9.0, num_bytes=100_000, characters=5)
        return dict(known, questions=self.questions, kinds=self.kinds, limits=limits)

    def reconstruct(self, sound: bytes):
        values = base64.b64encode(bytes(8)).decode()
        latents = dict(frames=1, width=8, rate=25.0, limit=1.0, values=values)
        given = base64.b64encode(sound).decode()
        options = dict(seconds=1.0, sample_rate=16_000, notes=[])
        return dict(options, latents=latents, sound=given)

    def transcribe(self, sound: bytes, task: str):
        return dict(text=f"{len(soundfile.read(io.BytesIO(sound))[0])} samples", notes=[])


@pytest.fixture(scope="module")
def browser():
    with browser_lib.started(*_MICROPHONE) as found:
        yield found


@pytest.fixture
def page(browser):
    app = app_lib.App(_Answers()).starlette()
    with page_server.served(guard.Guard(app, {"127.0.0.1", "localhost"})) as served:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.add_init_script(_HELD)
        page.goto(f"http://localhost:{served.port}/")
        yield page
        context.close()


def _give(page, name: str, sound: bytes) -> None:
    page.set_input_files("#file", dict(name=name, mimeType="audio/wav", buffer=sound))


@pytest.mark.parametrize("late", [_wav(3_000), b"no sound"])
def test_what_is_asked_about_is_what_is_shown(page, late):
    _give(page, "slow.m4a", late)  # which the browser converts
    browser_lib.until(page, "!!window.decoded")
    _give(page, "b.wav", _wav(16_000))
    answer = page.locator("#answer")
    sync_api.expect(answer).to_have_text("16000 samples")
    shown = page.locator("#sound_status").inner_text()
    page.evaluate("decoded()")
    page.wait_for_timeout(300)
    assert page.locator("#sound_status").inner_text() == shown
    with page.expect_response("**/api/transcript*") as asked:
        page.locator("#ask").click()
    assert asked.value.json()["text"] == "16000 samples"
    sync_api.expect(page.locator("#ask")).to_be_enabled()
    assert answer.inner_text() == "16000 samples"


def test_an_answer_about_a_sound_before_is_not_shown(page):
    held = []
    _give(page, "a.wav", _wav(3_000))
    sync_api.expect(page.locator("#answer")).to_have_text("3000 samples")
    page.route(
        "**/api/transcript*", lambda route: route.continue_() if held else held.append(route)
    )
    page.locator("#ask").click()
    sync_api.expect(page.locator("#answer_status")).to_have_text("The language model listens …")
    _give(page, "b.wav", _wav(16_000))
    sync_api.expect(page.locator("#answer")).to_have_text("16000 samples")
    with contextlib.suppress(sync_api.Error):  # the page may have taken it back
        held[0].fulfill(json=dict(text="3000 samples", notes=[]))
    page.wait_for_timeout(300)
    assert page.locator("#answer").inner_text() == "16000 samples"
    assert page.locator("#ask").is_enabled()


def test_a_microphone_is_let_go_of_where_it_cannot_be_recorded(page):
    page.evaluate("AudioWorklet.prototype.addModule = () => Promise.reject(Error('no module')); 0")
    page.locator("#record").click()
    status = page.locator("#sound_status")
    sync_api.expect(status).to_have_text("The microphone cannot be used: no module")
    ended = "stream.getTracks().every((track) => track.readyState === 'ended')"
    assert page.evaluate(ended) and page.locator("#record").is_enabled()


def test_a_recording_is_a_sound_and_the_microphone_is_let_go_of(page):
    page.locator("#record").click()
    browser_lib.until(page, "parseFloat(document.querySelector('#clock').textContent) > 0.3")
    assert page.evaluate("stream.active")
    page.locator("#record").click()
    sync_api.expect(page.locator("#answer")).to_contain_text("samples")
    assert not page.evaluate("stream.active")
