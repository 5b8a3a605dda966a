# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A generation run's modules: what it trains, and the models of the representation run below it."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from data_pipelines.reading import tasks
from f3tok_jax.devices import sharding
from f3tok_jax.models import adaptation
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.training import state as train_state

# The players; of the encoder's weights and the language model's a difference is trained.
HEAD, LANGUAGE_MODEL, ENCODER = "head", "language_model", "encoder"

TRAINED = ("nothing", "encoder")  # of the representation run


class Model:
    """What the stage trains and what it reads: shapes at once, weights when they are asked for.

    Attributes:
        run: finished, or about to begin.
        config: of the run.
        representation: the run that it builds on; a mere config where none is named.
        frozen: the autoencoder and the language model of that.
        generator: the modules of generation, the head's among them.
        sampler: of evaluation; its latents are of rms 1, see `lineage.Lineage.latent_rms`.
    """

    def __init__(self, run: lineage.Lineage):
        """Makes the modules.

        Raises:
            ValueError: where a folder is not what it must be, or the representation run had no
                language model.
        """
        self.run, self.config = run, run.config
        section, config = run.config.representation, run.config
        weights.check_fields(run, flow_head.FlowHead, "latent_dim", "patch", "unrolled")
        self.representation = run.parents.get("representation") or lineage.Lineage(
            config=section.recipe
        )
        supervision = self.representation.config.supervision
        if not supervision.weight:
            raise ValueError(
                "config.representation.workdir must name a run with supervision, whose projector "
                f"the language model understands, got {section.workdir} with "
                "config.supervision.weight=0"
            )
        self.frozen = frozen_lib.FrozenModels(
            self.representation,
            reads_latents=config.data.latents,
            compute_dtype=config.language_model.compute_dtype,
            remat=config.language_model.remat,
        )
        self.generator = generator.Generator(
            encoder=pretrained_representation.make_encoder(
                self.representation, input_noise=config.flow.encoder_noise
            ),
            projector=pretrained_representation.make_projector(
                self.representation.config, self.frozen.language_model.width
            ),
            language_model=self.frozen.language_model,
            head=flow_head.FlowHead(
                latent_dim=run.sound.latent_dim, patch=supervision.patch, **config.model
            ),
        )
        self.sampler = sampler_lib.make(config.sampling, normalizes=run.normalizes_latents)

    def text_tasks(self) -> tasks.TextTasks:
        """The text that the run was trained on, with its tokenizer.

        Raises:
            ValueError: where the language model's folder has no such tokenizer.
        """
        return text_tasks(self.config.text, self.representation.language_model_folder)

    @property
    def trains_language_model(self) -> bool:
        return self.config.language_model.train != "nothing"

    @property
    def trains_encoder(self) -> bool:
        """Whether the representation encoder and its projector are trained on; not so in old runs."""
        return self.config.representation.get("train", "nothing") == "encoder"

    @property
    def players(self) -> tuple[str, ...]:
        language_model = (LANGUAGE_MODEL,) if self.trains_language_model else ()
        return (HEAD, *language_model, *((ENCODER,) if self.trains_encoder else ()))

    def abstract(self) -> dict[str, Any]:
        """Shapes and dtypes of what `load` gives: everything that is not trained."""
        return self.frozen.abstract() | self._abstract_modules()

    def _abstract_modules(self, *, boxed: bool = False) -> dict[str, Any]:
        modules = self.generator.encoder, self.generator.projector
        return pretrained_representation.abstract_params(*modules, boxed=boxed)

    def load(
        self, shardings: Mapping[str, Any], measured: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Loads every weight that is not trained to where it belongs.

        Args:
            shardings: a tree like `abstract()`.
            measured: nothing.

        Raises:
            ValueError: where a model is not named, or its files are not whole.
        """
        del measured
        self.check_named()
        modules = self._abstract_modules()
        own = {name: shardings[name] for name in modules}
        params, _ = pretrained_representation.load(self.representation, modules, shardings=own)
        rms = self.representation.latent_rms
        return self.frozen.load(shardings, latent_rms=rms) | params

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters of every player, boxed in their logical axes."""
        key_of = functools.partial(train_state.step_key, key, 0)
        section = self.config.language_model
        width = self.generator.language_model.width
        params = {HEAD: _init_head(self.generator.head, width, key_of(HEAD))}
        if self.trains_language_model:
            params[LANGUAGE_MODEL] = adaptation.init(
                key_of(LANGUAGE_MODEL),
                self.abstract()["language_model"],
                kind=section.train,
                rank=section.rank,
            )
        if self.trains_encoder:
            params[ENCODER] = adaptation.init(
                key_of(ENCODER), self._abstract_modules(boxed=True), kind="all", rank=1
            )
        return params

    def abstract_params(self) -> dict[str, Any]:
        """Shapes and dtypes of what a run trains, without shardings."""
        return sharding.unbox(jax.eval_shape(self.init_params, jax.random.key(0)))

    def check_named(self) -> None:
        """Raises ValueError where there are shapes, for compile_check, and no weights."""
        if not self.representation.workdir:
            raise ValueError(
                "config.representation.workdir must name a run of the representation stage, got ''"
            )
        self.frozen.check_named()


def _init_head(head: flow_head.FlowHead, width: int, key: jax.Array) -> Any:
    """Fresh parameters, boxed, for a language model of `width`."""
    noisy, history = ((1, count * head.patch, head.latent_dim) for count in (1, head.history))
    inputs = map(jnp.zeros, ((1, width), (1, width), (1,), noisy, history))
    return head.init(key, *inputs)["params"]


def abstract_head(head: flow_head.FlowHead, width: int) -> Any:
    """Shapes and dtypes of a head's parameters, for a language model of `width`."""
    init = functools.partial(_init_head, head, width)
    return sharding.unbox(jax.eval_shape(init, jax.random.key(0)))


def text_tasks(section: ml_collections.ConfigDict, folder: str) -> tasks.TextTasks:
    """The text of config.text, by the tokenizer of a folder."""
    chosen = {name: weight for name, weight in section.tasks.items() if weight}
    return tasks.TextTasks(folder, chosen, section.max_tokens)


def generator_weights(params: Any, frozen: Any) -> dict[str, Any]:
    """The weights of generator.Generator, of trained parameters and frozen models."""
    names = ("encoder", "projector", "language_model", "embedding_rms")
    found = {name: frozen[name] for name in names} | {HEAD: params[HEAD]}
    if LANGUAGE_MODEL in params:
        found[LANGUAGE_MODEL] = adaptation.apply(found[LANGUAGE_MODEL], params[LANGUAGE_MODEL])
    for name, difference in params.get(ENCODER, {}).items():
        found[name] = adaptation.apply(found[name], difference)
    return found


def load(
    run: lineage.Lineage, *, say: Callable[[str], None] = print
) -> tuple[Model, dict[str, Any], lineage.Lineage]:
    """The modules, the weights of `Model.generator` on the first device, and the run at their step.

    Args:
        run: of the generation stage.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the run, or one that it builds on, is of another version.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    with config_lib.values_of(run.workdir):
        model = Model(run)
        abstract, modules = model.abstract_params(), model._abstract_modules()
    params, run = weights.restore(run, abstract, say=say)
    below, _ = pretrained_representation.load(model.representation, modules, say=say)
    given = model.frozen.load_language_model() | below
    return model, generator_weights(params, given), run
