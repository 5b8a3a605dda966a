# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The generation stage: what trains and what does not, meshes, evaluation, refusals."""

from collections.abc import Iterator
import dataclasses
import math

import jax
import numpy as np
import optax
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import generation as generation_stage
from f3tok_jax.training import programs as programs_lib
from f3tok_jax.training import validation
from tests.support import tiny_generation
from tests.support import tiny_models

_HEAD, _LM = pretrained_generation.HEAD, pretrained_generation.LANGUAGE_MODEL
_ENCODER = pretrained_generation.ENCODER
_TRAIN_ENCODER = "--config.representation.train=encoder"


class _Device:
    """Two steps of a stage on a mesh of some devices, and what they leave."""

    def __init__(self, count: int):
        config = tiny_generation.make_config()
        stage = generation_stage.make_stage(config)
        arrays = tiny_generation.random_frozen(stage)
        stage = dataclasses.replace(
            stage, load_frozen=lambda shardings, measured: jax.device_put(arrays, shardings)
        )
        self.mesh = programs_lib.make_mesh(config, jax.devices()[:count])
        self.given = jax.tree.map(np.array, arrays)
        with sharding.use(self.mesh):
            self.programs = programs_lib.CompiledStage(stage, config, self.mesh)
            self.programs.load_frozen({})
            self.programs.compile("train_step")
            where = jax.tree.map(lambda leaf: leaf.sharding, self.programs.abstract_state)
            state = jax.device_put(tiny_generation.random_state(stage), where)
            self.before, self.losses = jax.tree.map(np.array, state), []
            for step in range(2):
                batch = jax.device_put(
                    tiny_generation.make_batch(seed=step), sharding.batch_sharding(self.mesh)
                )
                state, metrics = self.programs.train_step(state, self.programs.frozen, batch)
                self.losses.append(jax.device_get(metrics))
            self.after = jax.device_get(state)


@pytest.fixture(scope="module")
def one_device() -> _Device:
    return _Device(1)


def test_two_steps_train_the_head_and_leave_what_is_frozen(one_device):
    before, after = one_device.before, one_device.after
    assert set(after.params) == set(after.opt_state) == set(after.ema_params) == {_HEAD}
    assert after.step == 2
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, before.params)
    assert all(jax.tree.leaves(moved)), moved
    for metrics in one_device.losses:
        assert all(np.isfinite(total) for total, _ in metrics.values())
        assert metrics["train/nonfinite"] == (0.0, 1.0)
        assert metrics["train/flow_loss"][1] == 2 * tiny_generation.NUM_PATCHES  # draws
        bins = [metrics[f"train/flow_loss/t{t}"] for t in ("0", "0.25", "0.5", "0.75")]
        np.testing.assert_allclose(np.sum(bins, axis=0), metrics["train/flow_loss"], rtol=1e-5)
    held = jax.device_get(one_device.programs.frozen)
    assert set(held) == {"encoder", "projector", "language_model", "embedding_rms"}
    jax.tree.map(np.testing.assert_array_equal, held, one_device.given)


@pytest.mark.slow
def test_eight_devices_see_the_losses_of_one(one_device):
    eight = _Device(8)
    for found, expected in zip(eight.losses, one_device.losses):
        assert set(found) == set(expected)
        for name, value in expected.items():
            # Sums over devices come in another order.
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", [pytest.param("all", marks=pytest.mark.slow), "low_rank"])
def test_the_language_model_is_trained_by_its_difference_where_it_is_to_be(kind):
    grads, metrics = tiny_generation.gradients_of_step(
        f"--config.language_model.train={kind}", "--config.flow.text_weight=1.0"
    )
    assert set(grads) == {_HEAD, _LM}
    for name in grads:
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads[name]))
        norm = float(optax.tree.norm(grads[name]))
        assert tiny_generation.value(metrics, f"train/gradient_norm/{name}")[0] == pytest.approx(
            norm, rel=1e-3
        )
    total, weight = tiny_generation.value(metrics, "train/text_loss")
    # What text drop has silenced is not scored; the answers are all tokens but the first.
    assert 0 < weight <= sum(max(0, count - 1) for count in tiny_generation.TEXTS) and total > 0
    if kind == "low_rank":
        assert set(grads[_LM]) == {"transformer"}


@pytest.mark.parametrize("language_model", [pytest.param("nothing", marks=pytest.mark.slow), "all"])
def test_the_encoder_and_its_projector_are_trained_by_their_difference(language_model):
    grads, metrics = tiny_generation.gradients_of_step(
        *tiny_generation.CALM, _TRAIN_ENCODER, f"--config.language_model.train={language_model}"
    )
    trained = {_HEAD, _ENCODER} | ({_LM} if language_model == "all" else set())
    assert set(grads) == trained and set(grads[_ENCODER]) == {"encoder", "projector"}
    boundaries = grads[_ENCODER]["projector"].pop("boundaries")
    assert np.abs(boundaries[0]).max() > 0  # "audio starts"; nothing here ends a sound
    np.testing.assert_array_equal(boundaries[1], 0.0)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads[_ENCODER]))
    assert tiny_generation.value(metrics, f"train/gradient_norm/{_ENCODER}")[0] > 0


