# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What reads the representations of an exported folder and answers."""

from typing import Any

import jax.numpy as jnp

from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.pretrained import exported_language_model
from f3tok_jax.pretrained import exported_weights
from f3tok_jax.pretrained import reader as reader_lib
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config


def load(run: exported.Exported) -> tuple[reader_lib.Reader, dict[str, Any]]:
    """The modules of an exported representation run and their weights; see reader.load.

    Raises:
        ValueError: where the folder holds none, or they are not those of config.json, or not finite.
    """
    if not exported_config.answers(run.written):
        raise ValueError(
            f"{run.workdir} is an exported folder without what answers, as those of "
            "--without=answers, of earlier versions and of runs without supervision are: give the run of "
            "the representation stage that it was exported from, or export it again"
        )
    with config_lib.values_of(run.workdir):
        fields, supervision = run.written["answers"], run.config.supervision
        kinds = dict(compute_dtype=fields["compute_dtype"], remat="none")
        model = language_model_lib.make(fields["language_model"], **kinds)
        projector = pretrained_representation.make_projector(run.config, model.width)
        encoder = pretrained_representation.make_encoder(run)
        abstract = pretrained_representation.abstract_params(encoder, projector)
        del abstract["encoder"]
        text = reader_lib.text_tasks(supervision, run.workdir)
        dtype = jnp.dtype(fields["compute_dtype"])
    params = run.load({exported_weights.ANSWERS: abstract})[exported_weights.ANSWERS]
    _, part, *head = exported_config.answering_parts(run.written)
    params["language_model"] = exported_language_model.load(run, model, part, *head, dtype=dtype)
    reader = reader_lib.Reader(
        projector=projector,
        language_model=model,
        embedding_rms=fields["embedding_rms"],
        text=text,
    )
    return reader, params
