# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Flax modules and what they are made of: pure functions of parameters and arrays."""
