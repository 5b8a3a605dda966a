# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Containers of sound, walked without decoding: whole, truncated, damaged, one stream or several."""
