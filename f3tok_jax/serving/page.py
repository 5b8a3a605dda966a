# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a browser shows: a template and the files that it names, beside this one."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

# Name -> media type of what the page loads.
FILES = {
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "page.js": "text/javascript",
    "recorder.js": "text/javascript",
}


def render(model: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        model: what answers.Answers.model says.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("f3tok_jax.serving", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(model)


@functools.cache
def content(name: str) -> bytes:
    """One of `FILES`."""
    return pathlib.Path(__file__).with_name(name).read_bytes()
