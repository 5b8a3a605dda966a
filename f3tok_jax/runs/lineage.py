# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run is of: its config, its checkpoint, its sound, and the runs that it was trained on.

Its files say so, and are read without JAX.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple, TypeVar

import ml_collections

from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import frozen_file
from f3tok_jax.runs import language_model_folder
from f3tok_jax.runs import pins
from f3tok_jax.runs import places as places_lib
from f3tok_jax.runs import published_weights
from f3tok_jax.runs import saved_states
from f3tok_jax.runs import sound as sound_lib

ENCODER = "encoder"  # the representation stage's only player: its encoder, heads and projector
LATENT_RMS = "latent_rms"  # among what a run has measured that is trained on latents
_MEASURE_LATENTS = ("representation", "diffusion_transformer")  # stages of such runs

# In frozen.json of an autoencoder whose decoder alone was trained: the fingerprint that latents of its
# encoder carry, and that of the encoder's weights.
LATENTS, LATENTS_OF = "latents", "encoder_weights"

_Found = TypeVar("_Found")

# Stage -> the player that later stages read, and which of its modules; "" for all.
_READ_LATER = {
    "autoencoder": ("generator/", ("",)),
    "representation": (f"{ENCODER}/", ("encoder/", "projector/")),
    "semantic_encoder": ("semantic_encoder/", ("encoder/",)),
    "semantic_bottleneck": ("semantic_bottleneck/", ("down/",)),
}


