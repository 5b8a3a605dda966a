# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The one transformer: language model, representation encoder and flow head are made of it."""
