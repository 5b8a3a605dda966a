# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe of the language-model stage: the embedded default that is frozen for the next stage.

    python -m data_pipelines.train_tokenizer --shards=DIR/train --output=tokenizer.json
    python -m f3tok_jax.train --config=configs/language_model.py:tiny \
        --config.tokenizer=tokenizer.json --config.data.train=DIR/train \
        --config.data.heldout=DIR/test --workdir=runs/language_model
    python -m f3tok_jax.export --workdir=runs/language_model --output=MODEL

Presets:
    tiny    a minute on two CPU cores
    small   1.1 M parameters, minutes on two CPU cores: what is shipped
    base    30 M parameters, one TPU host; for corpora of more text than the embedded ones

Where a published folder of a Qwen2.5, Qwen3 or Llama (SmolLM2, TinyLlama) is at hand, none of this
is needed. Shapes are named as in a Hugging Face config.json. A comment in brackets says where a value
comes from; configs/page.py names the sources in full and makes configs/VALUES.md of these lines.
"""

import ml_collections

from configs import sections

PRESETS = ("tiny", "small", "base")


def get_config(preset: str = "tiny") -> ml_collections.ConfigDict:
    """Returns the recipe named `preset`; raises ValueError for another name."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset must be one of {PRESETS}, got {preset!r} (configs/language_model.py)"
        )
    config = _base()
    if preset in ("tiny", "small"):
        _make_tiny(config)
    if preset == "small":
        _make_small(config)
    config.preset = preset
    return config


def _base() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "language_model"  # [fixed]
    config.preset = ""  # name of the preset [fixed]
    config.seed = 0  # of weights, order of examples and all that is drawn [chosen]
    config.num_steps = 20_000  # steps [chosen]
    config.tokenizer = ""  # tokenizer.json, of at most model.shape.vocab_size tokens [yours]

    config.model = ml_collections.ConfigDict(
        dict(
            # As in a Hugging Face config.json. [chosen: Qwen3's kind, 30 M parameters]
            shape=dict(
                model_type="qwen3",
                hidden_size=512,
                intermediate_size=1536,
                num_hidden_layers=8,
                num_attention_heads=8,
                num_key_value_heads=4,
                head_dim=64,
                vocab_size=8192,
                max_position_embeddings=4096,
                rms_norm_eps=1e-6,
                rope_theta=1e4,
                tie_word_embeddings=True,
            ),
            compute_dtype="bfloat16",  # of the products; parameters stay float32 [chosen]
            # What the backward pass computes again: "none", "dots", "attention" or "block". [measured: what fits]
            remat="none",
        )
    )
    config.data = ml_collections.ConfigDict(
        dict(
            # Shard folders, "DIR" or "DIR=weight,DIR=weight"; of sound or of latents. [yours]
            train="",
            heldout="",  # shard folders of the evaluation during training; "" for none [yours]
            batch_size=128,  # rows over the whole mesh [chosen]
            length=512,  # tokens of a row [chosen]
            documents_per_row=24,  # that are tried; those that do not fit are left out [chosen]
            context=0.7,  # share of the documents that say first what there is to hear [chosen]
            # Of each token there: sound lasts longer than its words. [chosen]
            max_repeats=4,
            # Share of each task among the documents of records that have what it asks for. [chosen]
            tasks=sections.tasks(),
            max_replaced=1000,  # unreadable records replaced before the run stops [chosen]
        )
    )
    config.optimizer = ml_collections.ConfigDict(
        dict(
            language_model=sections.transformer_optimizer(
                learning_rate=1e-3, warmup_steps=500, final_fraction=0.05
            ),
            ema_decay=0.999,  # of all weights, per step [chosen]
            accumulate=1,  # microbatches per step [chosen]
        )
    )
    config.decays = sections.decays()
    config.mesh = sections.mesh(min_shard_size=2**18)
    config.compiler = sections.compiler()
    config.init_from = sections.init_from()
    config.checkpoint = sections.checkpoint(every_steps=1000)
    config.loop = sections.loop(eval_every=1000, sample_every=1_000_000)
    return config


def _make_tiny(config: ml_collections.ConfigDict) -> None:
    """For a minute on two CPU cores [chosen]."""
    config.num_steps = 300
    config.model.update(dict(compute_dtype="float32"))
    config.model.shape.update(sections.TINY_LANGUAGE_MODEL)
    config.data.update(dict(batch_size=8, length=192, documents_per_row=12, max_repeats=3))
    config.optimizer.language_model.update(
        dict(learning_rate=3e-3, warmup_steps=30, weight_decay=0.05)
    )
    config.optimizer.ema_decay = 0.98
    config.mesh.min_shard_size = 2**14
    config.checkpoint.update(dict(every_steps=150))
    config.loop.update(dict(log_every=20, eval_every=150, eval_batches=4))


def _make_small(config: ml_collections.ConfigDict) -> None:
    """For the small representation stage, of real and embedded texts [chosen]."""
    config.num_steps = 2000
    config.model.shape.update(sections.SMALL_LANGUAGE_MODEL)
    config.data.update(dict(batch_size=16))
    config.optimizer.language_model.update(dict(learning_rate=2e-3, warmup_steps=100))
    config.optimizer.ema_decay = 0.995
    config.checkpoint.update(dict(every_steps=500))
    config.loop.update(dict(eval_every=500))
