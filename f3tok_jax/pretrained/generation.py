# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the generation stage builds on: the models of a representation run, and the head."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from f3tok_jax.devices import sharding
from f3tok_jax.models import adaptation
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.training import state as train_state

HEAD, LANGUAGE_MODEL = "head", "language_model"  # the players

_MODULES = ("encoder", "projector")


class GenerationModels:
    """Frozen models of a generation run: shapes from configs at once, weights when asked for.

    Attributes:
        heard: config of the representation run, as this run uses it.
        frozen: its autoencoder and language model.
        generator: the modules of generation, the head's among them.
        fingerprints: of the weights that are named.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        """Reads configs and fingerprints.

        Args:
            config: of the generation run.

        Raises:
            ValueError: where a folder is not what it must be, or the run had no language model.
        """
        section = config.representation
        if section.workdir:
            lineage.read_config(section.workdir, "representation")
        heard = ml_collections.ConfigDict(config_lib.representation_of(config).to_dict())
        if not heard.supervision.weight:
            raise ValueError(
                "config.representation.workdir must name a run with supervision, whose projector "
                f"the language model understands, got {section.workdir} with "
                "config.supervision.weight=0"
            )
        heard.rq.weight = 0.0
        heard.data.latents = config.data.latents
        heard.model.input_noise = config.flow.encoder_noise
        for name in ("compute_dtype", "remat"):
            heard.language_model[name] = config.language_model[name]
        self.heard, self._workdir = heard, section.workdir
        self.frozen = pretrained_representation.FrozenModels(heard)
        width, latent_dim = self.frozen.language_model.width, self.frozen.sound.latent_dim
        self.generator = generator.Generator(
            encoder=pretrained_representation.make_encoder(heard, latent_dim),
            projector=pretrained_representation.make_projector(heard, width),
            language_model=self.frozen.language_model,
            head=flow_head.FlowHead(
                latent_dim=latent_dim, patch=heard.supervision.patch, **config.model
            ),
        )
        self.fingerprints = dict(self.frozen.fingerprints)
        if section.workdir:
            self._step, digest = lineage.modules_fingerprint(
                section.workdir, _MODULES, section.step
            )
            self.fingerprints["representation"] = digest

    def abstract(self) -> dict[str, Any]:
        """Shapes and dtypes of what `load` gives."""
        modules = pretrained_representation.abstract_modules(
            self.heard, self.frozen.language_model.width
        )
        return self.frozen.abstract() | {name: modules[name] for name in _MODULES}

    def load(self, shardings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        """Loads every weight to where it belongs.

        Args:
            shardings: a tree like `abstract()`.
            measured: nothing.

        Raises:
            ValueError: where a model is not named, or its files are not whole.
        """
        self.check_named()
        own = {name: shardings[name] for name in shardings if name not in _MODULES}
        arrays = self.frozen.load(own, dict(measured))
        return arrays | self.load_modules({name: shardings[name] for name in _MODULES})

    def load_on_one_device(self, *, say: Callable[[str], None] = print) -> dict[str, Any]:
        """Everything that `load` gives but the autoencoder, on the first device."""
        frozen = self.frozen.load_language_model()
        return frozen | self.load_modules(say=say)

    def load_modules(
        self,
        shardings: Mapping[str, Any] | None = None,
        *,
        say: Callable[[str], None] = print,
    ) -> dict[str, Any]:
        """Encoder and projector of the representation run, averaged weights; see `load`."""
        abstract = pretrained_representation.abstract_modules(
            self.heard, self.frozen.language_model.width
        )
        if shardings is not None:
            abstract = sharding.abstract(abstract, shardings)
        return pretrained_representation.restore_modules(
            self._workdir, abstract, self._step, say=say
        )[0]

    def check_named(self) -> None:
        """Raises ValueError where there are shapes, for compile_check, and no weights."""
        if not self._workdir:
            raise ValueError(
                "config.representation.workdir must name a run of the representation stage, got ''"
            )
        self.frozen.check_named()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains and what it reads; no arrays.

    Attributes:
        given: the frozen models and the modules.
        config: of the run.
        sampler: of evaluation.
    """

    given: GenerationModels
    config: ml_collections.ConfigDict
    sampler: sampler_lib.Sampler

    @property
    def generator(self) -> generator.Generator:
        return self.given.generator

    @property
    def trains_language_model(self) -> bool:
        return self.config.language_model.train != "nothing"

    @property
    def players(self) -> tuple[str, ...]:
        return (HEAD, LANGUAGE_MODEL) if self.trains_language_model else (HEAD,)


def make_model(config: ml_collections.ConfigDict) -> Model:
    """The modules of a run's config; reads the configs of the runs before it, no weights."""
    return Model(
        given=GenerationModels(config),
        config=config,
        sampler=sampler_lib.Sampler(**config.sampling),
    )


def generator_weights(params: Any, frozen: Any) -> dict[str, Any]:
    """The weights of generator.Generator, of trained parameters and frozen models."""
    weights = {
        name: frozen[name] for name in ("encoder", "projector", "language_model", "embedding_rms")
    }
    if LANGUAGE_MODEL in params:
        weights["language_model"] = adaptation.apply(
            weights["language_model"], params[LANGUAGE_MODEL]
        )
    return weights | {"head": params[HEAD]}


def init_state(
    key: jax.Array,
    *,
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
) -> train_state.TrainState:
    """Fresh parameters and optimizers, boxed in their logical axes."""
    key_of = functools.partial(train_state.step_key, key, 0)
    head, section = model.generator.head, model.config.language_model
    width = model.generator.language_model.width
    inputs = (
        jnp.zeros((1, width)),
        jnp.zeros((1, width)),
        jnp.zeros((1,)),
        jnp.zeros((1, head.patch, head.latent_dim)),
        jnp.zeros((1, head.history * head.patch, head.latent_dim)),
    )
    params = {HEAD: head.init(key_of(HEAD), *inputs)["params"]}
    if model.trains_language_model:
        params[LANGUAGE_MODEL] = adaptation.init(
            key_of(LANGUAGE_MODEL),
            model.given.abstract()["language_model"],
            kind=section.train,
            rank=section.rank,
        )
    return train_state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers.items()},
        ema_params=params,
    )


def abstract_params(model: Model) -> dict[str, Any]:
    """Shapes and dtypes of what a run trains, without shardings."""
    state = jax.eval_shape(
        functools.partial(init_state, model=model, optimizers={}), jax.random.key(0)
    )
    return sharding.unbox(state.params)
