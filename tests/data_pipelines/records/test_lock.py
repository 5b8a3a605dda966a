# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A lock keeps others out while it is held, and a file system without locks is said."""

import errno
import fcntl

import pytest

from data_pipelines.records import lock


def test_one_at_a_time(tmp_path):
    path = tmp_path / "new" / "lock"
    with lock.take(path):
        with pytest.raises(BlockingIOError):
            lock.take(path)
    lock.take(path).close()
    lock.take(path, wait=True).close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_gone_on_with(
    number, tmp_path, monkeypatch, caplog
):
    def none(handle, operation):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock.take(tmp_path / "lock").close()
    assert "lock cannot be locked (No locks available): nothing keeps a second" in caplog.text
