# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The shards of a run against their checksums, by all of its processes together."""

from collections.abc import Callable, Mapping

import jax

from data_pipelines import command
from f3tok_jax.devices import multihost
from f3tok_jax.training import stage as stage_lib


def verify(opened: Mapping[str, stage_lib.Data], *, say: Callable[[str], None]) -> None:
    """Compares every byte of the shards; all processes must call it.

    Processes that read one copy, as on a shared disk, compare a part of it each. Where there are
    several copies, as of a bucket, each compares all of its own.

    Args:
        opened: batches by the key of the config that names their shards.
        say: where progress goes.

    Raises:
        ValueError: in every process, naming a shard of any of them that differs.
    """
    failure = ""
    for key, data in opened.items():
        index, count = jax.process_index(), jax.process_count()
        if len(set(multihost.gathered(data.copy))) > 1:
            index, count = 0, 1
        try:
            data.verify(index=index, count=count, say=lambda text: say(f"{key}: {text}"))
        except (ValueError, OSError) as error:
            failure = failure or command.explain(error)
    for failure in filter(None, multihost.gathered(failure)):
        raise ValueError(failure)
