# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a build leaves behind on disks of other kinds."""

import errno
import fcntl

from data_pipelines.reading import sources
from tests.support import sounds


def test_a_file_system_without_locks_is_built_on(tmp_path, monkeypatch, caplog):
    def none(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert len(sources.ShardSet(sounds.shard_set(tmp_path)))
    assert "lock cannot be locked (No locks available)" in caplog.text
