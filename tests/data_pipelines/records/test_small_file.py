# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is no small file is refused before it is waited for or held."""

import os
import pathlib

from etils import epath
import pytest

from data_pipelines.records import small_file


@pytest.mark.parametrize("kind", [pathlib.Path, epath.Path])
def test_what_is_no_small_file_is_not_read(tmp_path, kind):
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        small_file.read_bytes(kind(path))
    path.write_text("\u00e4")
    assert small_file.read_text(kind(path)) == "\u00e4"
    with open(path, "wb") as file:
        file.truncate(small_file.MAX_BYTES + 1)
    with pytest.raises(ValueError, match="a must be a small file, got 67108865 bytes"):
        small_file.read_bytes(kind(path))
    os.mkfifo(tmp_path / "b")
    for other in (tmp_path / "b", tmp_path, pathlib.Path("/dev/zero")):
        with pytest.raises(ValueError, match="must be a file, got a folder, a pipe or a device"):
            small_file.read_bytes(kind(other))
