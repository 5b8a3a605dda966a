# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What simple classifiers read off a run's features, and how steady a run's targets are."""
