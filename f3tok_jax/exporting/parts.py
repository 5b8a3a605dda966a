# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a run as its module in PyTorch knows them: config.json, and tensors by name."""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

import numpy as np

from data_pipelines.reading import tasks
from f3tok_jax.models import bottleneck as bottleneck_lib
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.models import flow_head
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.models import semantic_coder
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported_language_model
from f3tok_jax.pretrained import exported_weights
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import reader as reader_lib
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.pretrained import semantic_encoder
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import fingerprint as fingerprints
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as sound_lib

Say = Callable[[str], None]

_MODULE = "modeling_f3_tokenizer"
_CONFIGURATION = "configuration_f3_tokenizer"

# Stages of which nothing is used but by an autoencoder.
_WITHIN = (semantic_coder.ENCODER, semantic_coder.BOTTLENECK)
# Of the autoencoder in JAX and of the config alike.
_GEOMETRY = (
    *("hop_length", "fold", "strides", "encoder_channels", "decoder_channels"),
    *("compression", "latent_dim", "decoder_lookahead"),
)
# Of every transformer likewise.
_TRANSFORMER = (
    *("num_layers", "width", "hidden_width", "num_heads", "num_kv_heads", "head_dim"),
    *("rope_theta", "norm_epsilon", "qk_norm"),
)


@dataclasses.dataclass
class Parts:
    """What an exported folder holds.

    Attributes:
        autoencoder: whose latents all others read, of either family.
        config: of config.json.
        tensors: by name.
        step: of the run, after which they were saved.
        tokenizer: folder of the text tokenizer; "" where no text is read.
    """

    autoencoder: pretrained_autoencoder.Autoencoder
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    step: int
    tokenizer: str = ""

    def add(self, name: str, params: Any) -> None:
        """Adds a part with its parameters."""
        self.config["parts"].append(name)
        self.tensors |= torch_weights.tensors({name: params})

    def add_language_model(
        self, module: language_model_lib.LanguageModel, params: Any, name: str, *, answers: bool
    ) -> None:
        """Adds a language model: what reads and, where it `answers` by other weights than those of
        its table, its head."""
        head = exported_config.ANSWERS[-1] if answers and not module.is_tied else ""
        self.config["parts"] += [name, head] if head else [name]
        self.tensors |= exported_language_model.tensors(module, params, name, head)


