# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Every entry of a folder and of those below it: a file that may be sound, or what else it is."""

import collections
from collections.abc import Iterator
import dataclasses
import os
import stat

from data_pipelines.records import manifest


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A regular file.

    Attributes:
        key: its path relative to the folder that was searched, with slashes.
        path: to open it by.
        real_path: what it is without links.
        num_bytes: its size.
        identity: equal for two entries that are the same file.
        is_link: whether it is a symbolic link, or a link has led to its folder.
    """

    key: str
    path: str
    real_path: str
    num_bytes: int
    identity: object
    is_link: bool


class Entries:
    """What a folder holds.

    Attributes:
        files: those that are visible, those that links lead to last; sorted otherwise.
        others: kind -> count of all that is no visible, regular file.
        unreadable: paths of folders that cannot be searched.
        outputs: paths of folders that builds have written, which are not searched.
    """

    def __init__(self, root: str):
        """Searches a folder with all below it, and where links lead; one file is itself.

        Raises:
            OSError: if the folder cannot be searched.
        """
        self.files, self.unreadable, self.outputs = [], [], []
        self.others = collections.Counter()
        self._root, self._visited, self._links = root, set(), []
        if os.path.isdir(root):
            os.scandir(root).close()  # It is an error here and no folder among others.
            self._search(root)
            while self._links:  # After all real folders, so that a sound has its real name.
                self._search(self._links.pop(0), through_link=True)
        else:
            folder, name = os.path.split(root)
            self._add(folder, name, os.path.realpath(folder), False)

    def _search(self, top: str, *, through_link: bool = False) -> None:
        """Searches a folder; links to other folders wait."""
        for folder, place, entries in self._folders(top):
            for entry in entries:
                if _is_hidden(entry.name):
                    kind = "folder" if entry.is_dir(follow_symlinks=False) else "file"
                    self.others[f"hidden {kind}"] += 1
                elif entry.is_dir() and entry.is_symlink():
                    self._links.append(entry.path)
                elif not entry.is_dir():
                    self._add(folder, entry.name, place, through_link)

    def _folders(self, top: str) -> Iterator[tuple[str, str, list[os.DirEntry]]]:
        """Yields (folder, its real path, its entries), of real ones below it too, each once."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            place = os.path.realpath(folder)
            if place in self._visited:
                self.others["link to the same folder"] += 1
                continue
            self._visited.add(place)
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError:
                self.others["unreadable folder"] += 1
                self.unreadable.append(folder)
                continue
            # Shards may lie below the sound they were built from. A rerun counts what the first did.
            if folder != self._root and manifest.is_output([entry.name for entry in entries]):
                self.outputs.append(folder)
                continue
            yield folder, place, entries
            real = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
            waiting += [entry.path for entry in reversed(real) if not _is_hidden(entry.name)]

    def _add(self, folder: str, name: str, place: str, through_link: bool) -> None:
        path = os.path.join(folder, name)
        is_link = os.path.islink(path)
        try:
            status = os.stat(path)
        except OSError:
            self.others["broken link" if is_link else "unreadable file"] += 1
            return
        if not stat.S_ISREG(status.st_mode):
            self.others["pipe, socket or device"] += 1
            return
        # Not all file systems number their files, and those without a second name need no number.
        real = os.path.realpath(path) if is_link else os.path.join(place, name)
        has_names = status.st_nlink > 1 and status.st_ino
        identity = (status.st_dev, status.st_ino) if has_names else real
        key = name if path == self._root else path.removeprefix(os.path.join(self._root, ""))
        is_link |= through_link
        self.files.append(File(key, path, real, status.st_size, identity, is_link))


def _is_hidden(name: str) -> bool:
    # The shadows that macOS leaves in archives look like sound.
    return name.startswith(".") or name == "__MACOSX"
