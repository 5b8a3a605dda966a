# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer's generator in PyTorch: text to latents, patch by patch.

    text [audio start] r_1 ... r_N        what the language model reads
              h_0  h_1 ... h_N            its states
              z_1  z_2 ... end            patches that the flow head makes of them

Each patch is represented, projected to one embedding r and read in turn. A time t of the flow is 0 at
noise and 1 at data; guidance w goes from the velocity u without condition to c with it, u + w (c - u).
"""

from collections.abc import Callable, Mapping
import dataclasses
import inspect
import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache

from .transformer_f3_tokenizer import Cache
from .transformer_f3_tokenizer import F3TokRepresentationEncoder
from .transformer_f3_tokenizer import Transformer

_EPSILON = 1e-6  # of the mean square of an audio token
_VARIANCE_EPSILON = 1e-5  # of a latent that is brought back to mean 0 and rms 1
_TIME_FEATURES, _TIME_SCALE = 256, 1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How noise is carried to a patch.

    Attributes:
        num_steps: of the solver.
        solver: "euler", or "midpoint" with two velocities per step.
        sway: bends the times; -1 takes small steps near the noise, 0 equal ones (arXiv 2410.06885).
        guidance: 1 is the condition alone, more is closer to the text.
        temperature: standard deviation of the noise.
        renormalize: whether latents are brought back to mean 0 and rms 1.
    """

    num_steps: int = 10
    solver: str = "euler"
    sway: float = -1.0
    guidance: float = 2.0
    temperature: float = 1.0
    renormalize: bool = True

    def __post_init__(self):
        if self.num_steps < 1 or self.solver not in ("euler", "midpoint"):
            raise ValueError(
                "num_steps must be at least 1 and solver 'euler' or 'midpoint', got "
                f"{self.num_steps} and {self.solver!r}"
            )
        if not -1 <= self.sway <= 2 / (math.pi - 2):
            raise ValueError(
                f"sway must be in [-1, {2 / (math.pi - 2):.2f}], where time still rises, got {self.sway}"
            )
        if not (self.guidance >= 0 and self.temperature >= 0):
            raise ValueError(
                "guidance and temperature must be at least 0, got "
                f"{self.guidance} and {self.temperature}"
            )

    @classmethod
    def of(cls, usual: Mapping, changes: Mapping, *, normalize: bool) -> "Sampling":
        """The sampling of a config with what a call changes; `normalize`: of the autoencoder."""
        if unknown := changes.keys() - vars(cls()).keys():
            known = ", ".join(vars(cls()))
            raise ValueError(f"sampling must be of {known}, got {min(unknown)!r}")
        found = cls(**{**usual, **changes})
        if found.renormalize and not normalize:
            raise ValueError(
                "sampling must leave latents as they are where the autoencoder does not normalise them, "
                "got renormalize=True"
            )
        return found

    def times(self) -> list[float]:
        """num_steps + 1 times from 0 to 1."""
        even = [step / self.num_steps for step in range(self.num_steps + 1)]
        bent = [t + self.sway * (math.cos(math.pi * t / 2) - 1 + t) for t in even]
        return [0.0, *bent[1:-1], 1.0]

    def carry(
        self, velocity: Callable[[torch.Tensor, float], torch.Tensor], noise: torch.Tensor
    ) -> torch.Tensor:
        """Noise of standard deviation 1 [n, p, d] along a velocity (x_t, t) to data."""
        x, times = self.temperature * noise, self.times()
        for start, end in zip(times, times[1:]):
            step, slope = end - start, velocity(x, start)
            if self.solver == "midpoint":
                slope = velocity(x + 0.5 * step * slope, start + 0.5 * step)
            x = x + step * slope
        if not self.renormalize:
            return x
        x = x - x.mean(dim=-1, keepdim=True)
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _VARIANCE_EPSILON)


