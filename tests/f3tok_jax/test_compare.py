# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison: equal data, steps and seeds, nothing done twice, its table, and what is refused."""

import pathlib
import re
import types

import pytest

from data_pipelines.reading import sources
from f3tok_jax import compare
from f3tok_jax.comparing import comparison
from f3tok_jax.comparing import plan
from f3tok_jax.evaluation import diffusion_transformer
from f3tok_jax.evaluation import generation
from f3tok_jax.evaluation import reconstruction
from f3tok_jax.inference import latent_shards
from f3tok_jax.probing import probes
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results
from f3tok_jax.sweeping import driver
from f3tok_jax.sweeping import job
from tests.support import sounds
from tests.support import tiny_semantic

_RECIPE = str(pathlib.Path(__file__).parents[2] / "configs" / "comparison.py") + ":tiny"
_SWEEP = """
from f3tok_jax.sweeping import space


def get_sweep(preset="tiny"):
    arms = (space.Arm("f3"), space.Arm("norm only", ("bottleneck.perturb=False",)), {more})
    return space.Sweep(recipe="autoencoder.py:tiny", arms=arms, metric="eval/mel")
"""


@pytest.fixture(scope="module")
def heldout(tmp_path_factory):
    return str(sounds.labelled_set(tmp_path_factory.mktemp("sound"), num_files=2))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return str(sounds.labelled_set(tmp_path_factory.mktemp("other"), num_files=4, first=2))


@pytest.fixture
def arguments(tmp_path, heldout, other):
    sweep = tmp_path / "arms.py"
    sweep.write_text(_SWEEP.format(more=""))
    values = {
        "arms": sweep,
        "only": "('f3','norm only')",
        "seeds": "(0,1)",
        "data.train": f"{heldout}=0.7,{other}=0.3",
        "data.heldout": heldout,
        "language_model.folder": tmp_path / "text",
        "probe.train": other,
        "probe.labels": "('digit',)",
    }
    named = [f"--config.{key}={value}" for key, value in values.items()]
    return [f"--config={_RECIPE}", f"--workdir={tmp_path / 'compared'}", *named]


