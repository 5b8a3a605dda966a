# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that Debian's packages carry, as an input.

Read in this order:

    apt                            packages, fetched by apt's own client and kept unpacked
    packages.toml, catalogue       what they hold: sounds, languages, speakers, licences; sets of them
    utterances, dialogs, stamps    what is said, as each family of packages has it
    doubts                         texts that cannot be those of their sounds
    recordings                     the input
"""
