# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What makes runs of small models worth killing. JAX calls `initialize` of whatever lies in a
folder of this name on the path, when it looks for devices.

Every process keeps what it has compiled, where JAX has the first alone do so: the programs of a CPU
differ from process to process, and a second one would compile for a minute at each start. And a
step takes as long as one of a larger model: within a second, all of a small run's would be over
before the processes had agreed on leaving.

A file that $RELIABILITY_HASHES names gets a line for every batch: by name, a hash of each row.
"""

import json
import os
import time
import types
import zlib

_STEP_SECONDS = 0.3


def initialize() -> None:
    from jax._src import compiler  # nothing public decides who writes

    from f3tok_jax.devices import sharding
    from f3tok_jax.training import progress

    first = types.SimpleNamespace(process_id=0, client=None)
    compiler.distributed = types.SimpleNamespace(global_state=first)
    line = progress.Progress.line

    def slow_line(*arguments):
        time.sleep(_STEP_SECONDS)
        return line(*arguments)

    progress.Progress.line = slow_line

    place = sharding.host_to_global

    def hashed_place(batch, mesh):
        hashes = {name: [zlib.crc32(row.tobytes()) for row in batch[name]] for name in batch}
        with open(os.environ["RELIABILITY_HASHES"], "a", encoding="utf-8") as file:
            file.write(json.dumps(hashes) + "\n")
        return place(batch, mesh)

    if "RELIABILITY_HASHES" in os.environ:
        sharding.host_to_global = hashed_place
