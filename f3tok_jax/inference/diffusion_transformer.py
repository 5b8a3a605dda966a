# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion transformer in use: a text and a length to the latents of a sound."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.inference import generate
from f3tok_jax.models import diffusion_transformer
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import diffusion_transformer as pretrained
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage

_BATCH = 32  # sounds at a time, at most
_ROOM = 64  # rows are a multiple of so many latents: few programs for all lengths


class TextToWholeSound:
    """The diffusion transformer of a run with the autoencoder that it was trained on."""

    def __init__(
        self,
        model: pretrained.Model,
        weights: Mapping[str, Any],
        codec: codec_lib.Codec,
        *,
        step: int,
    ):
        """Takes weights and what goes with them; use `load` for those of a run.

        Args:
            model: of the run.
            weights: of `pretrained.load`.
            codec: the autoencoder of the run.
            step: after which the weights were saved.
        """
        self.config, self.codec, self.step = model.config, codec, step
        self.sampler = model.sampler
        self.text = pretrained_generation.text_tasks(
            model.config.text, model.run.language_model_folder
        )
        self._model, self._weights = model, weights
        # The transformer's own latents are of rms 1; those that are given are the codec's.
        self._latent_rms = np.float32(model.run.latent_rms)
        self._draw = jax.jit(self._read_and_draw, static_argnames="sampler")

    @classmethod
    def load(
        cls, run: lineage.Lineage, *, say: Callable[[str], None] = print
    ) -> "TextToWholeSound":
        """Loads the averaged weights of a run and the models that it was trained on.

        Args:
            run: of the diffusion-transformer stage.
            say: where messages to the user go: which steps are damaged.

        Raises:
            ValueError: where a run is of another version, or the models are not those that the run
                was trained on.
            checkpoint.CheckpointError: where no checkpoint that may be used is whole.
        """
        run.check(language_model=True)
        codec = codec_lib.Codec.load(run.parents["autoencoder"], say=say)
        model, weights, found = pretrained.load(run, say=say)
        with config_lib.values_of(run.workdir):
            return cls(model, weights, codec, step=found.step)

    @property
    def trained_latents(self) -> int:
        """Of a sound in training, at most."""
        return self.config.data.crop_frames

    def generate(
        self,
        requests: Sequence[generate.Request],
        lengths: Sequence[int],
        *,
        batch_size: int = _BATCH,
        seed: int = 0,
        sampler: Mapping[str, Any] | None = None,
    ) -> list[np.ndarray]:
        """Latents [t, latent_dim] of each request; a row does not depend on those beside it.

        Args:
            requests: texts, without prompts; at least one.
            lengths: t of each, at least 1.
            batch_size: at a time, at most.
            seed: of the noise of the first batch; those after it count on.
            sampler: what differs from the run's, such as dict(guidance=2.0).

        Raises:
            ValueError: for a prompt, a length that is none, or a text that the tokenizer lacks
                characters of or that does not fit.
        """
        if any(request.prompt is not None for request in requests):
            raise ValueError(
                "a diffusion transformer continues nothing: give texts without prompts"
            )
        if len(lengths) != len(requests) or not requests or min(lengths) < 1:
            raise ValueError(
                f"each of {len(requests)} texts, at least one, needs a length of at least 1 latent, "
                f"got {list(lengths)[:8]}"
            )
        changed = generate.changed_sampler(
            self.sampler, sampler or {}, normalizes=self._model.run.normalizes_latents
        )
        room = _ROOM * -(-max(lengths) // _ROOM)
        made: list[np.ndarray] = []
        for start, batch in generate.batches([*zip(requests, lengths)], batch_size):
            text = generate.text_rows(self.text, [request for request, _ in batch])
            mask = np.arange(room)[None] < np.array([length for _, length in batch])[:, None]
            key = jax.random.key(seed + start // len(batch))
            latents = self._draw(self._weights, key, mask, *text, sampler=changed)
            rows = np.asarray(latents, np.float32) * self._latent_rms
            made += [row[:length] for row, (_, length) in zip(rows, batch)]
        return made[: len(requests)]

    def _read_and_draw(
        self,
        weights: Mapping[str, Any],
        key: jax.Array,
        mask: jax.Array,
        text: jax.Array,
        text_mask: jax.Array,
        *,
        sampler: sampler_lib.Sampler,
    ) -> jax.Array:
        states = self._model.read(weights, text, text_mask)
        params, mask = weights[pretrained.PLAYER], jnp.asarray(mask)
        module = self._model.module
        return diffusion_transformer.sample(
            module, params, key, mask, states, text_mask, sampler=sampler
        )
