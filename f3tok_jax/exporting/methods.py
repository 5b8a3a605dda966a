# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whose method an exported model follows, and how it codes sound, in words for its page."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from f3tok_jax.runs import exported_config
from f3tok_jax.runs import sound as sound_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A published method.

    Attributes:
        name: of it, and of models made after it.
        arxiv: number of the paper.
        authors: as BibTeX has them; "" where this project does not know them.
        codes: a sentence, in which {rate} are latents per second, {dim} their values, and {ahead} and
            {late} the ms that halves of a stream see ahead.
    """

    name: str
    arxiv: str
    authors: str = ""
    codes: str

    @property
    def tag(self) -> str:
        return self.name.lower()

    @property
    def linked(self) -> str:
        """The name with the paper, in Markdown."""
        return f"{self.name} ([arXiv {self.arxiv}](https://arxiv.org/abs/{self.arxiv}))"

    @property
    def cited(self) -> str:
        """For BibTeX."""
        who = f"\n  author = {{{self.authors}}}," if self.authors else ""
        return (
            f"@misc{{{self.tag.replace('-', '')}2026,\n  title = {{{{{self.name}}}}},{who}\n"
            f"  year = {{2026}}, eprint = {{{self.arxiv}}}, archivePrefix = {{arXiv}}\n}}"
        )


_WHOLE = (
    "Whole sounds, and no streams, become {{rate:g}} latents of {{dim}} values per second, and sound again: a "
    "frozen semantic encoder hears them, and a layer beside it says what it does not; both are {added}."
)
_F3 = Method(
    name="F3-Tokenizer",
    arxiv="2606.06357",
    authors=(
        "Zhou, Dinghao and Song, Xingchen and Wu, Di and Cheng, Pengyu and Shen, Shengfan and\n"
        "            Lv, Sixiang"
    ),
    codes="Sound becomes {rate:g} latents of {dim} values per second, and sound again, in a stream, too: the "
    "encoder sees {ahead:g} ms ahead and the decoder {late:g}.",
)
# What an autoencoder fuses -> the method that does so.
_SEMANTIC = {
    "latents": Method(
        name="LoSATok", arxiv="2605.27840", codes=_WHOLE.format(added="added once they are narrow")
    ),
    "features": Method(
        name="DashengTokenizer", arxiv="2602.23765", codes=_WHOLE.format(added="added as they are")
    ),
}


def of(written: Mapping[str, Any]) -> Method:
    """The one of a folder's autoencoder, by its config.json."""
    if exported_config.is_semantic(written):
        return _SEMANTIC[written[sound_lib.SEMANTIC]["fusion"]]
    return _F3


def followed(written: Mapping[str, Any]) -> Sequence[Method]:
    """The same, and that of what is trained on latents, where there is any and it is another's."""
    goes_on = len(exported_config.stages(written)) > 1
    return [of(written), _F3] if goes_on and of(written) is not _F3 else [of(written)]


def codes(written: Mapping[str, Any], sound: sound_lib.Sound) -> str:
    """How it codes sound, whose latents are `sound`."""
    fields = {"rate": sound.latent_rate, "dim": sound.latent_dim}
    if not exported_config.is_semantic(written):
        fields["ahead"] = 1000 * written["hop_length"] / sound.sample_rate
        fields["late"] = 1000 * written["decoder_lookahead"] / sound.latent_rate
    return of(written).codes.format(**fields)
