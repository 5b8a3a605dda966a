# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Chips, processes and meshes; the only floor that asks the machine."""
