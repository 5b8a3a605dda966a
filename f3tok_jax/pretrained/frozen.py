# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder and the language model that a later stage reads and never trains."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.runs import lineage
from f3tok_jax.training import stage


class FrozenModels:
    """What a run on latents is trained on: shapes at once, weights when they are asked for.

    Attributes:
        run: whose own config names the models, finished or about to begin.
        sound: of its latents.
        autoencoder: module.
        language_model: module, None where the run reads none.
    """

    def __init__(
        self, run: lineage.Lineage, *, reads_latents: bool, compute_dtype: str, remat: str
    ):
        """Makes the modules.

        Args:
            run: of the representation stage, or another one whose config has its sections.
            reads_latents: whether batches hold latents, so that the autoencoder is not needed.
            compute_dtype: of the language model.
            remat: likewise.

        Raises:
            ValueError: where a folder is not what it must be.
        """
        self.run, self.sound, self._reads_latents = run, run.sound, reads_latents
        self._dtype = jnp.dtype(compute_dtype)
        self._autoencoder_run = run.parents.get("autoencoder")
        self.autoencoder = pretrained_autoencoder.of_run(
            self._autoencoder_run or lineage.Lineage(config=run.config.autoencoder.recipe)
        )
        self.language_model = None
        if run.reads_language_model:
            fields = dict(compute_dtype=compute_dtype, remat=remat)
            section = run.config.language_model
            if section.folder:
                folder = run.language_model_folder
                self.language_model = pretrained_language_model.read(folder, **fields)
            else:
                self.language_model = language_model_lib.make(section.shape.to_dict(), **fields)

    def abstract(self) -> dict[str, Any]:
        """Shapes and dtypes of what `load` gives."""
        tree = {}
        if not self._reads_latents:
            tree["autoencoder"] = pretrained_autoencoder.abstract_params(self.autoencoder)
        if not self.run.normalizes_latents:
            tree[lineage.LATENT_RMS] = jax.ShapeDtypeStruct((), jnp.float32)
        if self.language_model is not None:
            tree["language_model"] = language_model_lib.abstract_params(
                self.language_model, self._dtype
            )
            tree["embedding_rms"] = jax.ShapeDtypeStruct((), jnp.float32)
        return tree

    def load(self, shardings: Mapping[str, Any], *, latent_rms: float) -> dict[str, Any]:
        """Loads every weight to where it belongs.

        Args:
            shardings: a tree that has all of `abstract()`, and perhaps more.
            latent_rms: of the latents, where the autoencoder does not see to it that it is 1.

        Raises:
            ValueError: where a model is not named, or its files are not whole.
        """
        self.check_named()
        placed = {}
        if "autoencoder" in shardings:
            placed["autoencoder"] = self.load_autoencoder(shardings["autoencoder"])
        if self.language_model is not None:
            placed |= self.load_language_model(shardings)
        if lineage.LATENT_RMS in shardings:
            rms = jnp.float32(latent_rms)
            placed[lineage.LATENT_RMS] = jax.device_put(rms, shardings[lineage.LATENT_RMS])
        return placed

    def load_autoencoder(self, shardings: Any = None) -> Any:
        """Parameters of the autoencoder, by default on the first device."""
        return pretrained_autoencoder.load(self._autoencoder_run, shardings=shardings)[1]

    def load_language_model(self, shardings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """ "language_model" and "embedding_rms", by default on the first device; see `load`."""
        params = pretrained_language_model.load_params(
            self.run.language_model_folder,
            self.language_model,
            shardings and shardings["language_model"],
            self._dtype,
        )
        rms = jax.jit(embedding_rms, out_shardings=shardings and shardings["embedding_rms"])
        return {"language_model": params, "embedding_rms": rms(self.language_model.table(params))}

    def latents(self, frozen: Any, batch: stage.Batch) -> tuple[jax.Array, jax.Array]:
        """Clean latents [b, t, d] of a batch and their mask [b, t]; no gradient flows to them.

        Of rms 1, like the noise that is added to them later: where the autoencoder does not see to
        it, they are divided by what was measured, if `frozen` has that.
        """
        latents, mask = self._latents(frozen, batch)
        if lineage.LATENT_RMS in frozen:
            latents = latents / frozen[lineage.LATENT_RMS]
        return latents, mask

    def _latents(self, frozen: Any, batch: stage.Batch) -> tuple[jax.Array, jax.Array]:
        """As the autoencoder gives them."""
        if "latents" in batch:
            return batch["latents"], batch["mask"]
        with jax.named_scope("autoencoder"):
            params = sharding.gather(frozen["autoencoder"])
            latents = self.autoencoder.apply(
                {"params": params},
                self.heard(batch),
                mask=batch["mask"],
                method="waveform_to_latents",
            )
        mask = self.frame_mask(batch)
        return jax.lax.stop_gradient(jnp.where(mask[..., None], latents, 0.0)), mask

    def heard(self, batch: stage.Batch) -> jax.Array:
        """[b, n]: the waveforms of a batch as the autoencoder hears them, each crop at its level, and
        zero behind its end."""
        gains = self.autoencoder.gains(batch["waveform"], batch["mask"])
        return jnp.where(batch["mask"], gains * batch["waveform"], 0.0)

    def frame_mask(self, batch: stage.Batch) -> jax.Array:
        """[b, t] bool: latents with any sound in them."""
        mask = batch["mask"]
        if "latents" in batch:
            return mask
        return jnp.any(mask.reshape(mask.shape[0], -1, self.sound.samples_per_latent), axis=-1)

    def check_named(self) -> None:
        """Raises ValueError where a model has a shape, for compile_check, and no weights."""
        if self._autoencoder_run is None:
            raise ValueError(
                "config.autoencoder.workdir must name a run of the autoencoder stage, got ''"
            )
        if self.language_model is not None and not self.run.config.language_model.folder:
            without = "; or set config.supervision.weight=0"
            raise ValueError(
                "config.language_model.folder must name a Hugging Face folder of a "
                f"{' or '.join(language_model_lib.MODEL_TYPES)} model, got ''"
                f"{without if 'supervision' in self.run.config else ''}"
            )


def embedding_rms(table: jax.Array) -> jax.Array:
    """Root mean square of a language model's token table: the scale of its inputs, float32."""
    return jnp.sqrt(jnp.mean(jnp.square(table.astype(jnp.float32))))
