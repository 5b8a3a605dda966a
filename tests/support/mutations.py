# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The list for tests/support/mutants.py: what is changed where, and which tests must notice."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One error.

    Attributes:
        file: that has it, from the root.
        what: is wrong, in a few words.
        old: text of the file, which occurs in it once.
        new: text in its place.
        tests: files of tests, or further arguments of pytest.
    """

    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied_to(self, text: str) -> str:
        """The file's text with the error; raises ValueError where the old text is not there once."""
        if self.old == self.new or text.count(self.old) != 1:
            raise ValueError(
                f"the mutant {self.what!r} wants the text {self.old!r} once in {self.file}, where it "
                f"occurs {text.count(self.old)} times: write it anew in tests/support/mutations.py"
            )
        return text.replace(self.old, self.new)


def _of(file: str, tests: str, *errors: tuple[str, str, str]) -> list[Mutant]:
    """Mutants of one file: (what, old, new) each; tests below tests/f3tok_jax."""
    paths = tuple(f"tests/f3tok_jax/{name}" for name in tests.split())
    return [Mutant(f"f3tok_jax/{file}", *error, paths) for error in errors]


_MATHEMATICS = [
    *_of(
        "models/bottleneck.py",
        "models/test_bottleneck.py",
        (
            "a channel is normalised over time, not a frame over channels",
            "variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)",
            "variance = jnp.mean(jnp.square(centred), axis=1, keepdims=True)",
        ),
        (
            "one alpha for the whole batch",
            "alpha = jax.random.uniform(alpha_key, (batch_size, 1), maxval=gamma)",
            "alpha = jax.random.uniform(alpha_key, (1, 1), maxval=gamma)",
        ),
    ),
    *_of(
        "models/bottleneck_kinds.py",
        "models/test_bottleneck_kinds.py",
        (
            "the other convention of the divergence's half",
            "        if self.half:",
            "        if not self.half:",
        ),
        (
            "free bits are of a frame, not of each value",
            "divergence = jnp.maximum(divergence, self.free_nats)",
            "divergence = divergence + self.free_nats",
        ),
        (
            "one deviation for the whole batch",
            "jax.random.normal(scale_key, (latents.shape[0], 1, 1))",
            "jax.random.normal(scale_key, (1, 1, 1))",
        ),
        (
            "a biased variance",
            "jnp.maximum(count - 1.0, 1.0)",
            "jnp.maximum(count, 1.0)",
        ),
        (
            "a mean over padding, too",
            "return jnp.sum(jnp.where(mask, values, 0.0)), ",
            "return jnp.sum(values), ",
        ),
    ),
    *_of(
        "models/representation_encoder.py",
        "models/test_representation_encoder.py stages/test_representation.py",
        (
            "one alpha for all examples of a packed row",
            "gamma=self.input_noise, segments=segments",
            "gamma=self.input_noise, segments=None",
        ),
    ),
    *_of(
        "models/rq_mtp.py",
        "models/test_rq_mtp.py",
        (
            "codebooks of a generator whose stream may change",
            "draw = np.random.RandomState(seed)",
            "draw = np.random.default_rng(seed)",
        ),
        (
            "codes are normalised over codes, not over their width",
            "np.linalg.norm(codes, axis=-1, keepdims=True)",
            "np.linalg.norm(codes, axis=1, keepdims=True)",
        ),
        (
            "the first head predicts the frame that it has seen",
            "for k in range(1, num_heads + 1):",
            "for k in range(num_heads):",
        ),
        (
            "padding is a target",
            "same = segments != 0",
            "same = segments >= 0",
        ),
    ),
    *_of(
        "models/whitening.py",
        "models/test_whitening.py",
        (
            "the mean stays in the covariance",
            "np.linalg.eigh(products / count - np.outer(mean, mean))",
            "np.linalg.eigh(products / count)",
        ),
    ),
    *_of(
        "models/packing.py",
        "models/test_packing.py",
        (
            "a position more than there is to hold",
            "valid = jnp.arange(length, dtype=jnp.int32)[None] < count",
            "valid = jnp.arange(length, dtype=jnp.int32)[None] <= count",
        ),
    ),
    *_of(
        "models/sequences.py",
        "models/test_sequences.py",
        (
            "examples of a row share a segment",
            "jnp.arange(batch_size, dtype=jnp.int32) % examples_per_row",
            "jnp.arange(batch_size, dtype=jnp.int32) // examples_per_row",
        ),
        (
            "a token is predicted from itself",
            "predicts = jnp.pad(answers[:, 1:], ((0, 0), (0, 1)))",
            "predicts = answers",
        ),
    ),
    *_of(
        "losses/flow.py",
        "losses/test_flow.py",
        (
            "time runs from data to noise",
            "noisy=t * target + (1 - t) * noise",
            "noisy=(1 - t) * target + t * noise",
        ),
        (
            "uniform times",
            "jax.nn.sigmoid(jax.random.normal(time_key, target.shape[:1]))",
            "jax.random.uniform(time_key, target.shape[:1])",
        ),
    ),
    *_of(
        "models/sampler.py",
        "models/test_sampler.py",
        (
            "guidance counts from the condition",
            "return without + guidance * (with_it - without)",
            "return with_it + guidance * (with_it - without)",
        ),
        (
            "the midpoint is taken at the step's beginning",
            "middles = embed(times[:-1] + 0.5 * steps)",
            "middles = embed(times[:-1])",
        ),
    ),
    *_of(
        "models/flow_head.py",
        "models/test_flow_head.py",
        (
            "the history holds the patch itself",
            "padded = jnp.pad(patches, ((0, 0), (count, 0), (0, 0), (0, 0)))",
            "padded = jnp.pad(patches, ((0, 0), (0, count), (0, 0), (0, 0)))",
        ),
        (
            "sound ends where it has probably ended long ago",
            "return survival < -math.log(2)",
            "return survival < -math.log(4)",
        ),
    ),
    *_of(
        "losses/reconstruction.py",
        "losses/test_reconstruction.py",
        (
            "padding of the target is heard",
            "return jnp.where(mask, target, 0.0), jnp.where",
            "return target, jnp.where",
        ),
    ),
    *_of(
        "losses/adversarial.py",
        "losses/test_adversarial.py",
        (
            "features of true sound learn to be like false ones",
            "real = jax.lax.stop_gradient(real).astype(jnp.float32)",
            "real = real.astype(jnp.float32)",
        ),
        (
            "an example's loss is the mean over its padding, too",
            "count = jnp.sum(valid, axis=places, dtype=jnp.float32)",
            "count = jnp.sum(jnp.ones_like(valid), axis=places, dtype=jnp.float32)",
        ),
    ),
    *_of(
        "signal/spectra.py",
        "signal/test_spectra.py",
        (
            "the symmetric window",
            "0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)",
            "0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / (length - 1))",
        ),
        (
            "mel filters of area one half",
            "filters = filters * (2.0 / (high - low))",
            "filters = filters * (1.0 / (high - low))",
        ),
    ),
    *_of(
        "models/transformer/attention.py",
        "models/transformer/test_attention.py models/transformer/test_transformer.py",
        (
            "attention sees the next position",
            "allowed &= distance[None] >= 0",
            "allowed &= distance[None] >= -1",
        ),
        (
            "an example sees those before it in its row",
            "(segments[:, :, None] == segments[:, None, :])",
            "(segments[:, :, None] >= segments[:, None, :])",
        ),
        (
            "the cache's window is one wider",
            "return found & (distance < window) if window else found",
            "return found & (distance <= window) if window else found",
        ),
    ),
    *_of(
        "models/transformer/layers.py",
        "models/transformer/test_layers.py models/transformer/test_transformer.py",
        (
            "rotary pairs are mirrored, not rotated",
            "swap[np.arange(half) + half, np.arange(half)] = -1.0",
            "swap[np.arange(half) + half, np.arange(half)] = 1.0",
        ),
    ),
    *_of(
        "training/state.py",
        "training/test_state.py",
        (
            "the average follows at once",
            "average + (1.0 - decay) * (new.astype(average.dtype) - average)",
            "average + decay * (new.astype(average.dtype) - average)",
        ),
    ),
    *_of(
        "training/players.py",
        "training/test_optimizer.py training/test_players.py",
        (
            "the warm-up begins at the peak",
            "warmth = jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))",
            "warmth = 1.0",
        ),
        (
            "a module that joins late begins at its player's first rate",
            "return warmth * body(jnp.maximum(count + late - before, 0))",
            "return warmth * body(jnp.maximum(count - before, 0))",
        ),
    ),
    *_of(
        "training/optimizer.py",
        "training/test_optimizer.py",
        (
            "what has not begun decays",
            "moves, old = finite & rule.learns(state.step), (parts[module], states[module])",
            "moves, old = finite, (parts[module], states[module])",
        ),
    ),
]

