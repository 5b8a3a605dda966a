# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An input that kills its reader; by itself, as the processes of a build import it to read it."""

import contextlib
import dataclasses
import os
import signal

from data_pipelines.inputs import folders


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A folder of which reading the third sound kills the process, and the fourth raises."""

    folder: str

    def settings(self):
        return {"source": "deadly"}

    def listed(self):
        return folders.Folder(self.folder).listed()

    @contextlib.contextmanager
    def opened(self, item):
        if item.index == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if item.index == 3:
            raise KeyError("surprise")
        with folders.Folder(self.folder).opened(item) as sound:
            yield sound
