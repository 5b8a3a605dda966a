# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the user wants to hear of a run, and how: nothing here changes what it learns."""

from collections.abc import Callable, Mapping
import dataclasses

from f3tok_jax.runs import loggers as loggers_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reports:
    """What a run tells beside what its config says; it is in no config, and may differ next time.

    Attributes:
        age: seconds since its process began.
        price: dollars for a chip-hour, where it is known.
        bar: one of bar.MODES.
        loggers: by the name that the user gave.
        profile_steps: the first and the last step of a trace; None for none.
    """

    age: Callable[[], float] = lambda: 0.0
    price: float | None = None
    bar: str = "off"
    loggers: Mapping[str, loggers_lib.Maker] = dataclasses.field(default_factory=dict)
    profile_steps: tuple[int, int] | None = None
