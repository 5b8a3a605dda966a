# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion-transformer run's modules: what it trains, and the frozen models that it reads with."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from f3tok_jax.devices import sharding
from f3tok_jax.models import diffusion_transformer
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.pretrained import weights as weights_lib
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.training import state as train_state

PLAYER = "diffusion_transformer"  # the stage's name, and its only player


class Model:
    """What the stage trains and what it reads: shapes at once, weights when they are asked for.

    Attributes:
        run: finished, or about to begin.
        config: of the run.
        frozen: the autoencoder and the language model.
        module: that is trained.
        sampler: of evaluation; its latents are of rms 1, see `lineage.Lineage.latent_rms`.
    """

    def __init__(self, run: lineage.Lineage):
        """Makes the modules.

        Raises:
            ValueError: where a folder is not what it must be.
        """
        self.run, self.config, config = run, run.config, run.config
        module = diffusion_transformer.DiffusionTransformer
        weights_lib.check_fields(run, module, "latent_dim", "unrolled")
        self.frozen = frozen_lib.FrozenModels(
            run,
            reads_latents=config.data.latents,
            compute_dtype=config.language_model.compute_dtype,
            remat=config.language_model.remat,
        )
        self.module = module(latent_dim=run.sound.latent_dim, **config.model)
        self.sampler = sampler_lib.make(config.sampling, normalizes=run.normalizes_latents)

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters, boxed in their logical axes."""
        frame, token = jnp.ones((1, 1), bool), self.frozen.language_model.width
        inputs = jnp.zeros((1, 1, self.module.latent_dim)), frame, jnp.zeros(1)
        text = jnp.zeros((1, 1, token)), frame
        key = train_state.step_key(key, 0, PLAYER)
        return {PLAYER: self.module.init(key, *inputs, *text)["params"]}

    def abstract_params(self) -> dict[str, Any]:
        """Shapes and dtypes of what a run trains, without shardings."""
        return sharding.unbox(jax.eval_shape(self.init_params, jax.random.key(0)))

    def load_frozen(self, shardings: Mapping[str, Any], measured: Mapping[str, Any]) -> Any:
        """Every weight that is not trained, where it belongs; see stage.Stage."""
        # Not measured where the autoencoder normalises.
        return self.frozen.load(shardings, latent_rms=measured.get(lineage.LATENT_RMS, 1.0))

    def read(self, frozen: Any, text: jax.Array, text_mask: jax.Array) -> jax.Array:
        """What the language model makes of texts; no gradient flows to it.

        Args:
            frozen: with "language_model".
            text: [b, s] int32 token ids.
            text_mask: [b, s] bool, True from the front.

        Returns:
            [b, s, width] float32, zero where the mask is False.
        """
        with jax.named_scope("language_model"):
            model = self.frozen.language_model.bind({"params": frozen["language_model"]})
            states = model(model.embed(text), segments=text_mask.astype(jnp.int32))
        states = jnp.where(text_mask[..., None], states.astype(jnp.float32), 0.0)
        return jax.lax.stop_gradient(states)


def load(
    run: lineage.Lineage, *, say: Callable[[str], None] = print
) -> tuple[Model, dict[str, Any], lineage.Lineage]:
    """The modules, their weights on the first device, "language_model" and PLAYER, and the run at their
    step.

    Args:
        run: of the diffusion-transformer stage.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the run, or one that it builds on, is of another version.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    with config_lib.values_of(run.workdir):
        model = Model(run)
        abstract = model.abstract_params()
    params, run = weights_lib.restore(run, abstract, say=say)
    return model, params | model.frozen.load_language_model(), run
