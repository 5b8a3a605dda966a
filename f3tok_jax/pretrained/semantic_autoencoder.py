# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An autoencoder that hears through a semantic encoder: what of it is trained, and what is frozen.

LoSATok is trained on a run of the semantic_bottleneck stage, and hears through the encoder of that one;
DashengTokenizer is trained on a run of the semantic_encoder stage.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.models import semantic_autoencoder
from f3tok_jax.models import semantic_coder
from f3tok_jax.pretrained import semantic_encoder as pretrained_semantic_encoder
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import exported
from f3tok_jax.runs import lineage

_ENCODER, _BOTTLENECK = semantic_coder.ENCODER, semantic_coder.BOTTLENECK  # stages, too


def make(run: lineage.Lineage) -> semantic_coder.SemanticCoder:
    """The modules of a run, finished or about to begin; those of what it names have its own fields.

    Raises:
        ValueError: where they do not fit together.
    """
    model = run.config.model
    autoencoder = make_autoencoder(run.config)
    encoder = pretrained_semantic_encoder.of_heard(run)
    said = {
        "sample_rate": (encoder.sample_rate, "Hz of the semantic encoder"),
        "feature_dim": (encoder.width, "width of the semantic encoder's features"),
        "feature_rate": (
            encoder.sample_rate / encoder.samples_per_feature,
            "Hz of the semantic encoder's features",
        ),
    }
    if model.fusion == "latents":
        named = run.parents.get(_BOTTLENECK)
        narrow = (named.config if named else run.config[_BOTTLENECK].recipe).model
        said["bottleneck_dim"] = (narrow.hidden_dim, "width of the semantic bottleneck's layers")
        said["latent_dim"] = (narrow.latent_dim, "width of the semantic bottleneck's latents")
    for key, (wanted, what) in said.items():
        if model[key] != wanted:
            raise ValueError(
                f"config.model.{key} must be {wanted:g}, the {what}, got {model[key]:g}: give that, or "
                "name other runs"
            )
    return semantic_coder.SemanticCoder(encoder=encoder, autoencoder=autoencoder)


def make_autoencoder(
    config: ml_collections.ConfigDict,
) -> semantic_autoencoder.SemanticAutoencoder:
    """What of a run is trained, and the semantic bottleneck, by its own config alone; raises likewise."""
    autoencoder = semantic_autoencoder.SemanticAutoencoder(
        **config.model, bottleneck=bottleneck_kinds.make(config.bottleneck)
    )
    semantic_autoencoder.check_geometry(autoencoder)
    semantic_autoencoder.check_bottleneck(autoencoder)
    return autoencoder


def of_run(run: lineage.Lineage) -> semantic_coder.SemanticCoder:
    """The same of a finished run.

    Raises:
        ValueError: where it is of a version whose autoencoders have other fields, too.
    """
    weights.check_fields(run, semantic_autoencoder.SemanticAutoencoder, "bottleneck")
    return make(run)


def init_params(coder: semantic_coder.SemanticCoder, key: jax.Array, waveform: jax.Array) -> Any:
    """Fresh parameters of what is trained."""
    autoencoder = coder.autoencoder
    features = jnp.zeros((len(waveform), 1, autoencoder.feature_dim))
    params = dict(autoencoder.init(key, waveform, features)["params"])
    params.pop(_BOTTLENECK, None)
    return params


def abstract_frozen(coder: semantic_coder.SemanticCoder) -> dict[str, Any]:
    """Shapes and dtypes of what a run reads and does not train, in their logical axes."""
    tree = {_ENCODER: pretrained_semantic_encoder.abstract_variables(coder.encoder)}
    if coder.autoencoder.fusion == "latents":
        waveform = jax.ShapeDtypeStruct((1, coder.samples_per_latent), jnp.float32)
        features = jax.ShapeDtypeStruct((1, 1, coder.autoencoder.feature_dim), jnp.float32)
        key = jax.eval_shape(jax.random.key, 0)
        params = jax.eval_shape(coder.autoencoder.init, key, waveform, features)["params"]
        tree[_BOTTLENECK] = params[_BOTTLENECK]
    return tree


def load_frozen(
    run: lineage.Lineage,
    coder: semantic_coder.SemanticCoder,
    shardings: Mapping[str, Any] | None = None,
    *,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The arrays of `abstract_frozen`, of the runs that a run names, or of the exported folder of it.

    Args:
        run: finished, or about to begin.
        coder: its modules.
        shardings: a tree like them; default the first local device.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where a run is not named.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    abstract = sharding.unbox(abstract_frozen(coder))
    if isinstance(run, exported.Exported):
        frozen = run.load(abstract)
    else:
        check_named(run)
        frozen = {_ENCODER: pretrained_semantic_encoder.load_heard(run, say=say).variables}
        if coder.autoencoder.fusion == "latents":
            narrow = {_BOTTLENECK: abstract[_BOTTLENECK]}
            found, _ = weights.restore(run.parents[_BOTTLENECK], narrow, say=say)
            frozen[_BOTTLENECK] = found[_BOTTLENECK]
    return frozen if shardings is None else jax.device_put(frozen, shardings)


def check_named(run: lineage.Lineage) -> None:
    """Raises ValueError where a frozen model has a shape, for compile_check, and no weights, or where
    two encoders are named."""
    config, parents = run.config, run.parents
    if config.model.fusion == "latents" and _BOTTLENECK not in parents:
        raise ValueError(
            "config.semantic_bottleneck.workdir must name a run of the semantic_bottleneck stage, whose "
            "latents the sound's own are added to, got ''"
        )
    pretrained_semantic_encoder.check_heard(run)
    got = run.own_fingerprints.get(_ENCODER)
    if got is None or _BOTTLENECK not in parents:
        return
    if got != (wanted := parents[_BOTTLENECK].own_fingerprints[_ENCODER]):
        raise ValueError(
            "config.semantic_encoder must name nothing, or the encoder whose features config."
            f"semantic_bottleneck.workdir was trained on, of fingerprint {wanted}, got one of {got}"
        )
