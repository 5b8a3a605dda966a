# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The door that says what a slice is."""

import pathlib
import subprocess
import sys

from f3tok_jax import slices

_ROOT = pathlib.Path(__file__).parents[2]


def test_a_slice_is_described(capsys):
    assert slices.main(["v5litepod-16", "--num_slices=2"]) == 0
    printed = capsys.readouterr().out
    assert "2 slices of v5e:4x4: 32 chips, 8 hosts, 32 devices of 15.75 GiB" in printed
    assert "38.40 dollars, on demand, list price" in printed
    assert slices.main(["tpu7x-8"]) == 0
    printed = capsys.readouterr().out
    assert "in a cluster (GKE) alone" in printed and "not known, give --price" in printed


def test_a_price_of_ones_own_wins(capsys):
    assert slices.main(["v5p-128", "--price=0.5"]) == 0
    assert "32.00 dollars, at --price" in capsys.readouterr().out


def test_what_no_product_is_ends_with_1_and_a_sentence(capsys):
    assert slices.main(["v6e-7"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("f3tok_jax.slices: --accelerator must be a slice that exists")


def test_it_needs_nothing_that_is_installed():
    # -S: none of the environment's packages; -I would leave out this folder, too.
    command = [sys.executable, "-S", "-m", "f3tok_jax.slices", "v5e-16", "--shell"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    facts = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert facts["SLICE_TYPE"] == "v5litepod-16" and facts["XPK_TYPE"] == "v5litepod-4x4"
    assert facts["CHIPS"] == "16" and facts["HOSTS"] == "4" and facts["PRICE_HOUR"] == "19.20"
