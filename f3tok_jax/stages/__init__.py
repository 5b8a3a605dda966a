# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""One file per stage: what it learns, from which batches, by which losses."""
