# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Every process keeps what it has compiled, where JAX has the first alone do so.

The programs of a CPU differ from process to process, and a second one would compile for a minute
each time that a run is started. JAX calls `initialize` of whatever lies in a folder of this name
on the path, when it looks for devices.
"""

import types


def initialize() -> None:
    from jax._src import compiler  # nothing public decides who writes

    first = types.SimpleNamespace(process_id=0, client=None)
    compiler.distributed = types.SimpleNamespace(global_state=first)
