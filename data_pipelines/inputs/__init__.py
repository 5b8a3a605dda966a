# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What shards are built from, and the ways in which people keep sound and its texts."""
