# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Averaged weights of a finished run, for modules of the fields that it was trained with."""

from collections.abc import Callable, Collection, Mapping
import dataclasses
from typing import Any

from f3tok_jax.devices import sharding
from f3tok_jax.runs import lineage


def check_fields(
    run: lineage.Lineage, module: type, *given: str, later: Collection[str] = ()
) -> None:
    """Refuses a run of a version whose model has other fields than this one's.

    Args:
        run: whose config.model has the fields.
        module: the dataclass that is made of them.
        given: fields that come from elsewhere.
        later: fields that earlier versions did not have, whose defaults are what those did.

    Raises:
        ValueError: naming those that differ.
    """
    own = {field.name for field in dataclasses.fields(module)}
    wanted = own - {"parent", "name", *given}  # Linen's own two
    found = set(run.config.model)
    differing = [f"without model.{name}" for name in sorted(wanted - found - {*later})]
    differing += [f"with model.{name}" for name in sorted(found - wanted)]
    if differing:
        raise ValueError(
            f"{run.workdir or 'the config'} must be a run of this version of f3tok_jax, got a config.json "
            f"{', '.join(differing)}; train it again, or use the version that its "
            "logs/environment.json names"
        )


def restore(
    run: lineage.Lineage,
    abstract_params: Mapping[str, Any],
    shardings: Mapping[str, Any] | None = None,
    *,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], lineage.Lineage]:
    """Averaged weights of a run's checkpoint, and the run at the step that they are of.

    Args:
        run: to load from.
        abstract_params: player -> shapes and dtypes of its parameters, or of a part of them.
        shardings: a tree like it; default the first local device.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the arrays are of other shapes or dtypes.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    if shardings is not None:
        abstract_params = sharding.abstract(abstract_params, shardings)
    return run.restore(abstract_params, say=say)
