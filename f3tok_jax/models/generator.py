# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Text to latents: a language model reads text and what was said so far, a head says what follows.

    text [audio start] r_1 ... r_N        the language model's input
              h_0  h_1 ... h_N            its states
              z_1  z_2 ... stop           what the flow head makes of them

State h_i and token r_i, which have seen the patches up to i alone, become patch i + 1; it is
represented, projected to r_(i+1) and read in turn. Training runs over whole sequences at once,
sampling patch by patch on caches, with the same numbers.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from f3tok_jax.models import flow_head
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.models import sequences as sequences_lib
from f3tok_jax.models.transformer import cache as cache_lib
from f3tok_jax.models.transformer import transformer

# Weights by name: "encoder", "projector", "language_model", "head", and the scalar
# "embedding_rms" of the language model's table.
Weights = Mapping[str, Any]

CHUNK_PATCHES = 8  # that callers ask of a call of `advance`: 0.64 s at 12.5 Hz

# Names of the parameters that modules cast to their compute dtype before they use them.
_CAST = ("kernel", "bias", "embedding", "roles")


@flax.struct.dataclass
class Teaching:
    """What the head learns from: everything before each patch of whole sequences.

    Attributes:
        states: [b, n + 1, d] of the language model: after the audio start, after each patch.
        tokens: [b, n + 1, d] audio tokens of the same positions, zeros at the first.
        targets: [b, n, p, latent_dim] the patches; n of them follow the first n states.
        history: [b, n, h * p, latent_dim] clean latents before each patch.
        sound: [b, n] bool, True where a patch is sound as a whole.
        mask: [b, n] bool, True where it has had room in its row, too, and teaches.
        text: sums of the cross-entropy of the text's answers.
        lost: positions of the language model that had no room, of how many; float32.
    """

    states: jax.Array
    tokens: jax.Array
    targets: jax.Array
    history: jax.Array
    sound: jax.Array
    mask: jax.Array
    text: sequences_lib.Score | None
    lost: tuple[jax.Array, jax.Array]


