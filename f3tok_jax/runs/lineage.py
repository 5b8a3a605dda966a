# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run is of: its config, its checkpoint, its sound, and the runs that it was trained on."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import folder as run_folder

ENCODER = "encoder"  # the representation stage's only player: its encoder, heads and projector

# Stage -> the player that later stages read, and which of its modules; "" for all.
_READ_LATER = {
    "autoencoder": ("generator/", ("",)),
    "representation": (f"{ENCODER}/", ("encoder/", "projector/")),
}


@dataclasses.dataclass(frozen=True)
class Sound:
    """What latents are of: Hz, samples, channels."""

    sample_rate: int
    samples_per_latent: int
    latent_dim: int

    @property
    def latent_rate(self) -> float:
        """Latents per second, Hz."""
        return self.sample_rate / self.samples_per_latent

    def batch_spec(self, data: ml_collections.ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
        """What a batch must have of it, by config.data: latents, or waveforms, and their mask."""
        shape = (data.batch_size, data.crop_frames)
        if data.latents:
            heard = {"latents": jax.ShapeDtypeStruct((*shape, self.latent_dim), jnp.float32)}
        else:
            shape = (data.batch_size, data.crop_frames * self.samples_per_latent)
            heard = {"waveform": jax.ShapeDtypeStruct(shape, jnp.float32)}
        return heard | {"mask": jax.ShapeDtypeStruct(shape, jnp.bool_)}


class _Files(NamedTuple):
    """How the files of runs are read: each once, however many chains lead to it."""

    config: Callable[[str], ml_collections.ConfigDict]
    checkpoint: Callable[[str, int | None], Mapping[str, Any]]
    frozen: Callable[[str], Mapping[str, Any]]

    @classmethod
    def open(cls) -> "_Files":
        readers = (config_lib.load, checkpoint.read_meta, run_folder.frozen)
        return cls(*map(functools.cache, readers))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lineage:
    """A run, as its own folder and those of its parents tell; no weights.

    Attributes:
        workdir: run folder; "" for a run that has a config so far and nothing else.
        config: of the run.
        step: of its checkpoint, 0 where there is none.
        prints: path -> fingerprint of each array in that checkpoint.
        falls_back: whether an older checkpoint may take its place where its arrays are not whole.
    """

    workdir: str = ""
    config: ml_collections.ConfigDict
    step: int = 0
    prints: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    falls_back: bool = False
    _files: _Files = dataclasses.field(default_factory=_Files.open, repr=False, compare=False)

    @classmethod
    def read(cls, workdir: str, step: int | None = None, *, stage: str | None = None) -> "Lineage":
        """Reads a finished run; its parents are read when they are asked for.

        Args:
            workdir: run folder, local or a bucket.
            step: of the checkpoint; the newest if None.
            stage: that it must be of; any if None.

        Raises:
            ValueError: where the folder is no run, one of another stage, or has no such checkpoint.
            checkpoint.CheckpointError: where no checkpoint asked for says what it holds.
        """
        return cls._read(workdir, step, stage, _Files.open(), falls_back=step is None)

    @classmethod
    def _read(cls, workdir, step, stage, files: _Files, *, falls_back: bool) -> "Lineage":
        config = files.config(workdir)
        if stage not in (None, config.stage):
            got = f"got stage {config.stage!r}"
            raise ValueError(f"{workdir} must be a run of the {stage} stage, {got}")
        meta = files.checkpoint(workdir, step)
        return cls(
            workdir=workdir,
            config=config,
            step=meta["step"],
            prints=meta["fingerprints"],
            falls_back=falls_back,
            _files=files,
        )

    def at(self, step: int) -> "Lineage":
        """The run at another checkpoint."""
        return self._read(self.workdir, step, self.stage, self._files, falls_back=False)

    @property
    def stage(self) -> str:
        return self.config.stage

    @functools.cached_property
    def parents(self) -> Mapping[str, "Lineage"]:
        """Stage -> the run of it that the config names, at the step that it names or the newest."""
        sections = config_lib.frozen_models(self.config).items()
        named = {name: section for name, section in sections if section.get("workdir")}
        read = functools.partial(self._read, files=self._files, falls_back=False)
        return {name: read(at.workdir, at.step or None, name) for name, at in named.items()}

    def ancestor(self, stage: str) -> "Lineage | None":
        """The parent of that stage, or the nearest one of a parent."""
        if stage in self.parents:
            return self.parents[stage]
        found = (parent.ancestor(stage) for parent in self.parents.values())
        return next(filter(None, found), None)

    @functools.cached_property
    def sound(self) -> Sound:
        """Of the run's latents: from its autoencoder, or the config's own where it names none.

        Raises:
            ValueError: for a run that hears nothing.
        """
        config = self.config
        if config.stage == "autoencoder":
            samples = config.model.hop_length * math.prod(time for time, _ in config.model.strides)
            return Sound(config.model.sample_rate, samples, config.model.latent_dim)
        for parent in self.parents.values():
            return parent.sound
        if "representation" in config:
            return Lineage(config=config.representation.recipe).sound
        if "autoencoder" not in config:
            raise ValueError(f"a run of the {config.stage} stage has no latents")
        section = config.autoencoder
        return Sound(section.sample_rate, section.samples_per_latent, section.latent_dim)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the averaged weights that later stages read, as `fingerprint.digest` of them loaded."""
        player, modules = _READ_LATER.get(self.stage, ("", ("",)))
        prefix = f"ema_params/{player}"
        starts = tuple(prefix + module for module in modules)
        own = {
            f"params/{path.removeprefix(prefix)}": value
            for path, value in self.prints.items()
            if path.startswith(starts)
        }
        return fingerprint.digest_of(own)

    @property
    def language_model_folder(self) -> str:
        """The frozen language model that the run, or its parent, was supervised by; "" for none."""
        if "supervision" in self.config:
            return self.config.language_model.folder if self.config.supervision.weight else ""
        parent = self.parents.get("representation")
        return parent.language_model_folder if parent else ""

    @functools.cached_property
    def trained_on(self) -> Mapping[str, str]:
        """Name -> fingerprint of each frozen model when the run began, of its frozen.json."""
        return self._files.frozen(self.workdir)["fingerprints"]

    def frozen_fingerprints(
        self, language_model: Callable[[str], str] | None = None
    ) -> dict[str, str]:
        """Name -> fingerprint of each frozen model as it is now.

        Args:
            language_model: folder -> fingerprint of the weights in it; it is left out if None.
        """
        found = {}
        for name, parent in self.parents.items():
            found |= parent.frozen_fingerprints() | {name: parent.fingerprint}
        if language_model and (folder := self.language_model_folder):
            found["language_model"] = language_model(folder)
        return found

    def check(self, language_model: Callable[[str], str] | None = None) -> None:
        """Refuses ancestors whose weights are not those that they were when a run was trained on them.

        Args:
            language_model: see `frozen_fingerprints`.

        Raises:
            ValueError: naming the model, and both fingerprints.
        """
        language_model = language_model and functools.cache(language_model)
        for name, found in self.frozen_fingerprints(language_model).items():
            before, model = self.trained_on.get(name), name.replace("_", " ")
            if before is None:
                raise ValueError(
                    f"{self.workdir} must say in frozen.json which {model} it was trained on, got "
                    "none: copy that file from where the run was trained"
                )
            if found != before:
                raise ValueError(
                    f"{self.workdir} was trained on {model} {before}, got {found}: give that run "
                    "its old weights back"
                )
        for parent in self.parents.values():
            parent.check(language_model)
