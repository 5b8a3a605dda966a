# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: a file imports only from floors below its own. Nothing is run."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]

# Within a floor some files build on others: a later sub-floor may import the earlier ones.
_FLOORS = (
    # 0: maths
    (
        ("audio", "stft", "phase", "packing", "whitening", "error_rates"),
        ("losses", "metrics", "distributions"),
    ),
    # 1: modules
    (
        ("bottleneck", "upsampling", "attention", "stacked_layers", "judge", "transformer_layers"),
        ("transformer", "period_discriminators", "stft_discriminators"),
        (
            "autoencoder",
            "discriminators",
            "representation_encoder",
            "rq_mtp",
            "language_model",
            "supervision",
            "flow_head",
            "adaptation",
        ),
        ("generator",),
    ),
    # 2: machinery
    (
        (
            "sharding",
            "train_state",
            "metric_writer",
            "config",
            "multihost",
            "preemption",
            "progress",
            "watchdog",
            "fingerprint",
            "compiler_options",
            "padded_batches",
        ),
        (
            "stage",
            "run_folder",
            "checkpoint_meta",
            "optimizer",
            "language_model_folder",
            "validation",
        ),
        ("checkpoint", "compiled", "startup", "microbatches"),
        ("loop", "pretrained", "results_file"),
        ("frozen_models", "initialization"),
        ("generation_models",),
        ("generation_loss",),
    ),
    # 3: stages
    (
        ("autoencoder_stage", "language_model_stage", "representation_stage", "generation_stage"),
        ("stages",),
    ),
)


def _level(name: str) -> tuple[int, int] | None:
    """(floor, sub-floor) of a file; None for the programs: everything that is not listed."""
    for floor, sub_floors in enumerate(_FLOORS):
        for sub_floor, names in enumerate(sub_floors):
            if name in names:
                return floor, sub_floor
    return None


def _imports(path: pathlib.Path) -> set[str]:
    """Every module that a file imports, anywhere in it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _attributes(path: pathlib.Path) -> set[str]:
    """Every dotted name that a file uses, such as jax.sharding.Mesh."""
    return {
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }


def _files(folder: str) -> list[pathlib.Path]:
    return sorted((_ROOT / folder).glob("*.py"))


def _ours(path: pathlib.Path) -> set[str]:
    return {name.split(".")[1] for name in _imports(path) if name.startswith("f3tok_jax.")}


@pytest.mark.parametrize("path", _files("f3tok_jax"), ids=lambda path: path.stem)
def test_imports_only_from_floors_below(path):
    mine = _level(path.stem)
    for name in _ours(path):
        theirs = _level(name)
        if mine is None:
            assert theirs is not None or name != "train", f"{path.stem} imports train"
        else:
            assert theirs is not None, f"{path.stem} on floor {mine[0]} imports the program {name}"
            assert theirs < mine, f"{path.stem} {mine} imports {name} {theirs}"


def test_nothing_imports_train():
    for path in [*_files("f3tok_jax"), *_files("data_pipelines")]:
        assert path.stem == "train" or "f3tok_jax.train" not in _imports(path), path


def test_data_pipelines_import_nothing_of_ours_and_no_jax():
    for path in _files("data_pipelines"):
        names = {name.split(".")[0] for name in _imports(path)}
        assert not names & {"f3tok_jax", "configs", "flax", "optax", "orbax", "jax"}, path


def test_modules_see_no_config_path_mesh_or_process():
    for path in _files("f3tok_jax"):
        level = _level(path.stem)
        if level is not None and level[0] <= 1:
            names = {name.split(".")[0] for name in _imports(path)}
            assert not names & {
                "ml_collections",
                "absl",
                "os",
                "pathlib",
                "time",
                "configs",
                "data_pipelines",
            }, path
            assert not any(
                use.startswith(("jax.process_", "jax.distributed", "jax.devices"))
                for use in _attributes(path)
            ), path


def test_only_checkpoint_knows_orbax():
    for path in [*_files("f3tok_jax"), *_files("data_pipelines")]:
        assert path.stem == "checkpoint" or not any(
            name.split(".")[0] == "orbax" for name in _imports(path)
        ), path


def test_only_sharding_makes_meshes_and_shardings():
    forbidden = (
        "jax.sharding.Mesh",
        "jax.sharding.NamedSharding",
        "jax.sharding.PartitionSpec",
        "jax.make_mesh",
        "jax.set_mesh",
        "jax.P",
        "jax.experimental.mesh_utils",
    )
    for path in _files("f3tok_jax"):
        if path.stem == "sharding":
            continue
        names = _imports(path)
        assert not any(
            name.startswith(("jax.experimental.mesh_utils", "jax.sharding.")) for name in names
        ), path
        # Annotations may name the mesh that a program passes on.
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not calls & set(forbidden), path


def test_flags_environment_distribution_and_clock_are_in_programs_only():
    for path in _files("f3tok_jax"):
        if _level(path.stem) is None:
            continue
        if path.stem == "startup":  # the programs' own beginning
            continue
        uses, names = _attributes(path), _imports(path)
        assert "time" not in names, f"{path.stem} reads a clock; take one as an argument"
        assert not any(
            use.startswith(("os.environ", "os.getenv", "flags.DEFINE")) for use in uses
        ), path
        assert not any(use.startswith("jax.distributed") for use in uses), path


def test_every_source_file_has_its_licence_and_its_purpose():
    for folder in ("f3tok_jax", "data_pipelines", "configs", "tests"):
        for path in _files(folder):
            text = path.read_text(encoding="utf-8")
            if not text:
                continue
            lines = text.splitlines()
            assert lines[0] == "# SPDX-FileCopyrightText: The f3tok_jax authors", path
            assert lines[1] == "# SPDX-License-Identifier: Apache-2.0", path
            assert ast.get_docstring(ast.parse(text)), f"{path} does not say what lives there"


def test_nothing_is_unpickled():
    for folder in ("f3tok_jax", "data_pipelines"):
        for path in _files(folder):
            names = {name.split(".")[0] for name in _imports(path)}
            assert not names & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, (
                path
            )
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                    assert isinstance(node.value, ast.Constant) and node.value.value is False, path
