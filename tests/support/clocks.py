# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A clock that a test sets."""


class Clock:
    """Tells `now`, in seconds."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
