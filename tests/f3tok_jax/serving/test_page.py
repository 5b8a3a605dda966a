# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page: it has what the run can do, names nothing elsewhere, and everything in it is labelled."""

import pathlib
import re

import pytest

from f3tok_jax.serving import page
from tests.support import html_page

_MODEL = dict(
    model="runs/<b>",
    step=1234,
    sample_rate=24_000,
    latent_rate=25.0,
    latent_dim=64,
    questions=["transcription", "caption"],
    kinds=["transcription"],
    limits=dict(seconds=60.0, num_bytes=32_000_000, characters=500),
)


def _page(**changes) -> html_page.Page:
    return html_page.Page(page.render({**_MODEL, **changes}))


def _ids(read: html_page.Page) -> list[str]:
    return [attributes["id"] for _, attributes in read.tags if "id" in attributes]


def test_it_has_what_the_run_can_do():
    whole, coder = _ids(_page()), _ids(_page(questions=[], kinds=[]))
    assert {"record", "original", "made", "latents", "answer", "text"} <= {*whole}
    assert {"record", "original", "made", "latents"} <= {*coder}
    assert not {"answer", "question", "text"} & {*coder}
    assert len({*whole}) == len(whole)


def test_what_it_is_told_is_escaped():
    text = page.render(_MODEL)
    assert "runs/&lt;b&gt;" in text and "<b>" not in text
    assert "24,000 Hz is 25 latents" in text and "step 1,234" in text


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_in_the_page():
    found = _page()
    assert {*found.addresses} == page.FILES.keys() - {"recorder.js"}
    assert not any(name == "style" or name.startswith("on") for _, a in found.tags for name in a)
    assert [a for tag, a in found.tags if tag == "script"] == [
        {"type": "module", "src": "page.js"}
    ] and not [tag for tag, _ in found.tags if tag == "style"]
    for name in page.FILES:
        content = page.content(name).decode()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|localhost)", content)
        assert "SPDX-License-Identifier: Apache-2.0" in content
    assert '"recorder.js"' in page.content("page.js").decode()


@pytest.mark.parametrize("kinds", [["transcription"], ["transcription", "caption"]])
def test_everything_that_is_used_has_a_name(kinds):
    found = _page(kinds=kinds)
    labelled = {a["for"] for tag, a in found.tags if tag == "label"}
    for tag, attributes in found.tags:
        if tag in ("select", "textarea", "input") and attributes.get("type") != "hidden":
            assert attributes["id"] in labelled or attributes.get("aria-label"), attributes
        if tag in ("audio", "meter", "canvas"):
            assert attributes.get("aria-label"), attributes


def test_the_script_names_nothing_that_is_not_in_the_page():
    script = page.content("page.js").decode()
    named = {*re.findall(r'(?:\$|say)\("(\w+)"', script)}
    assert named and named <= {*_ids(_page())}


def test_all_of_it_is_in_the_package():
    declared = pathlib.Path(__file__).parents[3].joinpath("setup.py").read_text(encoding="utf-8")
    (given,) = re.findall(r'"f3tok_jax.serving": \[(.*)\]', declared)
    endings = {pathlib.Path(name).suffix for name in (*page.FILES, "page.html.jinja")}
    assert {f"*{ending}" for ending in endings} == {*re.findall(r'"(.*?)"', given)}
