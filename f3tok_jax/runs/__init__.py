# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run on disk: config, lineage, checkpoints, metrics and results."""
