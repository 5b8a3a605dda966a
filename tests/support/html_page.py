# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A page that tests read: its tags, addresses, text and scripts."""

import base64
import hashlib
import html.parser
import importlib.resources

_SCRIPT = importlib.resources.files("f3tok_jax.reporting").joinpath("page.js.jinja").read_text()
_VOID = {"meta", "img", "link", "input"}


class Page(html.parser.HTMLParser):
    """Collects tags, addresses, text and scripts, and fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.addresses, self.said, self.tags, self.scripts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "data", "action")
        ]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.said.append(data.strip("\n"))  # lines of the source are none of the page


def check_passive(page: Page) -> None:
    """Nothing on the page does anything but its own script, which is the only one that may run."""
    tags, names = zip(*((tag, tuple(attributes)) for tag, attributes in page.tags))
    assert not {"iframe", "object", "embed", "form", "link", "base"} & {*tags}
    assert not [name for each in names for name in each if name.startswith("on")]
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    (script,) = page.scripts
    assert script == _SCRIPT.partition("#}\n")[2].rstrip("\n") and tags.count("script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policies = [a["content"] for _, a in page.tags if "http-equiv" in a]
    (policy,) = policies
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none';")
