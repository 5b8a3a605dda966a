# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which leaves weight decay pulls at: a rule by their names, and no leaf without one."""

from collections.abc import Mapping
import re
from typing import Any

import jax

from f3tok_jax.runs import fingerprint


def mask(params: Any, table: Mapping[str, bool], player: str) -> Any:
    """Returns a tree like `params`: True where a leaf decays.

    By rank nothing can be told: a scan over layers stacks gains to matrices, and a learned token is
    a matrix of one row.

    Args:
        params: one player's tree or a part of it; leaves may be in boxes.
        table: config.decays, name of a leaf -> whether it decays; conv_0_kernel, conv_1_kernel, ...
            are there as conv_kernel.
        player: where the tree belongs, for messages.

    Raises:
        ValueError: for a leaf that the table does not name, with its path.
    """

    def rule(path: Any, leaf: Any) -> bool:
        del leaf
        # The path of a leaf in a box ends in the box.
        keys = [entry for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        name = re.sub(r"_\d+(?=_|$)", "", keys[-1].key)
        if name not in table:
            raise ValueError(
                f"config.decays must say of every leaf whether it decays, got none for {name!r} "
                f"({player}/{fingerprint.path_name(keys)}); add it to decays() of "
                "configs/sections.py: True for matrices, False for what has a scale of its own"
            )
        return bool(table[name])

    return jax.tree.map_with_path(rule, params)