_MODULES = [
    *_of(
        "stages/generation_loss.py",
        "stages/test_generation_loss.py",
        (
            "the encoder hears clean latents in training",
            'noise_key=key_of("encoder_noise") if is_training and flow.encoder_noise else None',
            "noise_key=None",
        ),
        (
            "a patch is made of the state that has read it",
            "states=flat(teaching.states[:, :-1])",
            "states=flat(teaching.states[:, 1:])",
        ),
        (
            "the condition is never dropped",
            'keeps = jax.random.uniform(key_of("condition_drop"), (count,)) >= flow.condition_drop',
            'keeps = jax.random.uniform(key_of("condition_drop"), (count,)) >= 0.0',
        ),
        (
            "the stop's loss counts once for each draw",
            'loss += flow.stop_weight * stop_loss / totals["stops"]',
            'loss += flow.stop_weight * flow.draws * stop_loss / totals["stops"]',
        ),
        (
            "an end is taught where a recording was cut",
            "return patches & ~follows & ends[:, None], patches & follows",
            "return patches & ~follows, patches & follows",
        ),
        (
            "a cut is taught as a beginning",
            "patches.at[:, 0].set(patches[:, 0] & begins)",
            "patches.at[:, 0].set(patches[:, 0])",
        ),
    ),
    *_of(
        "models/edges.py",
        "models/test_edges.py",
        (
            "labels of a cut's beginning are targets",
            "has_past = begins[:, None] | (starts >= before)",
            "has_past = begins[:, None] | (starts >= 0)",
        ),
        (
            "labels of a cut's end are targets",
            "starts + samples_per_latent + after <= num_samples[:, None]",
            "starts < num_samples[:, None]",
        ),
    ),
    *_of(
        "training/microbatches.py",
        "training/test_microbatches.py",
        (
            "microbatches tear rows apart",
            "x.reshape(-1, accumulate, examples_per_row, *x.shape[1:]).swapaxes(0, 1)",
            "x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)",
        ),
    ),
    *_of(
        "models/generator.py",
        "models/test_generator.py",
        (
            "the token beside a state is the next patch's",
            "tokens=jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)))",
            "tokens=jnp.pad(tokens, ((0, 0), (0, 1), (0, 0)))",
        ),
        (
            "patches without room in their row teach",
            "mask=patch_mask & had_room[:, 1:]",
            "mask=patch_mask",
        ),
    ),
    *_of(
        "models/projector.py",
        "models/test_projector.py",
        (
            "audio tokens keep the scale of the representations",
            "x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)",
            "x *= 1.0",
        ),
    ),
    *_of(
        "models/discriminators/bands.py",
        "models/discriminators/test_bands.py models/discriminators/test_discriminators.py",
        (
            "a place beyond a band's last is valid",
            "np.arange(max(counts)) < counts[:, None]",
            "np.arange(max(counts)) <= counts[:, None]",
        ),
    ),
    *_of(
        "models/discriminators/stacked_layers.py",
        "models/discriminators/test_discriminators.py",
        (
            "padding is judged as sound",
            "has_sound = first_samples[..., None] < num_samples",
            "has_sound = first_samples[..., None] < 10**9 + num_samples",
        ),
    ),
    *_of(
        "models/discriminators/periods.py",
        "models/discriminators/test_periods.py",
        (
            "neighbours, not every n-th sample, are a row",
            "waveform.reshape(waveform.shape[0], -1, fold, period).transpose(3, 1, 0, 2)",
            "waveform.reshape(waveform.shape[0], period, -1, fold).transpose(1, 2, 0, 3)",
        ),
    ),
    *_of(
        "training/microbatches.py",
        "stages/test_autoencoder.py",
        (
            "the last microbatch alone is learned from",
            "return jax.tree.map(jnp.add, total, gradients(*indexed)), None",
            "return gradients(*indexed), None",
        ),
    ),
    *_of(
        "stages/autoencoder.py",
        "stages/test_autoencoder.py",
        (
            "all microbatches hear the same noise",
            'noise_key = jax.random.fold_in(key_of("noise"), index)',
            'noise_key = key_of("noise")',
        ),
    ),
    *_of(
        "stages/adversarial.py",
        "stages/test_adversarial.py",
        (
            "discriminators always hear an example's beginning",
            "start = jax.random.randint(key, valid.shape, 0, last + 1)",
            "start = 0 * jax.random.randint(key, valid.shape, 0, last + 1)",
        ),
        (
            "discriminators hear padding where the sound is shorter than an example",
            "last = jnp.maximum(valid - length, 0)",
            "last = jnp.full_like(valid, mask.shape[1] - length)",
        ),
        (
            "the gradient of a crop is put at the beginning",
            "jax.lax.dynamic_update_slice_in_dim(zeros, x, start, axis=0)",
            "jax.lax.dynamic_update_slice_in_dim(zeros, x, 0 * start, axis=0)",
        ),
    ),
    *_of(
        "stages/representation_loss.py",
        "stages/test_representation_loss.py",
        (
            "the edges of audio are not at the scale of tokens",
            'boundaries * frozen["embedding_rms"]',
            "boundaries",
        ),
        (
            "the loss of several codebooks is their sum",
            'totals["targets"] = count * model.config.rq.num_codebooks',
            'totals["targets"] = count',
        ),
        (
            "a patch is sound where all of it is",
            "patches = jnp.any(patches.reshape(mask.shape[0], -1, config.supervision.patch), axis=-1)",
            "patches = jnp.all(patches.reshape(mask.shape[0], -1, config.supervision.patch), axis=-1)",
        ),
    ),
]

