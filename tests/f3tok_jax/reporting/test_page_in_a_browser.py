# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium, as a telephone and a desk show it: what can be seen, heard and reached.

Wants playwright's Python package, a Chromium ($CHROMIUM, or of the PATH) and axe-core's axe.min.js
($AXE_CORE, or in node_modules).
"""

import io
import os
import pathlib

from matplotlib import image
import pytest

from f3tok_jax import report
from tests.support import browser as browser_lib
from tests.support import reported_runs

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

_PHONE = dict(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
_DESK = dict(viewport={"width": 1280, "height": 800})
_OFFLINE = ("--disable-background-networking", "--disable-component-update")
_SECONDS = 2.0
# Notes what Web Audio is told to play: when on its clock, from where in the sound, and until when.
_LISTENER = """
window.heard = [];
const { start, stop } = AudioBufferSourceNode.prototype;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  this.told = { when, offset, level: this.buffer.getChannelData(0)[99] };
  window.heard.push(this.told);
  start.call(this, when, offset);
};
AudioBufferSourceNode.prototype.stop = function (when) {
  this.told.until = when;
  stop.call(this, when);
};
"""


@pytest.fixture(scope="module")
def browser():
    with browser_lib.started(*_OFFLINE) as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    sounds = dict(num_clips=5, seconds=_SECONDS)
    runs = [
        reported_runs.write_autoencoder(folder / "a" / "run", **sounds),
        reported_runs.write_autoencoder(folder / "b" / "run", level=0.25, **sounds),
        reported_runs.write_representation(folder / "representation", 0.8),
    ]
    output = folder / "report.html"
    assert report.main(["--runs", *runs, f"--output={output}"]) == 0
    return output.as_uri()


@pytest.fixture
def open_page(browser, address):
    """(device, scheme) -> the page, on which nothing may go wrong and which may load nothing."""
    contexts, wrong = [], []

    def is_loaded(url: str) -> bool:
        return url.partition("#")[0] != address and not url.startswith("data:")

    def opened(device=_DESK, scheme="light"):
        contexts.append(browser.new_context(**device, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda asked: asked.url[:5] in ("file:", "data:") or wrong.append(asked.url)
        )
        page.add_init_script(_LISTENER)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def _axe() -> str:
    places = [os.environ.get("AXE_CORE", ""), "node_modules/axe-core/axe.min.js"]
    found = next((path for path in places if path and pathlib.Path(path).is_file()), None)
    if not found:
        pytest.skip("AXE_CORE names no axe.min.js: npm pack axe-core")
    return pathlib.Path(found).read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [_PHONE, _DESK], ids=["phone", "desk"])
def test_everybody_can_use_it(open_page, device, scheme):
    page, axe = open_page(device, scheme), _axe()
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert not [
        (one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]
    ]
    assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]


@pytest.mark.parametrize("device", [_PHONE, _DESK], ids=["phone", "desk"])
def test_it_opens_with_sound_and_nothing_is_too_small_to_be_tapped(open_page, device):
    page = open_page(device)
    for part in (".play", ".plot", ".takes label:nth-child(2)"):
        box = page.locator(part).first.bounding_box()
        assert 0 <= box["y"] and box["y"] + box["height"] <= device["viewport"]["height"], part
    assert not page.locator("details[open]").count()
    tapped = page.locator("button, .takes label, .loop, nav a, summary, .seek").all()
    boxes = [one.bounding_box() for one in tapped if one.is_visible()]
    assert len(boxes) > 20
    assert all(box["height"] >= 44 and box["width"] >= 44 for box in boxes)


def test_another_take_goes_on_at_the_same_moment(open_page):
    page = open_page()
    player = page.locator(".player").first
    player.get_by_role("button", name="Play").click()
    browser_lib.until(page, "heard.length == 1 && document.querySelector('.seek').value > 0.3")
    player.get_by_text("reconstruction: a/run").click()
    browser_lib.until(page, "document.querySelector('.seek').value > 0.6")
    page.keyboard.press("ArrowRight")  # on the chosen radio button
    page.keyboard.press("1")
    heard = page.evaluate("heard")
    assert len(heard) == 4 and heard[0]["offset"] == 0
    for one in heard[1:]:
        moment = heard[0]["offset"] + one["when"] - heard[0]["when"]
        assert one["offset"] == pytest.approx(moment, abs=1e-6) and moment > 0.3
    levels = [one["level"] / heard[0]["level"] for one in heard]
    # The original, two reconstructions of half its level, and the original again.
    assert levels == pytest.approx([1.0, 0.5, 0.5, 1.0], abs=0.01)
    _assert_one_at_a_time(heard)
    assert player.locator(".plot img:visible").count() == 1
    assert player.get_by_role("radio", checked=True).count() == 1


def test_one_sound_plays_on_the_whole_page(open_page):
    page = open_page()
    for place in (0, 1, 0):
        page.locator(".player").nth(place).get_by_role("button", name="Play").click()
        browser_lib.until(page, "heard.length && !('until' in heard.at(-1))")
        page.wait_for_timeout(100)
        assert page.get_by_role("button", name="Pause").count() == 1
    page.keyboard.press("Space")  # on the button: it stops
    assert page.get_by_role("button", name="Pause").count() == 0
    heard = page.evaluate("heard")
    assert len(heard) == 3 and all("until" in one for one in heard)
    _assert_one_at_a_time(heard)
    assert heard[2]["offset"] > 0  # where it was left


def test_a_key_shows_what_is_folded_away(open_page):
    page = open_page()
    player = page.locator(".player").first
    player.locator(".play").focus()
    for key, title in (("7", "alpha"), ("ArrowLeft", "alpha"), ("2", "reconstruction")):
        page.keyboard.press(key)
        assert title in player.locator("label:has(:checked)").inner_text()
        assert player.locator("label:has(:checked)").is_visible()
    assert page.locator("details[open]").count() == 1 and page.evaluate("heard") == []


def test_keys_are_for_the_player_that_has_the_focus(open_page):
    page = open_page()
    player = page.locator(".player").first
    player.get_by_role("button", name="Play").click()
    browser_lib.until(page, "heard.length == 1")
    page.evaluate("document.activeElement.blur()")
    for key in ("2", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert len(page.evaluate("heard")) == 1 and page.get_by_role("button", name="Pause").count()
    assert page.locator(".player").first.locator("input[type=radio]").first.is_checked()
    player.locator("h4").click()  # as in a browser that gives a clicked button no focus
    page.keyboard.press("2")
    browser_lib.until(page, "heard.length == 2")
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Pause").count() == 0


def _assert_one_at_a_time(heard) -> None:
    """But for the few milliseconds in which one sound fades into the next."""
    for one, after in zip(heard, heard[1:]):
        assert one["until"] <= after["when"] + 0.01


def test_a_clip_can_be_sought_looped_and_heard_to_its_end(open_page):
    page = open_page()
    player = page.locator(".player").first
    seek, loop = player.get_by_role("slider"), player.get_by_role("checkbox")
    seek.click(position={"x": seek.bounding_box()["width"] * 0.9, "y": 20})
    assert float(seek.input_value()) == pytest.approx(0.9 * _SECONDS, abs=0.02)
    loop.check()
    page.keyboard.press("Escape")
    player.get_by_role("button", name="Play").press("Enter")
    browser_lib.until(page, "heard.length == 2")
    heard = page.evaluate("heard")
    assert heard[0]["offset"] == pytest.approx(0.9 * _SECONDS, abs=0.02) and heard[1]["offset"] == 0
    loop.uncheck()
    browser_lib.until(page, "document.querySelector('.play').innerText.startsWith('Play')")
    assert seek.input_value() == "0" and len(page.evaluate("heard")) == 2


def test_without_script_every_sound_has_its_own_player(browser, address):
    context = browser.new_context(**_PHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("audio:visible").count() >= 9 and not page.locator(".play:visible").count()
    context.close()


@pytest.mark.parametrize("part", [".plot", "img.chart", "svg.map"])
def test_pictures_are_drawn_in_the_colours_of_the_scheme(open_page, part):
    pictures = {}
    for scheme in ("light", "dark"):
        picture = open_page(_DESK, scheme).locator(part).first.screenshot()
        pictures[scheme] = _mean_level(picture)
    assert pictures["dark"] + 50 < pictures["light"]


def _mean_level(png: bytes) -> float:
    """Of a picture's pixels, 0 to 255."""
    return 255 * float(image.imread(io.BytesIO(png))[..., :3].mean())
