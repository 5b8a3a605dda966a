# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A cloud of folders for each test that asks for one."""

import pytest

from tests.support import launching


@pytest.fixture
def cloud(tmp_path):
    return launching.Cloud(tmp_path)
