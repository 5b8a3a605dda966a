# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The model of an exported folder, with weights that may have been trained on in PyTorch.

JAX is imported where weights are read: what a folder is that nobody changed is known without.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import exported_fingerprints


def open_run(folder: str) -> exported.Exported:
    """The last run that an exported folder holds, with those before it; see `read`."""
    run = read(folder)
    for stage in exported_config.stages(run.written)[1:]:
        run = _run(folder, run.written, stage, run)
    return run


def read(folder: str) -> exported.Exported:
    """The autoencoder of an exported folder, as the run that it was.

    Its weights are checked, unless they and their config are those that the export has read back.

    Raises:
        ValueError: where the folder is of another model or format, or its weights are not whole,
            not finite or not those of its config.json.
    """
    run = _run(folder, exported_config.read(folder), "autoencoder", None)
    prints = exported_fingerprints.read(folder)
    if prints is None:
        from f3tok_jax.pretrained import exported_weights

        prints = exported_weights.fingerprints_of(run)
    return dataclasses.replace(run, prints=prints)


def _run(
    folder: str, written: Mapping[str, Any], stage: str, parent: exported.Exported | None
) -> exported.Exported:
    def load(abstract: Mapping[str, Any]) -> dict[str, Any]:
        from f3tok_jax.pretrained import exported_weights

        return exported_weights.load(folder, written, abstract)

    with config_lib.values_of(folder):
        return exported.Exported(
            workdir=folder,
            config=exported_config.config_of(written, stage),
            step=written["step"],
            written=written,
            load=load,
            parent=parent,
        )
