# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps over the recipes: what is varied, with which seeds, and what ranks the runs."""
