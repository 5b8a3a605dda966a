# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The user's cache: by the environment, if that names a place, else below the home."""

import pytest

from data_pipelines.records import user_cache


@pytest.mark.parametrize("given, wanted", [("/x", "/x"), ("x", "HOME/.cache"), ("", "HOME/.cache")])
def test_the_cache_lies_where_the_user_keeps_such_things(given, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    wanted = wanted.replace("HOME", str(tmp_path))
    assert str(user_cache.folder("debian")) == f"{wanted}/f3tok_jax/debian"
