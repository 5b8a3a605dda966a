# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is copied into an exported folder: modules in PyTorch that need nothing of this package."""
