# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A cloud of folders, and the real xpk, for each test that asks for one."""

import os
import pathlib
import shutil

import pytest

from tests.support import launching


@pytest.fixture
def cloud(tmp_path):
    return launching.Cloud(tmp_path)


@pytest.fixture
def real_xpk(tmp_path):
    """A program that asks the real xpk for a dry run, and keeps the manifest."""
    found = os.environ.get("F3TOK_XPK") or shutil.which("xpk")
    if found is None:
        pytest.skip("xpk is not installed (see the top of test_xpk.py)")
    (tmp_path / "empty").mkdir()
    program = tmp_path / "real_xpk"
    # Without a home and without gcloud: a dry run needs neither, and changes nothing.
    program.write_text(
        "#!/bin/bash\n"
        'if [[ "$2" != create ]]; then exit 0; fi\n'
        f'exec env -i HOME="{tmp_path}/empty" PATH="{tmp_path}/empty" TELEMETRY_ENABLED="$TELEMETRY_ENABLED" '
        f'"{pathlib.Path(found).absolute().parent}/python" "{found}" "$@" --dry-run '
        f'--output-manifest-file="{tmp_path}/manifest.yaml"\n'
    )
    program.chmod(0o755)
    return program
