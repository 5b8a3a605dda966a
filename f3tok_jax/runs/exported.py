# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The model of an exported folder as the run that it was.

What its config.json claims of latents holds where the weights beside it bear it out: they may have
been trained on in PyTorch.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from f3tok_jax.runs import exported_config
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported(lineage.Lineage):
    """A run as it was when it was exported; it has one state, and its parents lie in its folder.

    Attributes:
        written: what config.json says.
        load: (abstract parameters by player) -> the averaged weights, placed.
        parent: the run that it builds on.
    """

    written: Mapping[str, Any] = dataclasses.field(repr=False)
    load: Callable[[Any], Any] = dataclasses.field(repr=False)
    parent: "Exported | None" = None

    @property
    def parents(self) -> Mapping[str, lineage.Lineage]:
        return {self.parent.stage: self.parent} if self.parent else {}

    def check(self, *, language_model: bool = False) -> None:
        """Refuses nothing: what lies in one folder was exported together."""

    @functools.cached_property
    def trained_on(self) -> Mapping[str, str]:
        """Whose latents an autoencoder makes, where its encoder still is the one of the export."""
        if self.parent or _claim(self.encoder_fingerprint, self.written) != self.written[_CLAIM]:
            return {}
        kept = self.written[_LATENTS]
        return {lineage.LATENTS: kept, lineage.LATENTS_OF: self.encoder_fingerprint}

    @property
    def language_model_folder(self) -> str:
        """None: what of a language model is exported is a part, and no folder of its own."""
        return ""

    @property
    def _language_model(self) -> str:
        return ""

    @functools.cached_property
    def latents_fingerprint(self) -> str:
        """What latents carry: as before where the encoder is, else another than ever."""
        if self.parent:
            return self.parent.latents_fingerprint
        new = {"weights": self.fingerprint, "geometry": exported_config.geometry(self.written)}
        if exported_config.is_semantic(self.written):
            new["encoder"] = self.encoder_fingerprint  # of what its run did not train, too
        return self.trained_on.get(lineage.LATENTS) or fingerprint.digest_of(new)

    @property
    def latent_rms(self) -> float:
        """See Lineage.latent_rms."""
        return 1.0 if self.normalizes_latents else exported_config.latent_rms(self.written)

    def at(self, step: int | None, *, falls_back: bool = False) -> "Exported":
        """Itself: there is one state.

        Raises:
            ValueError: where another is asked for.
        """
        del falls_back
        if step in (None, self.step):
            return self
        raise ValueError(
            f"{self.workdir} is an exported folder, which holds one state, of step {self.step}, "
            f"got step {step}: leave the step out, or give the run that it was exported from"
        )

    def bound(self, fingerprint_: str) -> "Exported":
        """Itself, if its weights have that fingerprint; raises places.Unfit if not."""
        if self.fingerprint == fingerprint_:
            return self
        raise places.Unfit(self.fingerprint)

    def restore(
        self,
        abstract_params: Any,
        *,
        field: str = "ema_params",
        say: Callable[[str], None] = print,
    ) -> tuple[Any, "Exported"]:
        """The averaged weights; others are not exported. See Lineage.restore."""
        del say
        if field != "ema_params":
            raise ValueError(f"{self.workdir} must be asked for averaged weights, got {field}")
        return self.load(abstract_params), self


def describe(run: lineage.Lineage, written: Mapping[str, Any]) -> dict[str, str]:
    """What config.json says of the latents of an autoencoder's run.

    Args:
        run: at the step that is written.
        written: what config.json says of its geometry.
    """
    return {
        _LATENTS: run.latents_fingerprint,
        _CLAIM: _claim(run.encoder_fingerprint, written),
    }


_LATENTS, _CLAIM = "latents_fingerprint", "encoder_fingerprint"


def _claim(encoder_fingerprint: str, written: Mapping[str, Any]) -> str:
    """Of an encoder's weights and geometry: of the same weights another makes other latents."""
    geometry = exported_config.geometry(written)
    return fingerprint.digest_of({"weights": encoder_fingerprint, "geometry": geometry})
