# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Options of XLA out of a config."""

import pytest

from f3tok_jax.devices import compiler_options


def test_options_of_the_platform_are_parsed():
    options = {"tpu": "a=1, b = 0.98,", "gpu": "c=true"}
    assert compiler_options.parse(options, "tpu") == {"a": "1", "b": "0.98"}
    assert compiler_options.parse(options, "gpu") == {"c": "true"}


@pytest.mark.parametrize("options", [{}, {"cpu": ""}, {"tpu": "a=1"}])
def test_a_platform_without_options_has_none(options):
    assert compiler_options.parse(options, "cpu") is None


@pytest.mark.parametrize("entry", ["a", "=1", "a="])
def test_an_entry_that_is_no_pair_is_refused(entry):
    with pytest.raises(ValueError, match=r"config\.compiler\.tpu must be name=value"):
        compiler_options.parse({"tpu": f"b=2,{entry}"}, "tpu")
