# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The modules of finished runs with their averaged weights, under the nouns of models."""
