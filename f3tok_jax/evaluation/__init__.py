# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How good a run is: measures, baselines, and what they are measured on."""
