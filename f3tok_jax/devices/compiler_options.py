# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Options of XLA that a config asks for, by the platform it compiles for."""

from collections.abc import Mapping


def parse(options: Mapping[str, str], platform: str) -> dict[str, str] | None:
    """Returns what jax's `compile(compiler_options=)` takes.

    Args:
        options: config.compiler, for each platform "name=value,name=value" or "".
        platform: "cpu", "gpu" or "tpu"; one that `options` lacks has none.

    Raises:
        ValueError: an entry is no pair of a name and a value.
    """
    parsed = {}
    for entry in filter(None, options.get(platform, "").split(",")):
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or not value:
            raise ValueError(
                f"config.compiler.{platform} must be name=value,name=value, got {entry!r}"
            )
        parsed[name] = value
    return parsed or None
