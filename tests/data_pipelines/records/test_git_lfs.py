# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Git LFS pointers are told from what they point to."""

import pytest

from data_pipelines.records import git_lfs


def test_a_pointer_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "sound.wav"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert git_lfs.is_pointer(path)
    with pytest.raises(ValueError, match="sound.wav must be the file itself.* git lfs pull"):
        git_lfs.refuse(path)


@pytest.mark.parametrize("content", [b"", b"version 2", b"RIFF1234WAVE", b'{"version": 1}'])
def test_other_files_are_none(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    git_lfs.refuse(tmp_path / "other")