@flax.struct.dataclass
class Speech:
    """Where sampling stands, row by row.

    Attributes:
        encoder: cache of the representation encoder.
        language_model: cache of the language model.
        state: [b, d] of the language model after what it has read last.
        token: [b, d] audio token of the last patch, zeros before the first.
        history: [b, h * p, latent_dim] the last latents.
        index: [b] int32, patches sampled so far.
        survival: [b] logarithm of how likely the sound is to go on after them.
        is_done: [b] bool: the row has stopped, or has as many patches as it may.
    """

    encoder: cache_lib.Cache
    language_model: cache_lib.Cache
    state: jax.Array
    token: jax.Array
    history: jax.Array
    index: jax.Array
    survival: jax.Array
    is_done: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """The modules of generation; weights are given to every call.

    Attributes:
        encoder: latents to representations.
        projector: representations to audio tokens.
        language_model: reads text and audio tokens.
        head: states to patches.
    """

    encoder: encoder_lib.RepresentationEncoder
    projector: projector_lib.Projector
    language_model: language_model_lib.LanguageModel
    head: flow_head.FlowHead

    @property
    def patch(self) -> int:
        return self.head.patch

    def stored(self, weights: Weights) -> dict[str, Any]:
        """`weights` as sampling reads them again and again: in the types that are computed with, and
        layers that read the same as one; see transformer.joined.

        Kernels, biases, tables and roles, which modules cast to their compute dtype before every
        use, are in it: not a bit of any result changes by that. In float32 stay gains, applied so,
        the projector's boundaries, and the kernels of the head's feed-forward layers: those a TPU's
        compiler casts once per call, into fast memory, where every step of the solver finds them;
        from bfloat16 it would read them anew for each.
        """
        modules = dict(
            encoder=self.encoder,
            projector=self.projector,
            language_model=self.language_model.transformer,
            head=self.head,
        )

        def store(path, leaf):
            names = [entry.key for entry in path]
            stays = names[0] == "head" and "feed_forward" in names
            if stays or names[0] not in modules or names[-1] not in _CAST:
                return leaf
            return leaf.astype(modules[names[0]].compute_dtype)

        stored = jax.tree.map_with_path(store, dict(weights))
        for name in ("encoder", "language_model", "head"):
            layers = transformer.joined(stored[name]["transformer"])
            stored[name] = {**stored[name], "transformer": layers}
        return stored

    def teach(
        self,
        weights: Weights,
        latents: jax.Array,
        mask: jax.Array,
        text: jax.Array,
        text_mask: jax.Array,
        answer: jax.Array,
        *,
        examples_per_row: int = 1,
        length: int = 0,
        noise_key: jax.Array | None = None,
        score_text: bool = False,
    ) -> Teaching:
        """Reads whole examples in one pass of the language model.

        Args:
            weights: of all modules but the head.
            latents: [b, t, latent_dim], clean; the last ones that fill no patch are left out.
            mask: [b, t] bool, True where there is sound.
            text: [b, s] int32 token ids.
            text_mask: [b, s] bool; a row without text continues what it hears.
            answer: [b, s] bool, of `score_text`.
            examples_per_row: see sequences.make_sequences.
            length: positions of a row of the language model; patches without room do not count.
            noise_key: of the noise on the encoder's input; None for none.
            score_text: whether to predict the answers of the text, too.
        """
        targets = flow_head.patches_of(latents, self.patch)
        num_patches = targets.shape[1]
        patch_mask = jnp.all(
            mask[:, : num_patches * self.patch].reshape(*targets.shape[:2], self.patch), axis=-1
        )
        heard = flow_head.latents_of(targets)
        with jax.named_scope("representation_encoder"):
            states = self.encoder.apply(
                {"params": weights["encoder"]},
                heard,
                segments=jnp.repeat(patch_mask, self.patch, axis=1).astype(jnp.int32),
                noise_key=noise_key,
            )
        tokens = self._tokens(weights, states)
        model = self.language_model.bind({"params": weights["language_model"]})
        with jax.named_scope("language_model"):
            sequences = sequences_lib.make_sequences(
                tokens * weights["embedding_rms"],
                patch_mask,
                self._boundaries(weights) * weights["embedding_rms"],
                text,
                text_mask,
                answer,
                embed=model.embed,
                text_first=True,
                examples_per_row=examples_per_row,
                length=length,
            )
            hidden = model(
                sequences.embeddings, positions=sequences.positions, segments=sequences.segments
            )
        slots = sequences_lib.to_slots(sequences, hidden, num_examples=latents.shape[0])
        had_room = sequences_lib.to_slots(
            sequences, sequences.segments[..., None] > 0, num_examples=latents.shape[0]
        )[:, -num_patches - 1 :, 0]
        return Teaching(
            states=slots[:, -num_patches - 1 :],
            tokens=jnp.pad(tokens, ((0, 0), (1, 0), (0, 0))),
            targets=targets,
            history=flow_head.history_of(targets, self.head.history),
            sound=patch_mask,
            mask=patch_mask & had_room[:, 1:],
            text=sequences_lib.score(sequences, hidden, model.logits) if score_text else None,
            lost=sequences.lost,
        )

    def begin(
        self,
        weights: Weights,
        text: jax.Array,
        text_mask: jax.Array,
        prompt: jax.Array,
        prompt_mask: jax.Array,
        *,
        max_patches: int,
    ) -> Speech:
        """Reads text, and a recording that is to be continued.

        Args:
            weights: of all modules.
            text: [b, s] int32 token ids.
            text_mask: [b, s] bool.
            prompt: [b, n, p, latent_dim] patches of the recording, from the front; n may be 0.
            prompt_mask: [b, n] bool.
            max_patches: that may follow; caches have room for them.
        """
        batch_size, num_prompt, patch, latent_dim = prompt.shape
        model = self.language_model.bind({"params": weights["language_model"]})
        room = text.shape[1] + 1 + num_prompt + max_patches
        start = self._boundaries(weights)[0] * weights["embedding_rms"]
        start = jnp.broadcast_to(start, (batch_size, 1, start.shape[-1]))
        parts = [model.embed(text).astype(jnp.float32), start]
        masks = [text_mask, jnp.ones((batch_size, 1), bool)]
        encoder_cache = self.encoder.initial_cache(batch_size, (num_prompt + max_patches) * patch)
        token = jnp.zeros((batch_size, model.width))
        history = jnp.zeros((batch_size, self.head.history * patch, latent_dim))
        if num_prompt:
            # To the end, where no padding takes the room of what the encoder still sees.
            missing = num_prompt - jnp.sum(prompt_mask, axis=1, keepdims=True)
            places = jnp.arange(num_prompt)[None] - missing
            prompt_mask = places >= 0
            prompt = jnp.take_along_axis(prompt, jnp.maximum(places, 0)[:, :, None, None], axis=1)
            latents = jnp.where(prompt_mask[..., None, None], prompt, 0.0)
            latents = latents.reshape(batch_size, -1, latent_dim)
            tokens, encoder_cache = self._listen(
                weights, latents, encoder_cache, mask=jnp.repeat(prompt_mask, patch, axis=1)
            )
            parts.append(tokens * weights["embedding_rms"])
            masks.append(prompt_mask)
            token = jnp.where(prompt_mask[:, -1:], tokens[:, -1], 0.0)
            history = jnp.concatenate([history, latents], axis=1)[:, latents.shape[1] :]
        mask = jnp.concatenate(masks, axis=1)
        hidden, cache = model.step(
            jnp.concatenate(parts, axis=1), model.initial_cache(batch_size, room), mask=mask
        )
        # The last position that was read, wherever padding stands.
        last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
        return Speech(
            encoder=encoder_cache,
            language_model=cache,
            state=jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0],
            token=token,
            history=history,
            index=jnp.zeros((batch_size,), jnp.int32),
            survival=jnp.zeros((batch_size,)),
            is_done=jnp.zeros((batch_size,), bool),
        )

    def advance(
        self,
        weights: Weights,
        speech: Speech,
        key: jax.Array,
        limit: jax.Array,
        *,
        sampler: sampler_lib.Sampler,
        num_patches: int,
        least: jax.Array | int = 0,
    ) -> tuple[Speech, jax.Array, jax.Array]:
        """Samples the next patches of every row that goes on.

        Args:
            weights: of all modules.
            speech: from `begin` or the previous call.
            key: of the noise; each patch's depends on it and the patch's index alone, so that the
                chunks in which it is asked for change nothing.
            limit: [b] int32, patches after which a row is done, at most the `max_patches` of
                `begin`.
            sampler: of the head.
            num_patches: at most so many; fewer where all rows are done.
            least: patches before which no row stops by itself.

        Returns:
            The next state, patches [b, num_patches, p, latent_dim] and their mask
            [b, num_patches], True from the front.
        """
        batch_size, _, latent_dim = speech.history.shape
        shape = (batch_size, num_patches, self.patch, latent_dim)

        def is_going(carry):
            step, speech, _, _ = carry
            return (step < num_patches) & ~jnp.all(speech.is_done)

        def one(carry):
            step, speech, patches, mask = carry
            going = ~speech.is_done
            drawn = self.sample(
                weights, speech.state, speech.token, speech.history, noise_of(key, speech, shape),
                sampler=sampler,
            )  # fmt: skip
            patches = patches.at[:, step].set(jnp.where(going[:, None, None], drawn, 0.0))
            mask = mask.at[:, step].set(going)
            return step + 1, self._read(weights, speech, drawn, limit, least), patches, mask

        empty = jnp.zeros(shape), jnp.zeros(shape[:2], bool)
        _, speech, patches, mask = jax.lax.while_loop(is_going, one, (jnp.int32(0), speech, *empty))
        return speech, patches, mask

    def grown(self, speech: Speech, more: int) -> Speech:
        """`speech` with room in its caches for `more` patches than they had room for."""

        def widened(cache, make, count):
            batch_size = cache.positions.shape[0]
            return jax.tree.map(
                lambda small, large: jax.lax.dynamic_update_slice(large, small, (0,) * small.ndim),
                cache,
                make(batch_size, cache.num_slots + count),
            )

        return dataclasses.replace(
            speech,
            encoder=widened(speech.encoder, self.encoder.initial_cache, more * self.patch),
            language_model=widened(speech.language_model, self.language_model.initial_cache, more),
        )

    def sample(
        self,
        weights: Weights,
        states: jax.Array,
        tokens: jax.Array,
        history: jax.Array,
        noise: jax.Array,
        *,
        sampler: sampler_lib.Sampler,
    ) -> jax.Array:
        """Patches [n, p, latent_dim] from noise of that shape, after states and tokens [n, d]."""
        # Every step of the solver would pay for a loop over so few layers.
        head = self.head.clone(unrolled=True).bind({"params": weights["head"]})

        def velocity(condition, time_token, x):
            past = jnp.concatenate([history] * (x.shape[0] // history.shape[0]))
            return head.flow(condition, time_token, x, past)

        guided = sampler_lib.guided(velocity, head.condition(states, tokens), sampler.guidance)
        return sampler(guided, noise, embed=head.time_token)

    def _read(
        self,
        weights: Weights,
        speech: Speech,
        drawn: jax.Array,
        limit: jax.Array,
        least: jax.Array | int,
    ) -> Speech:
        """Reads the patches that rows which go on have just drawn."""
        going = ~speech.is_done

        def keep(new, old):
            return jnp.where(going.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        tokens, encoder_cache = self._listen(
            weights, drawn, speech.encoder,
            mask=jnp.broadcast_to(going[:, None], drawn.shape[:2]),
        )  # fmt: skip
        model = self.language_model.bind({"params": weights["language_model"]})
        with jax.named_scope("language_model"):
            hidden, cache = model.step(
                tokens * weights["embedding_rms"], speech.language_model, mask=going[:, None]
            )
        head = self.head.bind({"params": weights["head"]})
        index = speech.index + going
        survives = flow_head.log_survival(head.stop_logits(hidden[:, 0]))
        survives = jnp.where(index >= least, survives, 0.0)
        survival = keep(speech.survival + survives, speech.survival)
        history = jnp.concatenate([speech.history, drawn], axis=1)
        history = history[:, history.shape[1] - speech.history.shape[1] :]

        return Speech(
            encoder=encoder_cache,
            language_model=cache,
            state=keep(hidden[:, 0], speech.state),
            token=keep(tokens[:, 0], speech.token),
            history=keep(history, speech.history),
            index=index,
            survival=survival,
            is_done=speech.is_done | flow_head.has_ended(survival) | (index >= limit),
        )

    def _listen(
        self, weights: Weights, latents: jax.Array, cache: cache_lib.Cache, *, mask: jax.Array
    ) -> tuple[jax.Array, cache_lib.Cache]:
        """Audio tokens of the next latents, as a stream."""
        with jax.named_scope("representation_encoder"):
            states, cache = self.encoder.apply(
                {"params": weights["encoder"]}, latents, cache, mask=mask, method="step"
            )
        return self._tokens(weights, states), cache

    def _tokens(self, weights: Weights, representations: jax.Array) -> jax.Array:
        with jax.named_scope("projector"):
            return self.projector.apply({"params": weights["projector"]}, representations)

    def _boundaries(self, weights: Weights) -> jax.Array:
        return self.projector.apply({"params": weights["projector"]}, method="start_and_end")


def noise_of(key: jax.Array, speech: Speech, shape: tuple[int, ...]) -> jax.Array:
    """Noise [b, p, d] for the next patch of each row, by row and index alone."""

    def row(number, index):
        own = jax.random.fold_in(jax.random.fold_in(key, number), index)
        return jax.random.normal(own, shape[2:])

    return jax.vmap(row)(jnp.arange(shape[0]), speech.index)