class _Files(NamedTuple):
    """How the files of runs are read: each once, however many chains lead to it."""

    config: Callable[[str], ml_collections.ConfigDict]
    checkpoint: Callable[[str, int | None], Mapping[str, Any]]
    frozen: Callable[[str, str], Mapping[str, Any]]
    places: Callable[[str], Mapping[str, str]]

    @classmethod
    def open(cls) -> "_Files":
        readers = (config_lib.load, saved_states.read_meta, frozen_file.read, places_lib.kept)
        return cls(*map(functools.cache, readers))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lineage:
    """A run, as its own folder and those of its parents tell; no weights.

    Attributes:
        workdir: run folder; "" for a run that has a config so far and nothing else.
        config: of the run.
        step: of its checkpoint, 0 where there is none.
        prints: path -> fingerprint of each array in that checkpoint.
        digests: name -> digest of small files of the run, of that checkpoint.
        falls_back: whether an older checkpoint may take its place where its arrays are not whole.
        places: where what it names may lie, beside where it says.
    """

    workdir: str = ""
    config: ml_collections.ConfigDict
    step: int = 0
    prints: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    falls_back: bool = False
    places: places_lib.Places = dataclasses.field(default_factory=places_lib.Places)
    _files: _Files = dataclasses.field(default_factory=_Files.open, repr=False, compare=False)

    @classmethod
    def trained_by(
        cls,
        config: ml_collections.ConfigDict,
        workdir: str | None = None,
        places: places_lib.Places | None = None,
    ) -> "Lineage":
        """A run that a config trains, as far as its folder tells, which may not be there yet.

        Args:
            config: of the run.
            workdir: its folder, if it is to have one.
            places: where what it names may lie; default the search path alone.
        """
        begun = workdir if workdir and config_lib.exists(workdir) else ""
        return cls(workdir=begun, config=config, places=places or places_lib.Places())

    @classmethod
    def read(
        cls,
        workdir: str,
        step: int | None = None,
        *,
        stage: str | None = None,
        places: places_lib.Places | None = None,
    ) -> "Lineage":
        """Reads a finished run; its parents are read when they are asked for.

        Args:
            workdir: run folder, local or a bucket.
            step: of the checkpoint; the newest if None.
            stage: that it must be of; any if None.
            places: where what it names may lie; default the search path alone.

        Raises:
            ValueError: where the folder is no run, one of another stage, or has no such checkpoint.
            checkpoint_meta.CheckpointError: where no checkpoint asked for says what it holds.
        """
        files, places = _Files.open(), places or places_lib.Places()
        config = files.config(workdir)
        if stage not in (None, config.stage):
            got = f"got stage {config.stage!r}"
            raise ValueError(f"{workdir} must be a run of the {stage} stage, {got}")
        run = cls(workdir=workdir, config=config, places=places, _files=files)
        return run.at(step, falls_back=step is None)

    def at(self, step: int | None, *, falls_back: bool = False) -> "Lineage":
        """The run at a checkpoint; at the newest that says what it holds if `step` is None.

        Raises:
            ValueError: where there is none, or it was made with another config.
            checkpoint_meta.CheckpointError: where it does not say what it holds.
        """
        meta = self._files.checkpoint(self.workdir, step)
        config_lib.check_kept(self.config, meta["config"], self.workdir)
        return dataclasses.replace(
            self,
            step=meta["step"],
            prints=meta["fingerprints"],
            digests=meta["files"],
            falls_back=falls_back,
        )

    def restore(
        self,
        abstract_params: Any,
        *,
        field: str = "ema_params",
        say: Callable[[str], None] = print,
    ) -> tuple[Any, "Lineage"]:
        """Weights of the run's checkpoint, and the run at the step that they are of.

        Args:
            abstract_params: player -> shapes and dtypes of its parameters, or of a part of them;
                with shardings, as arrays have them, or without for the first local device.
            field: of the saved state.
            say: where messages to the user go: which steps are damaged.

        Raises:
            ValueError: where the arrays are of other shapes or dtypes.
            checkpoint.CheckpointError: where no checkpoint that may be used is whole.
        """
        params, step = saved_states.restore_params(
            self.workdir,
            abstract_params,
            field=field,
            step=None if self.falls_back else self.step,
            known={self.step: self.prints},
            say=say,
        )
        return params, self if step == self.step else self.at(step)

    @property
    def stage(self) -> str:
        return self.config.stage

    @functools.cached_property
    def parents(self) -> Mapping[str, "Lineage"]:
        """Stage -> the run of it that the config names, wherever it lies now.

        Of a run that has begun, at the step whose weights it began with, whatever was added since;
        else at the step that the config names, or the newest.

        Raises:
            ValueError: where there is no such run, naming every place that was tried.
        """
        sections = config_lib.frozen_models(self.config).items()
        named = {name: section for name, section in sections if section.get("workdir")}
        with config_lib.values_of(self.workdir):
            return {name: self._parent(name, section) for name, section in named.items()}

    def _parent(self, name: str, section: ml_collections.ConfigDict) -> "Lineage":
        bound = self.trained_on.get(name)

        def read(place: str) -> Lineage:
            if bound and not config_lib.exists(place):
                raise places_lib.Unfit("no run")
            config = self._files.config(place)
            if config.stage != name:
                got = f"got stage {config.stage!r}"
                raise ValueError(f"{place} must be a run of the {name} stage, {got}")
            options = dict(places=self.places, _files=self._files)
            run = Lineage(workdir=place, config=config, **options)
            return run.bound(bound) if bound else run.at(section.step or None)

        return self._find(name, section.workdir, read)

    def bound(self, fingerprint_: str) -> "Lineage":
        """The run at the checkpoint whose weights have a fingerprint.

        Raises:
            places.Unfit: where it has none, with the fingerprints that it has.
        """
        found = {}
        for step in reversed(saved_states.steps(self.workdir)):
            try:
                run = self.at(step)
            except checkpoint_meta.CheckpointError as error:
                found[step] = str(error)
                continue
            if run.fingerprint == fingerprint_:
                return run
            found[step] = run.fingerprint
        steps = [f"{found[step]} at step {step}" for step in sorted(found)]
        raise places_lib.Unfit(", ".join(steps) or "no checkpoints")

    def _find(self, name: str, given: str, fits: Callable[[str], _Found]) -> _Found:
        """What `fits` makes of where a model lies that is what the run was trained on."""
        bound = self.trained_on.get(name)
        sought = f"{name} must be where it is said to be"
        if bound:
            sought = f"{self.workdir} was trained on {name.replace('_', ' ')} {bound}"
        return self.places.find(
            given,
            fits,
            sought=sought,
            run=self.workdir,
            hint=self._files.places(self.workdir).get(name, "") if self.workdir else "",
            is_known=bool(bound),
        )

    def _find_kept(
        self, name: str, given: str, read: Callable[[str], str], print_of: Callable[[str, str], str]
    ) -> str:
        """Where a model lies that no run of ours has trained, such as a language model's folder."""
        options = dict(bound=self.trained_on.get(name), read=read, print_of=print_of)
        fits = functools.partial(language_model_folder.find_kept, **options)
        return self._find(name, given, fits)

    def ancestor(self, stage: str) -> "Lineage | None":
        """The parent of that stage, or the nearest one of a parent."""
        if stage in self.parents:
            return self.parents[stage]
        found = (parent.ancestor(stage) for parent in self.parents.values())
        return next(filter(None, found), None)

    @functools.cached_property
    def sound(self) -> sound_lib.Sound:
        """Of the run's latents: from its autoencoder, or the config's own where it names none.

        Raises:
            ValueError: for a run that hears nothing, or whose config says nothing that can be.
        """
        with config_lib.values_of(self.workdir):
            sound = self._sound()
            if sound.latent_rate <= 0 or sound.latent_dim < 1 or sound.sample_rate < 1:
                raise ArithmeticError(str(sound))
            return sound

    def _sound(self) -> sound_lib.Sound:
        config = self.config
        if config.stage == "autoencoder":
            return sound_lib.of_autoencoder(config)
        if config.stage == "semantic_encoder":
            samples = config.model.hop_length * config.model.patch_frames
            return sound_lib.Sound(config.model.sample_rate, samples, config.model.width)
        for parent in self.parents.values():
            return parent.sound
        if "representation" in config:
            return Lineage(config=config.representation.recipe).sound
        if "semantic_encoder" in config:
            return Lineage(config=config.semantic_encoder.recipe).sound
        if "autoencoder" not in config:
            raise ValueError(f"a run of the {config.stage} stage has no latents")
        return Lineage(config=config.autoencoder.recipe).sound

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

    @functools.cached_property
    def encoder_fingerprint(self) -> str:
        """Of the averaged weights that make an autoencoder's latents: all but its decoder's."""
        prefix, decoder = "ema_params/", "ema_params/generator/decoder/"
        own = {path: value for path, value in self.prints.items() if path.startswith(prefix)}
        return fingerprint.digest_of(
            {path: value for path, value in own.items() if not path.startswith(decoder)}
        )

    @functools.cached_property
    def latents_fingerprint(self) -> str:
        """What latents carry that the run makes and decodes: of the autoencoder that learnt them, and
        of the level at which it hears sound, where there is one.

        Another one whose decoder alone was trained since makes the same, bit for bit.

        Raises:
            ValueError: where an encoder is not the one that it is said to be.
        """
        run = self if self.stage == "autoencoder" else self.ancestor("autoencoder")
        kept = run.trained_on.get(LATENTS)
        if not kept:
            return fingerprint.of_level(run.fingerprint, run.level_db)
        if run.encoder_fingerprint != (wanted := run.trained_on.get(LATENTS_OF)):
            raise ValueError(
                f"{run.workdir} must have the encoder {wanted} of the latents {kept}, of which its "
                f"decoder was trained, got {run.encoder_fingerprint}: copy it from where it was trained"
            )
        return kept

    @functools.cached_property
    def language_model_folder(self) -> str:
        """Where the frozen language model can be read that the run, or its parent, was trained with.

        "" for none. It is the one that the run was trained on, to the last bit; of one on a bucket,
        its copy on this host.
        """
        if self._names_language_model:
            return language_model_folder.local(self._language_model)
        parent = self.parents.get("representation")
        return parent.language_model_folder if parent else ""

    @property
    def _names_language_model(self) -> bool:
        """Whether it is the run's own config that says where that is."""
        return "folder" in self.config.get("language_model", {})

    @property
    def reads_language_model(self) -> bool:
        """Whether the run's own config asks for a frozen language model, wherever that is."""
        is_left_out = "supervision" in self.config and not self.config.supervision.weight
        return self._names_language_model and not is_left_out

    @functools.cached_property
    def _language_model(self) -> str:
        """Where the run's own frozen language model lies; "" for none."""
        folder = self.config.language_model.folder
        if not folder or not self.reads_language_model:
            return ""
        read, print_of = language_model_folder.read_model, language_model_folder.fingerprint
        return self._find_kept("language_model", folder, read, print_of)

    @functools.cached_property
    def semantic_weights(self) -> str:
        """Where published weights lie of the semantic encoder through which the run, or the one that made
        its semantic bottleneck, hears; "" where that was trained by a run, or there is none."""
        if not self._names_weights:
            parent = self.parents.get("semantic_bottleneck")
            return parent.semantic_weights if parent else ""
        read, print_of = (lambda place: place), published_weights.fingerprint
        given = self.config.semantic_encoder.folder
        return self._find_kept("semantic_encoder", given, read, print_of)

    @property
    def _names_weights(self) -> bool:
        """Whether the run's own config names such weights."""
        section = config_lib.frozen_models(self.config).get("semantic_encoder", {})
        return bool(section.get("folder"))

    @functools.cached_property
    def tokenizer(self) -> str:
        """Where the tokenizer.json of a language model's run can be read, or a folder with one; or ""."""
        return language_model_folder.local_tokenizer(self._tokenizer)

    @functools.cached_property
    def _tokenizer(self) -> str:
        """Where it lies."""
        if not self.config.get("tokenizer"):
            return ""
        read = language_model_folder.read_tokenizer
        print_of = lambda path, like: language_model_folder.tokenizer_fingerprint(path)
        return self._find_kept("tokenizer", self.config.tokenizer, read, print_of)

    @functools.cached_property
    def trained_on(self) -> Mapping[str, str]:
        """Name -> fingerprint of each frozen model when the run began, of its frozen.json."""
        return self._began_with["fingerprints"]

    @functools.cached_property
    def measured(self) -> Mapping[str, Any]:
        """What the run has measured before its first step, of its frozen.json."""
        return self._began_with["measured"]

    @property
    def _began_with(self) -> Mapping[str, Any]:
        if not self.workdir:
            return {"fingerprints": {}, "measured": {}}
        return self._files.frozen(self.workdir, self.digests.get(frozen_file.NAME, ""))

    @property
    def normalizes_latents(self) -> bool:
        """Whether frames have mean 0 and rms 1 by themselves; of mere recipes it is taken so."""
        run = self if self.stage == "autoencoder" else self.ancestor("autoencoder")
        if run is None:
            return True
        section = run.config.bottleneck
        return section.get("kind", "f3") == "f3" and bool(section.normalize)

    @functools.cached_property
    def level_db(self) -> float:
        """DBFS of rms, to which sound is brought before its autoencoder hears it; 0 for sound as it
        comes, which is what runs of earlier versions hear, and what is taken of mere recipes."""
        run = self if self.stage == "autoencoder" else self.ancestor("autoencoder")
        if run is None:
            return 0.0
        with config_lib.values_of(run.workdir):
            return 0.0 + run.config.model.get("level_db", 0.0)

    @functools.cached_property
    def latent_rms(self) -> float:
        """By which latents are divided before anything reads them: as it, or its representation run,
        has measured them, 1 where they have that by themselves."""
        if self.normalizes_latents:
            return 1.0
        run = self if self.stage in _MEASURE_LATENTS else self.ancestor("representation")
        if run is None or not run.workdir:
            return 1.0
        # Runs older than that number have heard latents as they are.
        return float(run.measured.get(LATENT_RMS, 1.0))

    @property
    def own_fingerprints(self) -> dict[str, str]:
        """Name -> fingerprint of each run, and of published weights, that the run's own config names."""
        found = {name: parent.fingerprint for name, parent in self.parents.items()}
        if self._names_weights:
            weights = published_weights.fingerprint(self.semantic_weights)
            found["semantic_encoder"] = weights
        return found

    def frozen_fingerprints(self, *, language_model: bool = False) -> dict[str, str]:
        """Name -> fingerprint of each frozen model as it is now.

        Args:
            language_model: whether its folder is read too, all of it.
        """
        found = {}
        for parent in self.parents.values():
            found |= parent.frozen_fingerprints()
        found |= self.own_fingerprints
        if language_model and (folder := self.language_model_folder):
            like = self.trained_on.get("language_model", "")
            found["language_model"] = language_model_folder.fingerprint(folder, like)
        return found

    def check(self, *, language_model: bool = False) -> None:
        """Refuses ancestors that are not those that they were when a run was trained on them.

        Args:
            language_model: see `frozen_fingerprints`.

        Raises:
            ValueError: naming the model, and both fingerprints.
        """
        for name, found in self.frozen_fingerprints(language_model=language_model).items():
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
            parent.check(language_model=language_model)

    @property
    def named(self) -> dict[str, str]:
        """Name -> where it lies now, of each run, folder or file that the run itself builds on."""
        found = {name: parent.workdir for name, parent in self.parents.items()}
        if self._names_language_model and self._language_model:
            found["language_model"] = self._language_model
        if self._names_weights:
            found["semantic_encoder"] = self.semantic_weights
        if self._tokenizer:
            found["tokenizer"] = self._tokenizer
        return found

    def keep_places(self, workdir: str) -> None:
        """Writes down in a run's folder where all that this run names lies, as seen from there."""
        places_lib.keep(workdir, self.named)

    def pin(self, folder: str, say: Callable[[str], None] = print) -> None:
        """Makes the run keep this step, on which builds what lies in a folder; or says that it cannot."""
        try:
            pins.add(self.workdir, self.step, places_lib.relative(folder, self.workdir))
        except OSError as error:
            say(
                f"note: {self.workdir} cannot be told to keep its step {self.step} "
                f"({error.strerror or error}): if it is trained on, copy that step before"
            )

    def pin_ancestors(self, workdir: str, say: Callable[[str], None] = print) -> None:
        """Makes all ancestors keep the steps that the run in `workdir` builds on; see `pin`."""
        for parent in self.parents.values():
            parent.pin(workdir, say)
            parent.pin_ancestors(workdir, say)
