# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A page that tests read: its tags, addresses and text."""

import html.parser

_VOID = {"meta", "img", "link", "input"}


class Page(html.parser.HTMLParser):
    """Collects tags, addresses and text, and fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.addresses, self.said, self.tags = [], [], [], []
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
        self.said.append(data.strip("\n"))  # lines of the source are none of the page
