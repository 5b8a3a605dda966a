# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, damaged and starved, and how they end: programs, and tests of them."""