_PROBES = [
    *_of(
        "probing/logistic_probe.py",
        "probing/test_logistic_probe.py",
        (
            "a strength is chosen on other clips of the same groups",
            "yield fold_of[places] == fold",
            "yield np.arange(len(groups)) % count == fold",
        ),
        (
            "a fit that has not come to its end passes",
            "if not gradient <= recipe.gradient_tolerance:",
            "if np.isnan(gradient):",
        ),
    ),
    *_of(
        "probing/xares_probe.py",
        "probing/test_xares_probe.py",
        (
            "a probe whose loss still falls passes",
            "if not curve.is_at_its_end:",
            "if curve.known < 0:",
        ),
    ),
    *_of(
        "probing/classifiers.py",
        "probing/test_measurement.py",
        (
            "shuffled labels stay in their order",
            "return np.random.default_rng([seed, 2]).permutation(self.classes)",
            "return self.classes",
        ),
    ),
    *_of(
        "probing/held_out.py",
        "probing/test_held_out.py",
        (
            "a sound may be learnt and tested",
            '("sound", train.sounds, test.sounds)',
            '("sound", (), test.sounds)',
        ),
        (
            "the group that is tested is learnt, too",
            "train.select([labels[by] != value for labels in train.labels])",
            "train.select([True for labels in train.labels])",
        ),
    ),
]

ALL = (*_MATHEMATICS, *_MODULES, *_PROBES)
