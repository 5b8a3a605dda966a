# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The shards that a process has open: of all its sets together, as many as it may."""

import collections
import errno
import os
import resource
import threading
import weakref

from array_record.python import array_record_module

# Records are read one at a time and far apart, so reading ahead would only cost.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_MOST = 512  # a reader holds a file and, by the length of its shard, up to 1 MB


class OpenShards:
    """Readers of the shards that were read last; safe to share between threads.

    Opening a shard costs about 0.15 ms, reading a record of a second about 0.05.
    """

    def __init__(self, most: int = 0):
        """Keeps at most so many; 0 for half of the files that the process may open, or 512."""
        self._most, self._lock = most, threading.Lock()
        self._readers: collections.OrderedDict = collections.OrderedDict()
        self._has_lost_owner = False

    def reader(
        self, owner: object, path: str, num_records: int
    ) -> array_record_module.ArrayRecordReader:
        """The reader of a shard.

        Args:
            owner: that the shard belongs to: another one, later, may find another file there. What it
                has open is closed after it is gone, when the next shard is opened.
            path: of its file.
            num_records: that it must have.

        Raises:
            ValueError: where it has not as many.
            OSError: where the file cannot be opened; TooManyFilesError where the process may open
                no more of any.
        """
        key = weakref.ref(owner), path
        with self._lock:
            if key in self._readers:
                self._readers.move_to_end(key)
                return self._readers[key]
        _check_opens(path)
        # As bytes: in a locale that is not UTF-8 the text of a name is not its bytes in C++.
        reader = array_record_module.ArrayRecordReader(os.fsencode(path), _READER_OPTIONS)
        found = reader.num_records()
        if found != num_records:
            _check_opens(path)
            raise ValueError(f"the shard has {found} records, not {num_records}")
        with self._lock:
            if self._has_lost_owner:
                self._has_lost_owner = False
                for gone in [one for one in self._readers if one[0]() is None]:
                    del self._readers[gone]
            while len(self._readers) >= (self._most or _most_open()):
                # Dropped, not closed: another thread may be reading from it.
                self._readers.popitem(last=False)
            self._readers[weakref.ref(owner, self._lose_owner), path] = reader
        return reader

    def _lose_owner(self, _: weakref.ref) -> None:
        # Without the lock, which whoever happens to collect it may hold.
        self._has_lost_owner = True


class TooManyFilesError(OSError):
    """The process, or its machine, has as many files open as it may: no fault of any of them."""


def _check_opens(path: str) -> None:
    """Opens a file and closes it: of one that cannot be opened the reader says that it is empty."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        why = (
            f"this process has all of the {limit} files open that it may: raise the limit, as by "
            "`ulimit -n 4096`"
        )
        if error.errno == errno.ENFILE:
            why = (
                "this machine has as many open as it may: end other programs, or raise fs.file-max"
            )
        raise TooManyFilesError(f"{path} must be opened, and {why}") from error


def _most_open() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if limit == resource.RLIM_INFINITY else max(1, min(_MOST, limit // 2))


SHARED = OpenShards()  # of all sets: each with its own would be too many with the third set
