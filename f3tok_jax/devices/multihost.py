# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run do together: agree at the start, and wait for each other."""

from collections.abc import Mapping, Sequence
import json

import jax
from jax.experimental import multihost_utils
import numpy as np

_TEXT_BYTES = 8192


def check_agreement(facts: Mapping[str, str]) -> None:
    """Refuses to start where processes differ in a fact; all processes must call it.

    Args:
        facts: name -> value, such as the hash of the config and the versions of libraries.

    Raises:
        ValueError: naming each fact with the values and who has them.
    """
    if jax.process_count() == 1:
        return
    everywhere = [json.loads(text) for text in gathered(json.dumps(dict(facts), sort_keys=True))]
    rows = []
    for name in sorted({name for there in everywhere for name in there}):
        who: dict[str, list[int]] = {}
        for process, there in enumerate(everywhere):
            who.setdefault(str(there.get(name)), []).append(process)
        if len(who) > 1:
            values = [f"{value} in processes {where[:8]}" for value, where in who.items()]
            rows.append(f"{name}: {', '.join(values)}")
    if rows:
        raise ValueError(
            f"all processes of a run must start alike, got {'; '.join(rows)}; install the same "
            "lock file and give the same command everywhere"
        )


def gathered(here: str) -> list[str]:
    """Returns the texts of all processes, in their order; all of them must call it.

    Raises:
        ValueError: for a text that is too long.
    """
    if jax.process_count() == 1:
        return [here]
    text = here.encode("utf-8")
    if len(text) > _TEXT_BYTES:
        raise ValueError(f"what processes exchange must fit {_TEXT_BYTES} bytes, got {len(text)}")
    # Texts of one length, so that even processes with different facts run the same program.
    padded = np.frombuffer(text.ljust(_TEXT_BYTES, b"\0"), np.uint8).astype(np.int32)
    everywhere = np.asarray(multihost_utils.process_allgather(padded)).astype(np.uint8)
    return [bytes(row).rstrip(b"\0").decode("utf-8") for row in everywhere]


def barrier(name: str) -> None:
    """Waits until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def all_agree(here: bool) -> bool:
    """Returns whether `here` is true in every process; all of them must call it."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array([here]))))


def gathered_numbers(here: Sequence[int]) -> list[tuple[int, ...]]:
    """Returns whole numbers of all processes, in their order; all of them must call it."""
    # As text: JAX would keep half of a number of 64 bits.
    return [tuple(json.loads(there)) for there in gathered(json.dumps(list(here)))]