@pytest.fixture
def done(monkeypatch):
    """What was trained, encoded and measured, in order; all of it is done at once.

    A run whose name is put into `done.fails` ends with an error.
    """
    done = types.SimpleNamespace(trained=[], encoded=[], measured=[], fails=set())

    def train(command, workdir, environment):
        recipe, *overrides, _ = command[3:]
        config = config_lib.read(recipe.removeprefix("--config="), overrides)
        name = f"{config.stage}/{pathlib.Path(workdir).name}"
        if name in done.fails:
            return types.SimpleNamespace(poll=lambda: 3, pid=1)
        done.trained.append(name)
        pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
        config_lib.save(config, workdir)
        run_folder.mark_done(workdir, config.num_steps)
        return types.SimpleNamespace(poll=lambda: 0, pid=1)

    def encode(workdir, shards, output, **options):
        done.encoded.append((workdir, shards, output))

    def measured(make):
        def measure(workdir, shards, output, **options):
            asked = options | {"shards": shards}
            done.measured.append((pathlib.Path(workdir).name, make.__name__, asked))
            results.write(output, make(workdir))
            return results.read(output)

        return measure

    def done_step(workdir, num_steps):  # of runs without any state
        return num_steps if pathlib.Path(workdir, "DONE").is_file() else None

    monkeypatch.setattr(driver, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(job, "start", train)
    monkeypatch.setattr(run_folder, "done_step", done_step)
    monkeypatch.setattr(latent_shards, "encode_shards", encode)
    for module, name, make in (
        (reconstruction, "evaluate", _reconstruction),
        (probes, "probe", _probe),
        (generation, "evaluate", _generation),
        (diffusion_transformer, "evaluate", _diffusion_transformer),
    ):
        monkeypatch.setattr(module, name, measured(make))
    return done


def _seed_of(workdir: str) -> int:
    return int(workdir[-1])


def _reconstruction(workdir: str) -> results.Reconstruction:
    mel = results.Metric(title="mel", unit="", explanation="", higher_is_better=False)

    def row(name, title, value):
        score = results.Score(mean=value, standard_error=0.1, count=2, undefined={})
        return results.ScoredRow(name=name, title=title, description="", metrics={"mel": score})

    worse = "norm" in workdir
    rows = [
        row("model", "model", 1.0 + worse + _seed_of(workdir) / 2),
        row("model_alpha_0.5", "model, noise 0.5", 2.0 + worse),
        row("pca", "PCA", 3.0),
    ]
    moments = dict(channel_mean=(0.0, -0.5), channel_rms=(1.0, 1.0), rms=1.0, effective_rank=1.5)
    moments |= dict(drift_rms=0.5, spectrum=(0.875, 0.125))
    is_rival = "losatok" in workdir or "dasheng" in workdir
    return results.Reconstruction(
        step=600,
        shards=results.ShardSet(path="set", fingerprint="f" * 64, sample_rate=16_000),
        num_examples=2,
        seconds=1.0,
        unreadable=(),
        latents=results.LatentStatistics(rate=25.0, dim=2, num_frames=9, **moments),
        flops_per_second=results.Flops(encode=1.97e9, decode=1e9),
        semantic_encoder="trained by this project, 9 steps" if is_rival else "",
        missing={},
        metrics={"mel": mel},
        rows=tuple(rows),
        sounds=(),
    )


def _probe(workdir: str) -> probe_results.Probe:
    right = probe_results.FeatureAccuracy(linear=probe_results.Spread(mean=0.5, std=0.0))
    features = {"latents:mean": right, "representations:mean": right}
    tested = probe_results.Tested(num_examples=2, num_unseen=0, majority=0.5, features=features)
    label = probe_results.ProbedLabel(tests={"heldout": tested})
    said = dict(exclude=(), only=(), pooling="mean", num_seeds=1)
    return probe_results.Probe(labels={"language": label}, **said)


def _diffusion_transformer(workdir: str) -> results.Generation:
    return _generation(workdir, frechet_distance=3.0)


def _generation(workdir: str, *, frechet_distance: float = 4.0) -> results.Generation:
    made = dict(name="generated_0", title="generated", frechet_distance=frechet_distance)
    rows = (
        results.GeneratedRow(name="recording", title="recording", frechet_distance=0.0),
        results.GeneratedRow(**made),
    )
    return results.Generation(
        num_examples=2,
        classifier=results.ClassifierSource(shards="", label=""),
        sampler={},
        max_seconds=1.0,
        rows=rows,
        texts={},
        sounds=(),
    )


def test_every_arm_has_the_same_seeds_data_and_steps_and_its_own_latents(arguments, done, tmp_path):
    assert compare.main(arguments) == 0
    stages = ("autoencoder", "representation", "generation", "diffusion_transformer")
    names = ("f3_0", "norm_only_0", "f3_1", "norm_only_1")
    assert done.trained == [f"{stage}/{name}" for name in names for stage in stages]
    configs = {
        name: config_lib.load(str(tmp_path / "compared" / name)).to_dict() for name in done.trained
    }
    for one, other in (("f3_0", "norm_only_0"), ("f3_1", "norm_only_1")):
        mine, theirs = (configs[f"autoencoder/{name}"] for name in (one, other))
        assert mine.pop("bottleneck") != theirs.pop("bottleneck") and mine == theirs
        latents = str(tmp_path / "compared" / "latents" / one)
        for stage in stages[1:]:
            data = configs[f"{stage}/{one}"]["data"]
            assert data["train"] == f"{latents}/0=0.7,{latents}/1=0.3" and data["latents"]
            assert data["heldout"] == f"{latents}/heldout"
    assert {output for *_, output in done.encoded if "f3_1" in output} == {
        str(tmp_path / "compared" / "latents" / "f3_1" / part) for part in ("0", "1", "heldout")
    }


def test_figures_are_spread_over_seeds_and_stand_on_one_page(arguments, done, tmp_path):
    assert compare.main(arguments) == 0
    found = results.read(tmp_path / "compared" / "comparison.json")
    assert found.seeds == (0, 1) and [arm.name for arm in found.arms] == ["f3", "norm only"]
    assert found.arms[1].changes == ("bottleneck.perturb=False",)
    figures = found.arms[1].figures
    assert figures["reconstruction/mel"].values == [2.0, 2.5]
    assert (figures["reconstruction/mel"].mean, figures["reconstruction/mel"].std) == (2.25, 0.25)
    assert figures["reconstruction, noise 0.5/mel"].mean == 3.0
    assert figures["latents/largest mean of a channel over rms"].mean == 0.5
    assert figures["latents/drift: mean of a channel over a sound, over rms"].mean == 0.5
    assert figures["latents/directions of 90% of the variance"].mean == 2.0
    cost = "products with weights, per second of sound/"
    assert figures[f"{cost}decoding"].mean == 1.0
    chip = figures[f"{cost}both at the peak of a v5e chip, by formula"]
    assert chip.mean == pytest.approx(2.97e9 / 197e12 * 1e6)
    assert figures["what features know/language, raw latents, mean"].mean == 0.5
    distance = "sound from text/Fréchet distance of representations"
    assert figures[f"{distance}, flow head"].mean == 4.0
    assert figures[f"{distance}, diffusion transformer"].mean == 3.0
    assert not any("PCA" in name for name in figures)
    assert found.references == {"PCA": {"reconstruction/mel": 3.0}}
    page = (tmp_path / "compared" / "comparison.html").read_text()
    assert "What was compared" in page and "<code>bottleneck.perturb=False</code>" in page
    assert '<td class="best">1.250<small>± 0.250</small></td>' in page
    assert page.count('<th scope="row">PCA</th>\n<td>3.000</td>') == 1


def test_what_was_stopped_goes_on_and_nothing_is_done_twice(arguments, done, tmp_path, capsys):
    done.fails.add("representation/f3_1")
    assert compare.main(arguments) == 3
    assert "f3_1 ended with exit code 3" in capsys.readouterr().err
    # The first seed is there to be read.
    target = tmp_path / "compared" / "comparison.json"
    assert results.read(target).seeds == (0,)
    done.fails.clear()
    assert compare.main(arguments) == 0
    assert len(done.trained) == len({*done.trained}) == 16
    made = [(name, kind) for name, kind, _ in done.measured]
    assert len(made) == len({*made}) == 16
    table = target.read_bytes()
    assert compare.main(arguments) == 0
    assert len(done.trained) == len(done.measured) == 16 and target.read_bytes() == table


def _of_rivals(arguments, *more):
    """Of one seed; what is given twice would be added up."""
    own = [one for one in arguments if not one.startswith(("--config.only=", "--config.seeds="))]
    return [
        *own,
        "--config.only=('f3','losatok','dasheng_tokenizer')",
        "--config.seeds=(3,)",
        *more,
    ]


def test_rivals_stand_on_frozen_runs_that_are_trained_once_for_each_seed(arguments, done, tmp_path):
    done.fails.add("autoencoder/losatok_3")
    assert compare.main(_of_rivals(arguments)) == 3
    done.fails.clear()
    assert compare.main(_of_rivals(arguments)) == 0
    rest = ("autoencoder", "representation", "generation", "diffusion_transformer")
    assert done.trained == [
        *(f"{stage}/f3_3" for stage in rest),
        "semantic_encoder/shared_3",
        *(f"{stage}/dasheng_tokenizer_3" for stage in rest),
        "semantic_bottleneck/shared_3",
        *(f"{stage}/losatok_3" for stage in rest),
    ]
    root = tmp_path / "compared"
    configs = {name: config_lib.load(str(root / name)) for name in done.trained}
    losatok, f3 = configs["autoencoder/losatok_3"], configs["autoencoder/f3_3"]
    bottleneck = configs["semantic_bottleneck/shared_3"]
    assert losatok.semantic_bottleneck.workdir == str(root / "semantic_bottleneck/shared_3")
    for one in (losatok, bottleneck, configs["autoencoder/dasheng_tokenizer_3"]):
        assert one.semantic_encoder.workdir == str(root / "semantic_encoder/shared_3")
    assert losatok.data == f3.data and losatok.loop == f3.loop and losatok.seed == f3.seed == 3
    assert losatok.num_steps == f3.num_steps == 600 != bottleneck.num_steps
    assert bottleneck.data.train == configs["semantic_encoder/shared_3"].data.train == f3.data.train
    found, made = results.read(root / "comparison.json"), "trained by this project, 9 steps"
    assert found.num_steps["semantic_bottleneck"] == bottleneck.num_steps
    assert [arm.recipe.rpartition(":")[2] for arm in found.arms] == [
        *("", "dasheng_tokenizer_tiny", "losatok_tiny")
    ]
    assert [arm.semantic_encoder for arm in found.arms] == ["", *[made] * 2]
    page = (root / "comparison.html").read_text()
    assert f"<code>{found.arms[2].recipe}</code>" in page
    # In each table, and beside each evaluation.
    num_tables = len({one.group for one in found.measures.values()})
    assert page.count(f"hears through a semantic encoder: {made}") == 2 * (num_tables + 1)


def test_frozen_models_can_be_given_and_rivals_made_more_alike(arguments, tmp_path):
    root = tmp_path / "frozen"
    encoder = tiny_semantic.write_encoder(root / "semantic_encoder")
    bottleneck = tiny_semantic.write_bottleneck(root / "semantic_bottleneck", encoder)
    narrow = tuple(
        f"model.{key}={value}"
        for key, value in dict(
            feature_dim=tiny_semantic.WIDTH, bottleneck_dim=8, latent_dim=4
        ).items()
    )
    given = [
        f"--config.rivals.losatok.changes={narrow}",
        f"--config.rivals.dasheng_tokenizer.changes={(narrow[0], 'model.latent_dim=16')}",
        "--config.alike=('discriminators.',)",
        f"--config.semantic_bottleneck.workdir={bottleneck}",
    ]
    on = f"--config.semantic_encoder.workdir={encoder}"
    chains = comparison.chains_of(_plan(_of_rivals(arguments, *given, on)))
    assert not any({*plan.FROZEN} & {*chain.runs} for chain in chains)
    f3, dasheng, losatok = (chain.runs["autoencoder"].config for chain in chains)
    assert losatok.semantic_bottleneck.workdir == bottleneck
    assert dasheng.semantic_encoder.workdir == losatok.semantic_encoder.workdir == encoder
    assert losatok.discriminators == f3.discriminators
    on = "--config.semantic_encoder.workdir=" + tiny_semantic.write_encoder(
        root / "other", "--config.seed=1"
    )
    with pytest.raises(
        ValueError, match="or the encoder whose features config.semantic_bottleneck"
    ):
        comparison.chains_of(_plan(_of_rivals(arguments, *given, on)))


def _plan(arguments):
    recipe, folder = (argument.partition("=")[2] for argument in arguments[:2])
    return plan.read(recipe, arguments[2:], folder)


def test_what_is_asked_otherwise_is_measured_anew(arguments, done, heldout, other, tmp_path):
    assert compare.main(arguments) == 0
    found = results.read(tmp_path / "compared" / "comparison.json")
    done.measured.clear()
    asked = ["--config.evaluation.num_examples=3", f"--config.evaluation.heldout={other}"]
    assert compare.main([*arguments, *asked]) == 0
    assert [kind for _, kind, _ in done.measured] == ["_reconstruction"] * 4
    assert done.measured[0][2]["num_examples"] == 3 and done.measured[0][2]["shards"] == other
    now = results.read(tmp_path / "compared" / "comparison.json")
    assert found.heldout == sources.open_sound(heldout, sample_rate=None).fingerprint
    assert now.heldout == sources.open_sound(other, sample_rate=None).fingerprint
    assert len(done.trained) == 16


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (
            "--config.only=('f4',)",
            "config.only must name arms of .*, f3, norm only, .*losatok, got 'f4'",
        ),
        ("--config.data.heldout=", "config.data.heldout must name a folder, got ''"),
        ("--config.evaluation.heldout=/nowhere", "/nowhere is not a finished shard set"),
        ("--config.probe.train=/nowhere", "/nowhere is not a finished shard set"),
        ("--config.probe.labels=('accent',)", "accent"),
        ("--config.language_model.folder=", "config.language_model.folder must name a folder"),
        ("--config.generation.changes=('num_stepps=3',)", "did you mean --config.num_steps"),
        ("--config.seeds=(1,1)", "must be different numbers"),
        ("--config.arms=nowhere.py", "there is no file"),
        ("--workdir=gs://bucket/compared", "--workdir must be a local folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    arguments, done, capsys, argument, told
):
    assert compare.main([*arguments, argument]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, line), line
    assert not done.trained


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--config.semantic_encoder.recipe=", "config.semantic_encoder must have a recipe"),
        ("--config.semantic_encoder.workdir=nowhere", "dasheng_tokenizer_3 cannot be .*nowhere"),
        ("--config.semantic_bottleneck.workdir=any", "must name the encoder .*'any'"),
        (
            "--config.semantic_encoder.changes=('model.patch_frames=2',)",
            "config.model.feature_rate must be 50, the Hz of the semantic encoder's .* got 25",
        ),
        (
            "--config.semantic_bottleneck.changes=('model.latent_dim=8',)",
            "losatok_3 cannot be trained: config.model.latent_dim must be 8, the width of the semantic",
        ),
        (
            "--config.autoencoder.recipe=autoencoder.py:tiny_24khz",
            "16000 Hz and 640 samples .* got 24000|24000 Hz and 960 .* got 16000",
        ),
        (
            "--config.rivals.losatok.recipe=representation.py:tiny",
            "config.rivals.losatok.recipe must be of the autoencoder stage",
        ),
        (
            "--config.rivals.losatok.changes=('data.batch_size=3',)",
            "the same data, steps and seeds",
        ),
        (
            "--config.rivals.losatok.changes=('semantic_encoder.folder=any',)",
            "must hear through the same frozen models.*give config.semantic_encoder",
        ),
        ("--config.alike=('discriminator.',)", "config.alike must name .*, got 'discriminator.'"),
        ("--config.alike=('optimizer.',)", "has no optimizer.generator.modules.encoder"),
    ],
)
def test_rivals_that_cannot_be_are_refused_before_anything_is_trained(
    arguments, done, capsys, argument, told
):
    assert compare.main(_of_rivals(arguments, argument)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, line), line
    assert not done.trained


@pytest.mark.parametrize("change", ["data.batch_size=3", "num_steps=7", "seed=3"])
def test_an_arm_with_other_data_steps_or_seeds_is_refused(arguments, done, tmp_path, change):
    (tmp_path / "arms.py").write_text(_SWEEP.format(more=f"space.Arm('other', ('{change}',)),"))
    assert compare.main(arguments) == 1
    assert not done.trained


def test_the_sets_of_a_mixture_keep_their_weights():
    assert plan.mixed("a=0.25,b=0.75", "latents") == "latents/0=0.25,latents/1=0.75"
    assert plan.mixed("a", "latents") == "latents/0"