def load(run: lineage.Lineage, *, answers: bool = True, say: Say = print) -> Parts:
    """The averaged weights of a run and of those that it was trained on.

    Args:
        run: of the autoencoder, the representation or the generation stage.
        answers: whether what reads representations and answers is wanted, where the representation
            run was supervised by it.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where a run is of another version or stage, or not the one that was trained on.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    if run.stage in _WITHIN:
        raise ValueError(
            f"{run.workdir} must be of the autoencoder stage or of a later one to be exported, got stage "
            f"{run.stage!r}, which is exported within the autoencoder that is trained on it: give a run of "
            f"configs/{sound_lib.SEMANTIC}.py"
        )
    if run.stage == "autoencoder":
        return _autoencoder(run, say)
    represents = run if run.stage == "representation" else run.ancestor("representation")
    if represents is None:
        raise ValueError(
            f"{run.workdir} must be a run of the autoencoder, representation, generation or "
            f"language_model stage, of which there are exports, got stage {run.stage!r}"
        )
    answers = answers and bool(represents.config.supervision.weight)
    run.check(language_model=run is not represents)
    if answers:
        _check_language_model(represents)
    parts = _autoencoder(run.ancestor("autoencoder"), say)
    parts.step = step = _add_representation(parts, represents, say)
    shared = None
    if run is not represents:
        parts.step, shared = _add_generation(parts, run, say, answers=answers)
    if answers:
        _add_answers(parts, represents.at(step), say, shared)
    return parts


def _check_language_model(run: lineage.Lineage) -> None:
    """Raises ValueError where the language model that answers is not the one of a run."""
    try:
        run.check(language_model=True)
    except ValueError as error:
        raise ValueError(f"{error}; or leave out what answers: --without=answers") from None


def describe(autoencoder: pretrained_autoencoder.Autoencoder) -> dict[str, Any]:
    """config.json of an autoencoder."""
    if isinstance(autoencoder, semantic_coder.SemanticCoder):
        own, encoder = autoencoder.autoencoder, autoencoder.encoder
        hears = {"semantic_encoder": _fields(encoder, exported_config.SEMANTIC_ENCODER)}
        section = _fields(own, exported_config.SEMANTIC_AUTOENCODER) | hears
        geometry = {"latent_dim": own.latent_dim, sound_lib.SEMANTIC: section}
    else:
        own, geometry = autoencoder, _fields(autoencoder, _GEOMETRY)
    return {
        "model_type": exported_config.MODEL_TYPE,
        "format": exported_config.FORMAT,
        "architectures": ["F3TokModel"],
        "auto_map": {
            "AutoConfig": f"{_CONFIGURATION}.F3TokConfig",
            "AutoModel": f"{_MODULE}.F3TokModel",
        },
        "dtype": "float32",
        "parts": [],
        "sampling_rate": autoencoder.sample_rate,
        **geometry,
        **describe_bottleneck(autoencoder.bottleneck),
        "level_db": float(autoencoder.level_db),
        "compute_dtype": own.compute_dtype,
    }


def _fields(module: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


def describe_bottleneck(bottleneck: bottleneck_lib.Bottleneck) -> dict[str, Any]:
    """What of config.json says which latents an encoder makes, and by what noise a decoder is trained.

    Of another kind than F3's its "bottleneck" has the name and the fields that noise depends on; what a
    loss alone reads is no part of a model.
    """
    if isinstance(bottleneck, bottleneck_lib.F3):
        gamma = bottleneck.gamma if bottleneck.perturb else 0.0
        return {"normalize": bottleneck.normalize, "epsilon": bottleneck.epsilon, "gamma": gamma}
    (kind,) = (name for name, one in bottleneck_kinds.KINDS.items() if type(bottleneck) is one)
    fields = _fields(bottleneck, exported_config.NOISE[kind])
    plain = {
        "normalize": False,
        "epsilon": 1e-5,
        "gamma": 0.0,
    }  # what F3's would be, as good as none
    return plain | {"bottleneck": {"kind": kind} | fields}


def describe_transformer(module: Any) -> dict[str, Any]:
    """The fields of a transformer that are among those of a module."""
    return _fields(module, _TRANSFORMER)


def describe_encoder(
    encoder: encoder_lib.RepresentationEncoder, latent_rms: float
) -> dict[str, Any]:
    """config.json's "representation"."""
    more = {"window": encoder.window, "latent_rms": latent_rms}
    more |= {"compute_dtype": encoder.compute_dtype}
    return describe_transformer(encoder) | more


def autoencoder_tensors(
    autoencoder: pretrained_autoencoder.Autoencoder, params: Any
) -> dict[str, np.ndarray]:
    """The tensors of an autoencoder by name, of what was frozen while it was trained, too."""
    found = {}
    for player, tree in exported_weights.players(autoencoder, params).items():
        found |= torch_weights.tensors(exported_weights.parts_of(player, tree))
    return found


def _autoencoder(run: lineage.Lineage, say: Say) -> Parts:
    autoencoder, params, run = pretrained_autoencoder.load(run, say=say)
    frozen = exported_weights.players(autoencoder, params)
    del frozen[exported_weights.GENERATOR]
    # What makes latents is what was frozen, too.
    prints, _ = fingerprints.of({"ema_params": frozen})
    run = dataclasses.replace(run, prints={**run.prints, **prints})
    losses = run.config.losses
    config = describe(autoencoder)
    config |= exported.describe(run, config) | {
        "mel_windows": losses.mel_windows,
        "mel_bands": losses.mel_bands,
        "parts": [*exported_config.PARTS["autoencoder"]],
    }
    if exported_config.is_semantic(config):
        said = config[sound_lib.SEMANTIC]["semantic_encoder"]
        said[exported_config.ORIGIN] = semantic_encoder.origin_of_heard(run)
    return Parts(autoencoder, config, autoencoder_tensors(autoencoder, params), run.step)


