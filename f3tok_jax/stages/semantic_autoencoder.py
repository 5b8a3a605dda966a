# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the autoencoder's stage has besides where sound is heard through a frozen semantic encoder, too."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from f3tok_jax.losses import semantic as semantic_losses
from f3tok_jax.models import semantic_autoencoder
from f3tok_jax.models import semantic_coder
from f3tok_jax.pretrained import semantic_autoencoder as pretrained
from f3tok_jax.runs import lineage
from f3tok_jax.training import validation

_LOSSES = ("supervision_high", "supervision_low")


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses modules that do not fit together, and losses and trainings that there are none of."""
    pretrained.make_autoencoder(config)
    is_narrow = config.model.fusion == "latents"
    try:
        semantic_losses.check_levels(config.losses.supervision, is_narrow=is_narrow)
    except ValueError as error:
        raise ValueError(f"config.losses.{error}") from error
    validation.not_negative(config, "losses.weights.supervision")
    if config.losses.weights.spectrum:
        raise ValueError(
            f"config.losses.weights.spectrum={config.losses.weights.spectrum} must be 0: spectra are "
            "compared as a model compresses them, and this one has them as they are"
        )
    if config.train_only:
        raise ValueError(
            f"config.train_only={config.train_only!r} must be '' for an autoencoder that hears through a "
            "semantic encoder: its parts are trained together"
        )


def supervised(
    coded: semantic_autoencoder.Coded, config: ml_collections.ConfigDict
) -> semantic_autoencoder.Coded:
    """What came of sound, with what the frozen features ask of it among its losses."""
    streams = coded.streams
    low = None
    if streams.semantic_latents is not None:
        low = streams.semantic_latents, streams.acoustic_latents
    with jax.named_scope("losses"):
        asked = semantic_losses.supervision(
            (streams.semantic, streams.acoustic),
            low,
            streams.mask,
            levels=config.losses.supervision,
        )
    return coded._replace(losses=coded.losses | asked)


def loss_weights(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Of the losses that `supervised` adds, by name."""
    return dict.fromkeys(_LOSSES, config.losses.weights.supervision)


def frozen_fields(run: lineage.Lineage, coder: semantic_coder.SemanticCoder) -> dict[str, Any]:
    """Fields of stage.Stage that tell of what is read and not trained."""

    def load(shardings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        del measured
        return pretrained.load_frozen(run, coder, shardings)

    return {
        "abstract_frozen": pretrained.abstract_frozen(coder),
        "load_frozen": load,
        "frozen_fingerprints": run.frozen_fingerprints(),
    }