def _encoder_gradients(*more: str):
    grads, _ = tiny_generation.gradients_of_step(*tiny_generation.CALM, _TRAIN_ENCODER, *more)
    return grads[_ENCODER]["encoder"]


@pytest.mark.slow
def test_the_flow_reaches_the_encoder_through_the_token_only_where_that_is_switched_on():
    off, on = (
        _encoder_gradients(f"--config.flow.token_gradient={value}") for value in (False, True)
    )
    assert np.abs(off["input"]["kernel"] - on["input"]["kernel"]).max() > 1e-6
    # Without the condition, and without the stop that is read off the state, nothing does.
    nothing = _encoder_gradients(
        "--config.flow.token_gradient=True",
        "--config.flow.condition_drop=1.0",
        "--config.flow.stop_weight=0.0",
    )
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), nothing)


def test_a_difference_of_zero_is_the_encoder_that_was_given():
    model = tiny_generation.make_model(tiny_generation.make_config(_TRAIN_ENCODER))
    given = tiny_models.random_weights(model.abstract())
    params = sharding.unbox(compilation.run_once(model.init_params, jax.random.key(0)))
    weights = pretrained_generation.generator_weights(params, given)
    for name in ("encoder", "projector"):
        jax.tree.map(np.testing.assert_array_equal, weights[name], given[name])
    params[_ENCODER]["encoder"] = jax.tree.map(lambda leaf: leaf + 1, params[_ENCODER]["encoder"])
    moved = pretrained_generation.generator_weights(params, given)["encoder"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 1), moved, given["encoder"])


def test_a_step_that_passes_through_the_encoder_costs_more():
    flops = [
        generation_stage.make_stage(tiny_generation.make_config(*more)).model_flops
        for more in ((), (_TRAIN_ENCODER,), (_TRAIN_ENCODER, "--config.language_model.train=all"))
    ]
    assert flops == sorted(flops) and len({*flops}) == 3


@pytest.mark.slow
def test_a_head_without_history_learns_from_its_condition():
    grads, metrics = tiny_generation.gradients_of_step("--config.model.history=0")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert np.abs(grads[_HEAD]["state_in"]["kernel"]).max() > 0
    assert tiny_generation.value(metrics, "train/flow_loss")[0] > 0


def test_without_its_own_weight_the_text_is_not_scored():
    config = tiny_generation.make_config("--config.language_model.train=all")
    stage = generation_stage.make_stage(config)
    state, batch = tiny_generation.random_state(stage), tiny_generation.make_batch()
    _, metrics = jax.eval_shape(
        stage.train_step, state, tiny_generation.random_frozen(stage), batch
    )
    assert "train/text_loss" not in metrics


def test_evaluation_is_of_the_averages_and_the_same_every_time():
    stage = generation_stage.make_stage(tiny_generation.make_config())
    state, frozen, batch = (
        tiny_generation.random_state(stage),
        tiny_generation.random_frozen(stage),
        tiny_generation.make_batch(),
    )
    step = jax.jit(stage.eval_step)
    metrics = jax.device_get(step(state, frozen, batch))
    assert stage.best_metric in metrics
    assert metrics["eval/flow_loss"][1] == 2 * tiny_generation.NUM_PATCHES
    assert metrics["eval/patch_error"][1] == tiny_generation.NUM_PATCHES
    assert np.isfinite(metrics["eval/patch_error"][0])
    moved = dataclasses.replace(
        state, step=state.step + 5, params=jax.tree.map(lambda x: 2 * x, state.params)
    )
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(step(moved, frozen, batch)), metrics)
    other = dataclasses.replace(state, ema_params=moved.params)
    assert step(other, frozen, batch)["eval/flow_loss"][0] != metrics["eval/flow_loss"][0]


def test_evaluation_has_no_dropout():
    texts = []
    for more in (
        tiny_generation.CALM,
        (*tiny_generation.DROPPED, "--config.flow.encoder_noise=0.5"),
    ):
        stage = generation_stage.make_stage(tiny_generation.make_config(*more))
        traced = jax.make_jaxpr(stage.eval_step)(
            tiny_generation.random_state(stage),
            tiny_generation.random_frozen(stage),
            tiny_generation.make_batch(),
        )
        texts.append(str(traced))
    assert texts[0] == texts[1]


def _products(jaxpr, times: int = 1, path: str = "") -> Iterator[tuple[str, tuple, int]]:
    """(scopes, shapes, flops) of every matrix product of a program, loops counted out."""
    for eqn in jaxpr.eqns:
        scopes = f"{path}/{eqn.source_info.name_stack}"
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left, right = (var.aval.shape for var in eqn.invars)
            flops = 2 * math.prod(eqn.outvars[0].aval.shape)
            flops *= math.prod(left[axis] for axis in contracted)
            yield scopes, (left, right), times * flops
        inner = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
        for value in jax.tree.leaves(eqn.params, is_leaf=_is_program):
            if _is_program(value):
                yield from _products(getattr(value, "jaxpr", value), inner, scopes)


