# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the representation stage reads and never trains: autoencoder, language model, labels."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.reading import pipeline
from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.models import rq_mtp
from f3tok_jax.models import whitening
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.training import stage


class FrozenModels:
    """The frozen models of a run: shapes from configs at once, weights when they are asked for.

    Attributes:
        sound: of the latents.
        autoencoder: module, None where no run is named.
        language_model: module, None without supervision.
        fingerprints: "autoencoder" and "language_model", of the weights that are named.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        """Reads configs and fingerprints.

        Raises:
            ValueError: where a folder is not what it must be.
        """
        self._config = config
        self.fingerprints: dict[str, str] = {}
        self.autoencoder = self.language_model = None
        self.sound = lineage.Sound(**config_lib.latents_of(config))
        section = config.autoencoder
        if section.workdir:
            self._step, digest = lineage.autoencoder_fingerprint(section.workdir, section.step)
            self.fingerprints["autoencoder"] = digest
            found = lineage.read_config(section.workdir, "autoencoder")
            self.autoencoder = pretrained_autoencoder.make_autoencoder(found)
        if config.supervision.weight:
            section = config.language_model
            fields = dict(compute_dtype=section.compute_dtype, remat=section.remat)
            if section.folder:
                self.language_model = pretrained_language_model.read(section.folder, **fields)
                digest = pretrained_language_model.fingerprint(section.folder)
                self.fingerprints["language_model"] = digest
            else:
                self.language_model = language_model_lib.make(section.shape.to_dict(), **fields)

    def abstract(self) -> dict[str, Any]:
        """Shapes and dtypes of what `load` gives."""
        tree = {}
        if self.autoencoder is not None and not self._config.data.latents:
            tree["autoencoder"] = pretrained_autoencoder.abstract_autoencoder(self.autoencoder)
        if self.language_model is not None:
            dtype = jnp.dtype(self._config.language_model.compute_dtype)
            tree["language_model"] = language_model_lib.abstract_params(self.language_model, dtype)
            tree["embedding_rms"] = jax.ShapeDtypeStruct((), jnp.float32)
        if self._config.rq.weight:
            rq, width = self._config.rq, self._target_dim
            size = rq.num_codebooks * rq.codebook_size
            tree["table"] = jax.ShapeDtypeStruct((width, size), jnp.float32)
            tree |= {name: jax.ShapeDtypeStruct((width,), jnp.float32) for name in ("mean", "std")}
        return tree

    def load(self, shardings: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """Loads every weight to where it belongs.

        Args:
            shardings: a tree like `abstract()`.
            measured: what `measure` gave when the run began.

        Raises:
            ValueError: where a model is not named, or its files are not whole.
        """
        self.check_named()
        arrays = {}
        if self._config.rq.weight:
            rq = self._config.rq
            arrays["table"] = rq_mtp.make_table(
                self._config.seed,
                input_dim=self._target_dim,
                num_codebooks=rq.num_codebooks,
                codebook_size=rq.codebook_size,
                code_dim=rq.code_dim,
            )
            arrays |= {name: np.asarray(measured[name], np.float32) for name in ("mean", "std")}
            if rq.whiten:
                matrix = np.asarray(measured["matrix"], np.float32)
                arrays["table"] = whitening.into_table(matrix, arrays["std"], arrays["table"])
        placed = jax.device_put(arrays, {name: shardings[name] for name in arrays})
        if "autoencoder" in shardings:
            _, placed["autoencoder"], *_ = pretrained_autoencoder.restore_autoencoder(
                self._config.autoencoder.workdir, self._step, shardings=shardings["autoencoder"]
            )
        if self.language_model is not None:
            placed |= self.load_language_model(shardings)
        return placed

    def load_language_model(self, shardings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """ "language_model" and "embedding_rms", by default on the first device; see `load`."""
        section = self._config.language_model
        params = pretrained_language_model.load_params(
            section.folder,
            self.language_model,
            shardings and shardings["language_model"],
            jnp.dtype(section.compute_dtype),
        )
        rms = jax.jit(embedding_rms, out_shardings=shardings and shardings["embedding_rms"])
        return {
            "language_model": params,
            "embedding_rms": rms(self.language_model.table(params)),
        }

    def measure(self) -> dict[str, list[float]]:
        """Statistics of what is quantized, over training batches: its mean and its scale or whitening.

        The same on every mesh: one process reads the global batches, on one device.
        """
        config = self._config
        if not config.rq.weight:
            return {}
        self.check_named()
        batches = pipeline.Pipeline(
            config.data.train,
            pipeline.Options(
                batch_size=config.data.batch_size,
                seed=config.seed,
                max_replaced=config.data.max_replaced,
            ),
            sample_rate=self.sound.sample_rate,
            crop_length=config.data.crop_frames * self.sound.samples_per_latent,
            random_crop=False,
            autoencoder=self.fingerprints.get("autoencoder"),
        )
        frozen = {}
        measure, finish = rq_mtp.measure_statistics, rq_mtp.finish_statistics
        if config.rq.whiten:
            measure, finish = whitening.measure, whitening.finish
        if not config.data.latents:
            _, frozen["autoencoder"], *_ = pretrained_autoencoder.restore_autoencoder(
                config.autoencoder.workdir, self._step
            )

        @jax.jit
        def sums_of(frozen, batch):
            latents, mask = self.latents(frozen, batch)
            return measure(self._targets(batch, latents), mask)

        sums = [np.float64(0.0)] * 3
        for step in range(config.rq.statistics_batches):
            more = jax.device_get(sums_of(frozen, batches.local_batch(step)))
            sums = [np.asarray(value, np.float64) + total for value, total in zip(more, sums)]
        mean, scale = finish(sums)
        if config.rq.whiten:
            return {"mean": mean.tolist(), "std": [1.0] * len(mean), "matrix": scale.tolist()}
        return {"mean": mean.tolist(), "std": scale.tolist()}

    def latents(self, frozen: Any, batch: stage.Batch) -> tuple[jax.Array, jax.Array]:
        """Clean latents [b, t, d] of a batch and their mask [b, t]; no gradient flows to them."""
        if "latents" in batch:
            return batch["latents"], batch["mask"]
        waveform = jnp.where(batch["mask"], batch["waveform"], 0.0)
        with jax.named_scope("autoencoder"):
            params = sharding.gather(frozen["autoencoder"])
            latents = self.autoencoder.apply(
                {"params": params}, waveform, method="waveform_to_latents"
            )
        mask = self.frame_mask(batch)
        return jax.lax.stop_gradient(jnp.where(mask[..., None], latents, 0.0)), mask

    def frame_mask(self, batch: stage.Batch) -> jax.Array:
        """[b, t] bool: latents with any sound in them."""
        mask = batch["mask"]
        if "latents" in batch:
            return mask
        return jnp.any(mask.reshape(mask.shape[0], -1, self.sound.samples_per_latent), axis=-1)

    def labels(self, frozen: Any, batch: stage.Batch, latents: jax.Array) -> jax.Array:
        """Labels of RQ-MTP [b, t, G] int32."""
        features = rq_mtp.standardize(
            self._targets(batch, latents),
            frozen["mean"],
            frozen["std"],
            layer_norm=self._config.rq.layer_norm and not self._config.rq.whiten,
        )
        return rq_mtp.codes_of(
            features, frozen["table"], num_codebooks=self._config.rq.num_codebooks
        )

    @property
    def _target_dim(self) -> int:
        if self._config.rq.target == "latents":
            return self.sound.latent_dim
        return self._config.rq.mel_bands * self._config.rq.mel_frames

    def _targets(self, batch: stage.Batch, latents: jax.Array) -> jax.Array:
        if self._config.rq.target == "latents":
            return latents
        return rq_mtp.log_mel_frames(
            jnp.where(batch["mask"], batch["waveform"], 0.0),
            sample_rate=self.sound.sample_rate,
            samples_per_latent=self.sound.samples_per_latent,
            num_mels=self._config.rq.mel_bands,
            frames_per_latent=self._config.rq.mel_frames,
        )

    def check_named(self) -> None:
        """Raises ValueError where a model has a shape, for compile_check, and no weights."""
        if self.autoencoder is None:
            raise ValueError(
                "config.autoencoder.workdir must name a run of the autoencoder stage, got ''"
            )
        if self.language_model is not None and not self._config.language_model.folder:
            raise ValueError(
                "config.language_model.folder must name a Hugging Face folder of a qwen2 or qwen3 "
                "model, got ''; or set config.supervision.weight=0"
            )


def embedding_rms(table: jax.Array) -> jax.Array:
    """Root mean square of a language model's token table: the scale of its inputs, float32."""
    return jnp.sqrt(jnp.mean(jnp.square(table.astype(jnp.float32))))


