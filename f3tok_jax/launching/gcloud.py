# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What lies in a bucket, asked of the gcloud of this machine: its user may be known to it alone."""

import shutil
import subprocess

_SECONDS = 60.0  # for an answer
_NOTHING = ("matched no objects", "httperror 404", "not found: 404")  # the last of whole buckets


def can_ask(path: str) -> bool:
    """Whether gcloud is here and reads such places."""
    return path.startswith("gs://") and shutil.which("gcloud") is not None


def exists(path: str) -> bool:
    """Whether there is a file in a bucket.

    Raises:
        ValueError: where gcloud cannot tell, with its last words.
    """
    command = ["gcloud", "storage", "ls", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f"gcloud has not said in {_SECONDS:g} s what {path} is") from None
    if done.returncode == 0:
        return True
    words = done.stderr.strip().splitlines()
    said = done.stderr.replace(path, "").lower()  # A path may be of any words.
    if any(words_of_nothing in said for words_of_nothing in _NOTHING):
        return False
    raise ValueError(
        f"{path} must be readable from here, got {' '.join(words[-1:]) or 'no word'!r} of gcloud: run "
        "gcloud auth login, and see that the bucket's name is right"
    )