def _is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def _step_products(*more: str):
    stage = generation_stage.make_stage(tiny_generation.make_config(*more))
    state, frozen = tiny_generation.random_state(stage), tiny_generation.random_frozen(stage)
    return list(
        _products(
            jax.make_jaxpr(stage.train_step)(state, frozen, tiny_generation.make_batch()).jaxpr
        )
    )


@pytest.mark.parametrize("train", ["nothing", "all"])
def test_more_draws_ask_the_language_model_no_more_often(train):
    found = []
    for draws in (2, 6):
        products = _step_products(
            f"--config.flow.draws={draws}", f"--config.language_model.train={train}"
        )
        inside = sum(flops for scopes, _, flops in products if "flow_head" in scopes)
        outside = sorted((s, n) for scopes, s, n in products if "flow_head" not in scopes)
        assert inside and outside
        found.append((inside, outside))
    assert found[1][0] == 3 * found[0][0]
    assert found[1][1] == found[0][1]


def test_the_flops_of_a_step_are_those_of_its_products():
    config = config_lib.read(
        tiny_generation.RECIPE, ["--config.data.latents=True", "--config.flow.stop_weight=0.0"]
    )
    stage = generation_stage.make_stage(config)
    state = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    frozen = sharding.unbox(stage.abstract_frozen)
    program = jax.make_jaxpr(stage.train_step)(state, frozen, dict(stage.batch_spec))
    counted = sum(flops for _, _, flops in _products(program.jaxpr))
    # Not counted: the layers around the transformers and the products that turn positions.
    assert stage.model_flops == pytest.approx(counted, rel=0.2)


@pytest.mark.parametrize(
    "change, words",
    [
        ("flow.condition_drop=2.0", r"config.flow.condition_drop must be a share in \[0, 1\]"),
        ("flow.history_drop=-0.1", "config.flow.history_drop must be a share"),
        ("text.drop=1.5", "config.text.drop must be a share"),
        ("flow.history_noise=-0.2", "config.flow.history_noise must not be negative, got -0.2"),
        ("flow.encoder_noise=-0.2", "config.flow.encoder_noise must not be negative"),
        ("flow.stop_weight=-1.0", "config.flow.stop_weight must not be negative"),
        ("flow.draws=0", "config.flow.draws must be at least 1, got 0"),
        ("language_model.train=some", "config.language_model.train must be one of .*'some'"),
        ("language_model.rank=0", "its rank at least 1, got 'nothing' and 0"),
        ("representation.train=all", "config.representation.train must be one of .*'all'"),
        ("text.max_tokens=0", "config.text.max_tokens must be at least 1"),
        ("packing.examples=3", "config.packing.examples=3 .* must divide the 8 examples"),
    ],
)
def test_mistakes_in_the_config_are_one_sentence(change, words):
    config = tiny_generation.make_config(f"--config.{change}")
    with pytest.raises(ValueError, match=words) as error:
        validation.validate(config, generation_stage.STAGE)
    assert "\n" not in str(error.value)


def test_some_task_must_have_a_weight():
    names = tiny_generation.make_config().text.tasks
    config = tiny_generation.make_config(*(f"--config.text.tasks.{name}=0.0" for name in names))
    with pytest.raises(ValueError, match="config.text.tasks .* must give some task a weight"):
        validation.validate(config, generation_stage.STAGE)


@pytest.mark.parametrize(
    "change, words",
    [
        ("representation.recipe.supervision.weight=0.0", "must name a run with supervision"),
        ("representation.workdir=/nowhere", "must be the work folder of a run"),
        ("sampling.num_steps=0", "sampling steps must be at least 1"),
        ("sampling.solver=heun", "solver must be one of"),
    ],
)
def test_models_that_do_not_fit_are_refused_before_anything_compiles(change, words):
    with pytest.raises(ValueError, match=words):
        generation_stage.make_stage(tiny_generation.make_config(f"--config.{change}"))


def test_another_way_to_train_the_language_model_is_refused():
    stage = generation_stage.make_stage(
        tiny_generation.make_config("--config.language_model.train=some")
    )
    with pytest.raises(ValueError, match="config.language_model.train must be one of .*'some'"):
        jax.eval_shape(stage.init_state, jax.random.key(0))


def test_shapes_without_a_run_cannot_be_trained_on():
    stage = generation_stage.make_stage(tiny_generation.make_config())
    for use in (
        lambda: stage.open_data("shards", train=True, process_index=0, process_count=1),
        lambda: stage.load_frozen(stage.abstract_frozen, {}),
    ):
        with pytest.raises(ValueError, match="config.representation.workdir must name a run"):
            use()
