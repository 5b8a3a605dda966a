# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Every kind of file that strangers write: each writes a case and reads it."""

from tests.fuzz import data_files
from tests.fuzz import run_files

TARGETS = {
    "latents": data_files.latents,
    "language_model": run_files.language_model,
    "config": run_files.run_config,
    "metadata": run_files.metadata,
    "manifest": data_files.manifests,
    "records": data_files.records,
    "audio": data_files.audio,
    "report": run_files.report,
    "tables": data_files.tables,
}
