# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps: many runs of one recipe, planned as data, trained by whatever trains one run.

space says what a sweep is, sweep_file reads one, plan makes its runs, places says where they are
trained, job is the process of one, driver keeps them going, pruning names the worse ones, stopping
ends all, status tells from the folders alone how far they are, and commands is what the program does;
finishing has runs trained to their ends for what is measured of them.
"""
