# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Autoencoders compared: trained alike, with what is trained on each, and measured alike."""
