# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The one loop and what it needs: a stage's programs, state, optimizers, guards."""
