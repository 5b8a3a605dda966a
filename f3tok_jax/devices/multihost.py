# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run do together: agree at the start, and wait for each other."""

from collections.abc import Mapping, Sequence
import json
import socket

import jax
from jax.experimental import multihost_utils
import numpy as np

from f3tok_jax.devices import agreement

_TEXT_BYTES = 8192


def check_agreement(facts: Mapping[str, str]) -> None:
    """Refuses to start where processes differ in a fact; all processes must call it.

    Args:
        facts: name -> value, such as the hash of the config and the versions of libraries.

    Raises:
        agreement.Differing: naming each fact with the values and who has them.
    """
    if jax.process_count() == 1:
        return
    here = json.dumps(dict(host=socket.gethostname(), facts=dict(facts)))
    everywhere = [agreement.Start(**json.loads(text)) for text in gathered(here)]
    agreement.check(dict(enumerate(everywhere)))


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
