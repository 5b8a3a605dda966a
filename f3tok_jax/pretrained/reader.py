# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What reads the representations of a run and answers: a projector and a frozen language model."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax.numpy as jnp

from data_pipelines.reading import tasks
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.pretrained import frozen
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import lineage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """A language model as a run has it read representations.

    Attributes:
        projector: representations to its embeddings, of rms 1.
        language_model: which reads them.
        embedding_rms: of its token table: the scale of all that it reads.
        text: what it is asked, and its text tokenizer.
    """

    projector: projector_lib.Projector
    language_model: language_model_lib.LanguageModel
    embedding_rms: float
    text: tasks.TextTasks


def load(
    run: lineage.Lineage, *, language_model: Any = None, say: Callable[[str], None] = print
) -> tuple[Reader, dict[str, Any]]:
    """The modules of a run and their weights, "projector" and "language_model".

    Args:
        run: of the representation stage.
        language_model: its parameters, where somebody has them.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the run was not supervised, or its language model is not the one that it
            was trained on.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    supervision, section = run.config.supervision, run.config.language_model
    if not supervision.weight:
        raise ValueError(
            "transcribing needs a run with supervision, got one with config.supervision.weight=0"
        )
    folder, dtype = run.language_model_folder, jnp.dtype(section.compute_dtype)
    model = pretrained_language_model.read(
        folder, compute_dtype=section.compute_dtype, remat="none"
    )
    params = language_model
    if params is None:
        params = pretrained_language_model.load_params(folder, model, dtype=dtype)
    projector, projector_params = pretrained_representation.load_projector(
        run, model.width, say=say
    )
    reader = Reader(
        projector=projector,
        language_model=model,
        embedding_rms=float(frozen.embedding_rms(model.table(params))),
        text=text_tasks(supervision, folder),
    )
    return reader, {"projector": projector_params, "language_model": params}


def text_tasks(supervision: Any, folder: str) -> tasks.TextTasks:
    """What config.supervision asks, by the tokenizer of a folder."""
    weights = {name: weight for name, weight in supervision.tasks.items() if weight}
    return tasks.TextTasks(folder, weights, supervision.max_tokens)
