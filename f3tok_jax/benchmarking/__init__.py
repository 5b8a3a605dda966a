# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How fast things are on the machine at hand, each beside what it is compared with."""
