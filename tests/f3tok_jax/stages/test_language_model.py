# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The language-model stage: what is scored, that it learns, resumes, and leaves as a folder."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from f3tok_jax import evaluate
from f3tok_jax import export
from f3tok_jax.devices import sharding
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import results as results_lib
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import language_model as language_model_stage
from tests.support import run_checks
from tests.support import sounds

_OVERRIDES = (
    "--config.num_steps=6",
    "--config.data.batch_size=8",
    "--config.data.length=64",
    "--config.data.documents_per_row=4",
    *(f"--config.data.tasks.{name}=0.0" for name in ("caption", "language", "instrument", "event")),
    "--config.data.tasks.digit=1.0",
    "--config.data.tasks.voice=1.0",
    "--config.model.shape.hidden_size=32",
    "--config.model.shape.intermediate_size=64",
    "--config.model.shape.head_dim=8",
    "--config.model.shape.vocab_size=258",
    "--config.model.shape.max_position_embeddings=64",
    "--config.optimizer.language_model.warmup_steps=2",
    "--config.optimizer.language_model.schedule=constant",
    "--config.checkpoint.every_steps=3",
    "--config.loop.log_every=1",
    "--config.loop.eval_every=3",
    "--config.loop.eval_batches=1",
    "--config.mesh.min_shard_size=256",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    tokenizer = sounds.tokenizer(folder / "tokenizer") / "tokenizer.json"
    return str(sounds.labelled_set(folder / "set")), str(tokenizer)


def _config(files, *changes: str):
    shards, tokenizer = files
    given = (f"--config.data.train={shards}", f"--config.data.heldout={shards}")
    given += (f"--config.tokenizer={tokenizer}",)
    return config_lib.read("configs/language_model.py:tiny", (*_OVERRIDES, *given, *changes))


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """A finished run on eight devices."""
    workdir = tmp_path_factory.mktemp("run")
    config = _config(files, "--config.mesh.fsdp=4", "--config.mesh.tensor=2")
    assert run_checks.train(config, str(workdir)) == 0
    return workdir


def _state_of(workdir) -> dict:
    stage = language_model_stage.make_stage(config_lib.load(str(workdir)))
    shapes = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    found = {}
    for field in ("params", "ema_params"):
        found[field], step = saved_states.restore_params(
            str(workdir), getattr(shapes, field), field=field
        )
    return found | {"step": step}


def test_only_scored_tokens_of_their_own_document_count(files):
    config = _config(files)
    model = language_model_stage.make_model(config)
    params = sharding.unbox(
        jax.jit(functools.partial(language_model_stage.language_model_lib.init_params, model))(
            jax.random.key(0)
        )
    )
    batch = {
        "text": jnp.array([[5, 6, 7, 8, 9, 0]]),
        "segments": jnp.array([[1, 1, 1, 2, 2, 0]]),
        "scored": jnp.array([[1, 0, 2, 1, 1, 0]]),
    }
    total, metrics = jax.jit(functools.partial(language_model_stage.score, model))(params, batch)
    predict = jax.jit(functools.partial(model.apply, method="predict"))
    logits = predict({"params": params}, batch["text"], segments=batch["segments"])
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits[0, :-1], batch["text"][0, 1:]
    )
    # Predicted: 7 from 6, and 9 from 8. Not 6 (not scored), 8 (the first of its document), padding.
    np.testing.assert_allclose(total, losses[1] + losses[3], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (losses[1] + losses[3], 2.0), rtol=1e-5)
    np.testing.assert_allclose(metrics["context_loss"], (losses[1], 1.0), rtol=1e-5)


def test_a_run_learns_and_its_state_lies_where_names_say(files, run):
    lines = (run / "metrics.jsonl").read_text()
    assert '"eval/context_loss"' in lines
    config = config_lib.load(str(run))
    stage = language_model_stage.make_stage(config)
    mesh = sharding.make_mesh(config.mesh)
    boxed = jax.eval_shape(stage.init_state, jax.random.key(0))
    with sharding.use(mesh):
        where = sharding.state_shardings(boxed, mesh, config.mesh.min_shard_size)
    path = ("language_model", "transformer", "layers", "feed_forward", "down", "kernel")
    specs = []
    moments = {"language_model": optax.tree.get(where.opt_state, "mu")}
    for tree in (where.params, where.ema_params, moments):
        specs.append(tuple(functools.reduce(lambda node, key: node[key], path, tree).spec))
    assert specs == [(None, "tensor", "fsdp")] * 3


