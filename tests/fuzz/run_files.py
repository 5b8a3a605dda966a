# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of runs, of models and of reports, and the programs that read them."""

from collections.abc import Callable
import contextlib
import json
import pathlib
import pickle
import random
import shutil
from unittest import mock

from data_pipelines.records import sealed
from tests.fuzz import mutations
from tests.fuzz import target as target_lib
from tests.support import html_page
from tests.support import reported_runs


def language_model(folder: pathlib.Path) -> target_lib.Target:
    """A language model's folder: config.json, safetensors in one file or two, tokenizer.json."""
    from f3tok_jax.pretrained import language_model as pretrained
    from tests.support import tiny_models

    model = pathlib.Path(tiny_models.write_language_model(folder))

    def read() -> None:
        found = pretrained.read(model, compute_dtype="float32", remat="none")
        pretrained.load_params(model, found)

    changes = {
        "config.json": mutations.of_json,
        "model.safetensors": mutations.of_safetensors,
        "tokenizer.json": mutations.of_json,
    }
    return target_lib.of_files(model, changes, read)


def run_config(folder: pathlib.Path) -> target_lib.Target:
    """config.json of runs that are resumed and used, also where their checkpoints say it too."""
    from f3tok_jax.inference import tokenizer
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import folder as run_folder
    from tests.support import tiny_runs

    runs = {name: pathlib.Path(run) for name, run in tiny_runs.write_chain(folder).items()}
    paths = {name: run / "config.json" for name, run in runs.items()}
    kept = {name: run / "checkpoints" / "3" / "meta" / "metadata" for name, run in runs.items()}
    configs = {name: config_lib.load(str(run)) for name, run in runs.items()}
    whole = {path: path.read_bytes() for path in (*paths.values(), *kept.values())}
    name, is_resumed = "generation", False

    def write(rng: random.Random) -> None:
        nonlocal name, is_resumed
        for path, content in whole.items():
            path.write_bytes(content)
        name, is_resumed = rng.choice((*sorted(runs), "autoencoder")), rng.random() < 0.3
        path = paths[name]
        path.write_bytes(mutations.of_sealed_json(whole[path], rng))
        with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
            content = json.loads(path.read_bytes())
            content.pop(sealed.NAME, None)
            metadata = json.loads(whole[kept[name]]) | {"config": content}
            metadata.pop(sealed.NAME)
            kept[name].write_text(json.dumps(sealed.seal(metadata)))

    def read() -> None:
        run = str(runs[name])
        if is_resumed:
            config_lib.check_same_run(configs[name], run)
            run_folder.check_kept(configs[name], run)
            return
        found = tokenizer.F3Tokenizer.from_pretrained(run, say=target_lib.silent)
        found.sample_rate
        parts = {"autoencoder": "codec", "representation": "representer"}
        getattr(found, parts.get(name, "text_to_sound"))
        if name == "representation":
            found.transcriber

    return target_lib.Target(write, read, tuple(whole))


def metadata(folder: pathlib.Path) -> target_lib.Target:
    """The small files of a run: metadata of a checkpoint, frozen.json, DONE, metrics.jsonl."""
    from f3tok_jax.runs import folder as run_folder
    from f3tok_jax.runs import lineage
    from f3tok_jax.runs import metric_writer
    from f3tok_jax.runs import saved_states
    from tests.support import tiny_models

    run = folder / "run"
    tiny_models.write_run(run)
    (run / run_folder.FROZEN).unlink(missing_ok=True)
    models = {"autoencoder": "f" * 64}
    measured = {"mean": [0.5, 1.5], "whitening": [[1.0]]}
    run_folder.settle_frozen(str(run), models, lambda: measured)
    run_folder.mark_done(str(run), 3)
    writer = metric_writer.MetricWriter(str(run), say=target_lib.silent)
    for step in (1, 2, 3):
        writer.write(step, {"train/loss": 1.0 / step})
    writer.close()

    def read() -> None:
        run_folder.done_step(str(run), 3)
        run_folder.frozen(str(run))
        run_folder.check_began_with(str(run), models, say=target_lib.silent)
        lineage.Lineage.read(str(run)).check()
        saved_states.read_meta(str(run))
        metric_writer.MetricWriter(str(run), resume_step=1, say=target_lib.silent).close()
        shutil.rmtree(run / "tensorboard", ignore_errors=True)

    changes = {
        "checkpoints/3/meta/metadata": mutations.of_sealed_json,
        "frozen.json": mutations.of_sealed_json,
        "DONE": mutations.of_json,
        "metrics.jsonl": mutations.of_json_lines,
    }
    return target_lib.of_files(run, changes, read)


_DRAWINGS = ("line_chart", "bar_chart", "spectrogram", "sound")


def _remembering(draw: Callable) -> Callable:
    """The same function, which draws nothing twice: a case changes one file of many."""
    drawn = {}

    def remembered(*given, **options):
        key = pickle.dumps((given, options))
        if key not in drawn:
            drawn[key] = draw(*given, **options)
        return drawn[key]

    return remembered


def report(folder: pathlib.Path) -> target_lib.Target:
    """What a page is made of: config, curves, results of every kind, sounds."""
    from f3tok_jax import report as report_door
    from f3tok_jax.reporting import charts

    run = pathlib.Path(reported_runs.write_autoencoder(folder / "run"))
    (run / "probe.json").write_text(json.dumps(reported_runs.probes(0.5)))
    (run / "ablation.json").write_text(json.dumps(reported_runs.ablation()))
    other = pathlib.Path(reported_runs.write_representation(folder / "other", 0.8))
    names = [f"run/{path.relative_to(run)}" for path in run.rglob("*.json")]
    names += [f"other/{path.relative_to(other)}" for path in other.rglob("*.json")]
    changes = dict.fromkeys(names, mutations.of_json)
    changes |= dict.fromkeys(("run/metrics.jsonl", "other/metrics.jsonl"), mutations.of_json_lines)
    sounds_of = [path.relative_to(folder) for path in run.rglob("*.wav")]
    changes |= dict.fromkeys(map(str, sounds_of[:3]), mutations.of_bytes)

    drawn = {name: _remembering(getattr(charts, name)) for name in _DRAWINGS}

    def read() -> None:
        output = folder / "report.html"
        output.unlink(missing_ok=True)
        given = ["--runs", str(run), str(other), f"--output={output}"]
        with mock.patch.multiple(charts, **drawn):
            code = report_door.main(given)
        if code == 0:
            html_page.check_passive(html_page.Page(output.read_text()))

    return target_lib.of_files(folder, changes, read)
