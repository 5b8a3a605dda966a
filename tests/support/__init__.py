# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What tests share: small models, sounds, runs and stand-ins."""
