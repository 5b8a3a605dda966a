# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""From audio files to batches of NumPy arrays. Never imports f3tok_jax."""