def _add_representation(parts: Parts, run: lineage.Lineage, say: Say) -> int:
    encoder, params, run = pretrained_representation.load_encoder(run, say=say)
    parts.config["representation"] = describe_encoder(encoder, run.latent_rms)
    parts.add("representation_encoder", params)
    return run.step


def _add_generation(
    parts: Parts, run: lineage.Lineage, say: Say, *, answers: bool
) -> tuple[int, Any]:
    """The step, and the parameters of the language model if it is the one that answers, too."""
    model, weights, run = pretrained_generation.load(run, say=say)
    generator, text = model.generator, model.text_tasks()
    parts.config["generation"] = (
        describe_generator(model, float(weights["embedding_rms"]))
        | _describe_text(text)
        | {"gap": text.gap}
    )
    parts.config["eos_token_id"] = text.end_of_text
    parts.tokenizer = model.representation.language_model_folder
    if model.trains_encoder:
        parts.add("generation_encoder", weights["encoder"])
    parts.add("projector", weights["projector"])
    parts.add("flow_head", weights["head"])
    answering = model.representation.config.language_model
    is_same = model.config.language_model.compute_dtype == answering.compute_dtype
    shares = answers and is_same and not model.trains_language_model
    params = weights["language_model"]
    parts.add_language_model(generator.language_model, params, "language_model", answers=shares)
    return run.step, params if shares else None


def _add_answers(parts: Parts, run: lineage.Lineage, say: Say, shared: Any) -> None:
    """What reads a run's representations; `shared`: parameters of a language model that is there."""
    reader, params = reader_lib.load(run, language_model=shared, say=say)
    model, text = reader.language_model, reader.text
    parts.config["answers"] = {
        "patch": reader.projector.patch,
        "projector": reader.projector.kind,
        "embedding_rms": reader.embedding_rms,
        "has_own_language_model": shared is None,
        "language_model": language_model_lib.describe(model),
        "compute_dtype": model.transformer.compute_dtype,
        **_describe_text(text),
    }
    parts.config["eos_token_id"] = text.end_of_text
    parts.tokenizer = run.language_model_folder
    projector, own, _ = exported_config.ANSWERS
    parts.add(projector, params["projector"])
    if shared is None:
        parts.add_language_model(model, params["language_model"], own, answers=True)


def _describe_text(text: tasks.TextTasks) -> dict[str, Any]:
    """What is asked, and how long all of a text is at most."""
    return {
        "tasks": {name: text.instruction(name) for name in text.by_weight},
        "task_weights": text.weights,
        "task": text.by_weight[0],
        "max_tokens": text.max_tokens,
    }


def describe_flow_head(head: flow_head.FlowHead) -> dict[str, Any]:
    """config.json's "flow_head"."""
    more = ("history", "use_token", "row", "compute_dtype")
    return describe_transformer(head) | {name: getattr(head, name) for name in more}


def describe_generator(model: pretrained_generation.Model, embedding_rms: float) -> dict[str, Any]:
    """config.json's "generation", but for the text."""
    generator, flow = model.generator, model.config.flow
    return {
        "has_own_encoder": model.trains_encoder,
        "patch": generator.patch,
        "projector": generator.projector.kind,
        "embedding_rms": embedding_rms,
        "flow_head": describe_flow_head(generator.head),
        "compute_dtype": generator.language_model.transformer.compute_dtype,
        "language_model": language_model_lib.describe(generator.language_model),
        "sampling": vars(model.sampler),
        "stop_weight": flow.stop_weight,
        "condition_drop": flow.condition_drop,
        "crop_frames": model.config.data.crop_frames,
    }