class F3TokFlowHead(nn.Module):
    """A bidirectional transformer over [condition and time, patches before, noisy patch]."""

    def __init__(self, latent_dim: int, patch: int, language_width: int, fields: Mapping):
        super().__init__()
        width = fields["width"]
        self.patch, self.history = patch, fields["history"]
        self.state_in = nn.Linear(language_width, width, bias=False)
        if fields["use_token"]:
            self.token_in = nn.Linear(language_width, width, bias=False)
        self.use_token = fields["use_token"]
        self.time_hidden = nn.Linear(_TIME_FEATURES, width)
        self.time_out = nn.Linear(width, width)
        self.latents_in = nn.Linear(latent_dim, width)
        self.roles = nn.Parameter(torch.empty(2, width).normal_(std=0.02))
        self.transformer = Transformer(fields, causal=False)
        self.latents_out = nn.Linear(width, latent_dim)
        self.stop_hidden = nn.Linear(language_width, width)
        self.stop_out = nn.Linear(width, 1)

    def condition(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What a patch is made from, [n, width], of the state and the audio token [n, d] before it."""
        condition = self.state_in(states.to(self.state_in.weight.dtype))
        if self.use_token:
            condition = condition + self.token_in(tokens.to(condition.dtype))
        return condition

    def velocity(
        self,
        condition: torch.Tensor,
        time: torch.Tensor,
        noisy: torch.Tensor,
        history: torch.Tensor,
    ) -> torch.Tensor:
        """The velocity at `noisy`, [n, patch, latent_dim] float32.

        Args:
            condition: [n, width]; zeros for none.
            time: [n] in [0, 1].
            noisy: [n, patch, latent_dim], x_t.
            history: [n, history * patch, latent_dim] latents before it, zeros where there are none.
        """
        half = _TIME_FEATURES // 2
        steps = torch.arange(half, device=time.device, dtype=torch.float32) / half
        angles = _TIME_SCALE * time.float()[:, None] * 10_000.0**-steps
        features = torch.cat([angles.cos(), angles.sin()], dim=-1).to(condition.dtype)
        first = condition + self.time_out(F.silu(self.time_hidden(features)))
        past = self.latents_in(history.to(condition.dtype)) + self.roles[:1]
        current = self.latents_in(noisy.to(condition.dtype)) + self.roles[1:]
        x = self.transformer(torch.cat([first[:, None], past, current], dim=1))
        return self.latents_out(x[:, -self.patch :]).float()

    def stop_logits(self, states: torch.Tensor) -> torch.Tensor:
        """[...] float32: log-odds that the patch which states [..., d] have read last was the last."""
        states = states.to(self.stop_hidden.weight.dtype)
        return self.stop_out(F.silu(self.stop_hidden(states)))[..., 0].float()

    def sample(
        self,
        condition: torch.Tensor,
        history: torch.Tensor,
        noise: torch.Tensor,
        sampling: Sampling,
    ) -> torch.Tensor:
        """Patches [n, patch, latent_dim] of noise of that shape."""

        def velocity(x, time):
            times = x.new_full(x.shape[:1], time)
            if sampling.guidance == 1.0:
                return self.velocity(condition, times, x, history)
            pair = torch.cat([condition, torch.zeros_like(condition)])
            twice = (torch.cat([array, array]) for array in (times, x, history))
            with_it, without = self.velocity(pair, *twice).chunk(2)
            return without + sampling.guidance * (with_it - without)

        return sampling.carry(velocity, noise)


class F3TokProjector(nn.Module):
    """Representations to embeddings of the language model, `patch` of them to one."""

    def __init__(self, width: int, patch: int, language_width: int, kind: str):
        super().__init__()
        self.patch, hidden = patch, 2 * language_width
        if kind == "swiglu":
            self.gate = nn.Linear(patch * width, hidden, bias=False)
            self.up = nn.Linear(patch * width, hidden, bias=False)
        self.is_gated, inputs = kind == "swiglu", hidden if kind == "swiglu" else patch * width
        self.output = nn.Linear(inputs, language_width, bias=False)
        self.gain = nn.Parameter(torch.ones(language_width))
        self.boundaries = nn.Parameter(torch.randn(2, language_width))  # audio start, audio end

    def forward(self, representations: torch.Tensor) -> torch.Tensor:
        """[b, n * patch, width] -> audio tokens [b, n, language_width] of rms 1, float32."""
        x = representations.unflatten(1, (-1, self.patch)).flatten(2)
        x = x.to(self.output.weight.dtype)
        if self.is_gated:
            x = F.silu(self.gate(x)) * self.up(x)
        x = self.output(x).float()
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _EPSILON)
        return x * self.gain.float()


@dataclasses.dataclass
class _Speech:
    """Where sampling stands; every row of the batch is read on, whether it has ended or not.

    Attributes:
        heard: cache of the representation encoder.
        read: cache of the language model.
        mask: [b, s] of what that has read.
        state: [b, d] of the language model.
        token: [b, d] last audio token, zeros before the first.
        history: [b, h, latent_dim] last latents.
    """

    heard: Cache
    read: DynamicCache
    mask: torch.Tensor
    state: torch.Tensor
    token: torch.Tensor
    history: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """Reads text and latents, and says what follows.

    Attributes:
        encoder: of representations.
        projector: representations to audio tokens.
        language_model: of transformers, without its head.
        flow_head: states to patches.
        embedding_rms: of the language model's table, the scale of all that it reads.
        latent_rms: by which latents are divided before anything reads them.
    """

    encoder: F3TokRepresentationEncoder
    projector: F3TokProjector
    language_model: nn.Module
    flow_head: F3TokFlowHead
    embedding_rms: float
    latent_rms: float = 1.0

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        prompt: torch.Tensor,
        prompt_mask: torch.Tensor,
        *,
        max_patches: int,
        min_patches: int,
        sampling: Sampling,
        noise: Callable[[int], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [b, n * patch, latent_dim] that follow, and which of them are sound [b, n * patch].

        Args:
            input_ids: [b, s] of the text.
            attention_mask: [b, s] bool.
            prompt: [b, t, latent_dim] latents of recordings that are continued, whole patches.
            prompt_mask: [b, t] bool, True from the front.
            max_patches: of every row, at most.
            min_patches: before which no row ends by itself.
            sampling: of the flow head.
            noise: of the patch of an index, [b, patch, latent_dim].
        """
        prompt = prompt / self.latent_rms
        speech = self._begin(input_ids, attention_mask, prompt, prompt_mask)
        survival = speech.state.new_zeros(speech.state.shape[0], dtype=torch.float32)
        goes_on, patches, masks = torch.ones_like(survival, dtype=torch.bool), [], []
        for index in range(max_patches):
            condition = self.flow_head.condition(speech.state, speech.token)
            drawn = self.flow_head.sample(condition, speech.history, noise(index), sampling)
            patches.append(drawn)
            masks.append(goes_on)
            speech = self._read(speech, drawn)
            # How likely the sound is to go on: it ends where it is more likely to have ended.
            if index + 1 >= min_patches:
                survival = survival + F.logsigmoid(-self.flow_head.stop_logits(speech.state))
            goes_on = goes_on & (survival >= -math.log(2))
            if not goes_on.any():
                break
        mask = torch.stack(masks, dim=1).repeat_interleave(self.flow_head.patch, dim=1)
        latents = torch.cat(patches, dim=1) * self.latent_rms
        return torch.where(mask[..., None], latents, 0.0), mask

    def losses(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        latents: torch.Tensor,
        mask: torch.Tensor,
        *,
        condition_drop: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean square error of the velocity and cross-entropy of the end, where latents are known.

        Args:
            input_ids: [b, s] of the text.
            attention_mask: [b, s] bool.
            latents: [b, t, latent_dim] of whole recordings; what fills no patch is left out.
            mask: [b, t] bool, True from the front.
            condition_drop: share of patches without condition, which guidance needs.
        """
        patch, history_length = self.flow_head.patch, self.flow_head.history * self.flow_head.patch
        latents, mask = whole_patches(latents / self.latent_rms, mask, patch)
        mask, count = mask[:, ::patch], latents.shape[1] // patch
        tokens = self.projector(self.encoder(latents))
        x, read = self._read_text(input_ids, attention_mask)
        read = torch.cat([read, mask], dim=1)
        x = torch.cat([x, tokens * self.embedding_rms], dim=1)
        cache = DynamicCache(config=self.language_model.config)
        states = self._hidden(x, read, cache)[:, -count - 1 :]
        targets = latents.unflatten(1, (count, patch))
        past = F.pad(latents, (0, 0, history_length, 0))
        history = past.unfold(1, max(1, history_length), patch)[:, :count]
        history = history.transpose(2, 3)[:, :, :history_length]
        # The encoder is taught by the language model alone, which reads it.
        before = F.pad(tokens.detach(), (0, 0, 1, 0))[:, :count]
        condition = self.flow_head.condition(states[:, :-1], before)
        keeps = torch.rand_like(condition[..., :1]) >= condition_drop
        time = torch.randn_like(targets[:, :, 0, 0]).sigmoid()
        noise = torch.randn_like(targets)
        noisy = noise + time[..., None, None] * (targets - noise)
        flat = (condition * keeps, time, noisy, history)
        velocity = self.flow_head.velocity(*(array.flatten(0, 1) for array in flat))
        error = (velocity.unflatten(0, mask.shape) - (targets - noise)).square().mean(dim=(2, 3))
        is_last = mask & ~F.pad(mask[:, 1:], (0, 1))
        ends = F.binary_cross_entropy_with_logits(
            self.flow_head.stop_logits(states[:, 1:]), is_last.float(), reduction="none"
        )
        weight = mask.sum().clamp(min=1)
        return (error * mask).sum() / weight, (ends * mask).sum() / weight

    def _begin(self, input_ids, attention_mask, prompt, prompt_mask) -> _Speech:
        """Reads the text and the recordings."""
        x, mask = self._read_text(input_ids, attention_mask)
        patch, heard = self.flow_head.patch, {}
        room = prompt.new_zeros(len(prompt), self.flow_head.history * patch, prompt.shape[2])
        token = torch.zeros_like(x[:, 0])
        if prompt.shape[1]:
            # What is to follow must follow at once: padding stands before all else.
            prompt, prompt_mask = padded_before(prompt, prompt_mask)
            tokens = self.projector(self.encoder(prompt, heard, prompt_mask))
            x = torch.cat([x, tokens * self.embedding_rms], dim=1)
            mask = torch.cat([mask, prompt_mask[:, ::patch]], dim=1)
            token = torch.where(prompt_mask[:, -1:], tokens[:, -1], 0.0)
        x, mask = padded_before(x, mask)
        read = DynamicCache(config=self.language_model.config)
        state = self._hidden(x, mask, read)[:, -1]
        history = torch.cat([room, prompt], dim=1)[:, prompt.shape[1] :]
        return _Speech(heard, read, mask, state, token, history)

    def _read_text(self, input_ids, attention_mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [b, s + 1, d] of the text and the audio start, and their mask."""
        start = self.projector.boundaries[:1].float() * self.embedding_rms
        start = start.expand(input_ids.shape[0], 1, -1)
        text = self.language_model.get_input_embeddings()(input_ids).float()
        return torch.cat([text, start], dim=1), F.pad(attention_mask, (0, 1), value=True)

    def _read(self, speech: _Speech, drawn: torch.Tensor) -> _Speech:
        """Reads the patches that were drawn."""
        tokens = self.projector(self.encoder(drawn, speech.heard))
        mask = F.pad(speech.mask, (0, 1), value=True)
        state = self._hidden(tokens * self.embedding_rms, mask, speech.read)[:, -1]
        history = torch.cat([speech.history, drawn], dim=1)[:, drawn.shape[1] :]
        return dataclasses.replace(
            speech, mask=mask, state=state, token=tokens[:, -1], history=history
        )

    def _hidden(self, x, mask, cache: DynamicCache) -> torch.Tensor:
        return hidden_states(self.language_model, x, mask, cache)


def hidden_states(
    language_model: nn.Module, x: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """States of the next positions [b, k, d], after those that the cache is of.

    Args:
        language_model: of transformers, without its head.
        x: [b, k, d] that it reads.
        mask: [b, s] bool, of all positions, those of the cache too.
        cache: is written to.
    """
    positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -x.shape[1] :]
    named = inspect.signature(language_model.forward).parameters
    name = "cache" if "cache" in named else "past_key_values"  # until transformers 5.23
    return language_model(
        inputs_embeds=x.to(language_model.get_input_embeddings().weight.dtype),
        attention_mask=mask.long(),
        position_ids=positions,
        use_cache=True,
        **{name: cache},
    ).last_hidden_state


def whole_patches(
    latents: torch.Tensor, mask: torch.Tensor, patch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """[b, t, d] and [b, t] without what fills no patch; a patch is valid as a whole or not."""
    count = latents.shape[1] // patch
    if not count:
        return latents[:, :0], mask[:, :0]
    whole = mask[:, : count * patch].unflatten(1, (count, patch)).all(dim=-1)
    return latents[:, : count * patch], whole.repeat_interleave(patch, dim=1)


def padded_before(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[b, t, d] and [b, t] with all that is not valid moved to the front, the rest as it was."""
    order = mask.long().argsort(dim=1, stable=True)
    x = torch.where(mask[..., None], x, 0.0).take_along_dim(order[..., None], dim=1)
    return x, mask.take_along_dim(order, dim=1)