def test_a_resumed_run_is_the_same_bit_by_bit(files, run, tmp_path):
    mesh = ("--config.mesh.fsdp=4", "--config.mesh.tensor=2")
    assert run_checks.train(_config(files, *mesh, "--config.num_steps=3"), str(tmp_path)) == 0
    assert run_checks.train(_config(files, *mesh), str(tmp_path)) == 0
    jax.tree.map(np.testing.assert_array_equal, _state_of(tmp_path), _state_of(run))


def test_the_exported_folder_gives_the_logits_of_the_run_and_of_transformers(run, tmp_path):
    output = tmp_path / "model"
    assert export.main([f"--workdir={run}", f"--output={output}"]) == 0
    model = pretrained_language_model.read(output, compute_dtype="float32", remat="none")
    params = pretrained_language_model.load_params(output, model)
    ema = _state_of(run)["ema_params"]["language_model"]
    jax.tree.map(np.testing.assert_array_equal, params, ema)
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    ids = np.random.default_rng(0).integers(0, 257, (2, 16))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(output).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    found = jax.jit(functools.partial(model.apply, method="predict"))({"params": params}, ids)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(output / "tokenizer.json"))
    assert tokenizer.decode(tokenizer("digit: seven")["input_ids"]) == "digit: seven"


@pytest.mark.parametrize(
    "change,message",
    [
        ("--config.tokenizer=", "config.tokenizer must name a tokenizer.json, got ''"),
        ("--config.model.shape.vocab_size=256", "table of 256 rows, got 257 tokens"),
        ("--config.data.length=65", "config.data.length=65 must be at most the 64 positions"),
        ("--config.model.shape.model_type=gpt2", "model_type must be one of .*config.model.shape"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_compiles(files, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run_checks.train(_config(files, change), str(tmp_path / "run"))


def test_evaluate_gives_what_the_run_saw_on_the_same_texts(files, run, tmp_path, capsys):
    output = tmp_path / "results.json"
    arguments = [f"--workdir={run}", f"--shards={files[0]}", f"--output={output}"]
    assert evaluate.main(arguments) == 0
    said = capsys.readouterr().out
    assert f"{files[0]} is not held out from {run}" in said
    assert "perplexity" in said and said.endswith(f"{run}, step 6: {output}\n")
    results = json.loads(output.read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = [line for line in lines if "eval/loss" in line][-1]
    for name in ("loss", "context_loss", "context_accuracy"):
        assert results[name] == pytest.approx(seen[f"eval/{name}"], rel=1e-4), name
    assert results["perplexity"] == pytest.approx(math.exp(results["loss"]))
    assert results["step"] == 6 and results["num_records"] > 0
    assert results_lib.read(output).loss == results["loss"]


def test_evaluate_refuses_what_is_for_other_stages(files, run, tmp_path, capsys):
    arguments = [f"--workdir={run}", f"--shards={files[0]}", f"--output={tmp_path / 'x.json'}"]
    assert evaluate.main([*arguments, "--listen=3", "--guidance=1,2"]) == 1
    said = capsys.readouterr().err
    assert (
        f"--num_listen, --guidance cannot be given for {run}, a run of the language_model stage"
        in said
    )
    assert said.count("\n") == 1 and not (tmp_path / "x.json").exists()


@pytest.mark.reliability("R22")
def test_a_model_that_only_guesses_is_named():
    shows = functools.partial(language_model_stage._only_guesses, vocabulary_size=256)
    said = shows(math.log(256) + 0.1)
    assert said.startswith("the language model only guesses: its loss is 5.65, that of 256 tokens")
    assert shows(5.0) == ""