def make_encoder(
    config: ml_collections.ConfigDict, latent_dim: int
) -> encoder_lib.RepresentationEncoder:
    """The representation encoder of a run's config."""
    return encoder_lib.RepresentationEncoder(latent_dim=latent_dim, **config.model)


def make_projector(config: ml_collections.ConfigDict, width: int) -> projector_lib.Projector:
    """The projector of a run's config to a language model of `width`."""
    return projector_lib.Projector(
        patch=config.supervision.patch,
        width=width,
        kind=config.supervision.projector,
        compute_dtype=config.model.compute_dtype,
    )


def load_representation_encoder(
    workdir: str, step: int | None = None, *, say: Callable[[str], None] = print
) -> tuple[encoder_lib.RepresentationEncoder, Any, ml_collections.ConfigDict]:
    """The encoder of a run with its averaged weights, and the run's config; see `restore_modules`."""
    config = lineage.read_config(workdir, "representation")
    encoder = make_encoder(config, config_lib.latents_of(config)["latent_dim"])
    params, _ = restore_modules(
        workdir, {"encoder": _abstract(encoder, encoder.latent_dim)}, step, say=say
    )
    return encoder, params["encoder"], config


def abstract_modules(
    config: ml_collections.ConfigDict, language_model_width: int = 0
) -> dict[str, Any]:
    """Shapes and dtypes of the parameters of a run's encoder, and of its projector if it has one.

    Args:
        config: of the run.
        language_model_width: of a supervised one; 0 to read it from the language model's folder.
    """
    encoder = make_encoder(config, config_lib.latents_of(config)["latent_dim"])
    modules = {"encoder": _abstract(encoder, encoder.latent_dim)}
    if config.supervision.weight:
        section, width = config.language_model, language_model_width
        if not width:
            width = pretrained_language_model.read(
                section.folder, compute_dtype=section.compute_dtype, remat=section.remat
            ).width
        projector = make_projector(config, width)
        modules["projector"] = _abstract(projector, config.model.width)
    return modules


def _abstract(module: nn.Module, input_width: int) -> Any:
    inputs = jnp.zeros((1, 1, input_width))
    return sharding.unbox(jax.eval_shape(module.init, jax.random.key(0), inputs)["params"])


def restore_modules(
    workdir: str,
    abstract: Mapping[str, Any],
    step: int | None = None,
    *,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], int]:
    """Averaged weights of a run, of the modules that are asked for alone, and their step.

    Args:
        workdir: run folder of the representation stage.
        abstract: "encoder" and perhaps "projector" -> shapes and dtypes of their parameters.
        step: of the checkpoint; the newest whole one if None.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the folder holds no such checkpoint.
        checkpoint.CheckpointError: where no checkpoint asked for is whole.
    """
    found, step = checkpoint.restore_params(
        workdir, {lineage.ENCODER: dict(abstract)}, step=step, say=say
    )
    return found[lineage.ENCODER], step
