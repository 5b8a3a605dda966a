# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: a folder is a floor, a file's place is its right. Nothing is run."""

import ast
import functools
import gc
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parents[1]

# From the ground up; folders of one line lie on the same floor and do not see each other. Files at
# the top of either package are doors, on the highest floor.
_FLOORS = (
    ("data_pipelines/records",),
    ("data_pipelines/embedded",),
    ("data_pipelines/containers",),
    ("data_pipelines/sound",),
    ("data_pipelines/inputs",),
    ("data_pipelines/reading",),
    ("data_pipelines/building",),
    ("data_pipelines",),
    ("f3tok_jax/devices", "f3tok_jax/signal"),
    ("f3tok_jax/models", "f3tok_jax/losses", "f3tok_jax/runs"),
    ("f3tok_jax/training",),
    ("f3tok_jax/pretrained",),
    ("f3tok_jax/stages",),
    ("f3tok_jax/inference", "f3tok_jax/sweeping"),
    (
        *("f3tok_jax/probing", "f3tok_jax/evaluation", "f3tok_jax/cost", "f3tok_jax/reporting"),
        *("f3tok_jax/exporting", "f3tok_jax/serving"),
    ),
    ("f3tok_jax/launching", "f3tok_jax/benchmarking", "f3tok_jax/comparing"),
    ("f3tok_jax",),
)
_LEVELS = {folder: level for level, floor in enumerate(_FLOORS) for folder in floor}
_COPIED = "f3tok_jax/exporting/torch_model"
_PURE = ("f3tok_jax/signal", "f3tok_jax/models", "f3tok_jax/losses")


def _files(*folders: str) -> list[str]:
    return sorted(
        str(path.relative_to(_ROOT))
        for folder in folders
        for path in (_ROOT / folder).rglob("*.py")
    )


def _floor(file: str) -> str:
    """The floor that a file or a module's path lies on: the longest of its folders."""
    parents = [str(folder) for folder in pathlib.PurePath(file).parents]
    return next(folder for folder in parents if folder in _LEVELS)


@pytest.fixture(scope="module", autouse=True)
def _tidy():
    # What other tests left may print a traceback when it goes, which spoils a parse (CPython 106905).
    gc.collect()


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse((_ROOT / file).read_text(encoding="utf-8"))


@functools.cache
def _imports(file: str) -> set[str]:
    """Every module that a file imports, anywhere in it, as dotted names."""
    found = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                # What is copied into an exported folder is a package of its own.
                assert _COPIED in file, f"{file} imports relatively"
                continue
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _packages(file: str) -> set[str]:
    return {name.split(".")[0] for name in _imports(file)}


@functools.cache
def _uses(file: str) -> set[str]:
    """Every dotted name that a file uses, such as jax.sharding.Mesh."""
    return {ast.unparse(node) for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute)}


@functools.cache
def _ours(file: str) -> set[str]:
    """The files of ours that a file imports."""
    paths = {name.replace(".", "/") + ".py" for name in _imports(file)}
    return {path for path in paths if (_ROOT / path).is_file()}


@pytest.mark.parametrize("file", _files("data_pipelines", "f3tok_jax"))
def test_imports_only_from_its_own_folder_and_from_floors_below(file):
    mine = _floor(file)
    for other in _ours(file) - {file}:
        if other.startswith("configs/"):
            raise AssertionError(f"{file} imports the recipe {other}")
        theirs = _floor(other)
        assert theirs == mine or _LEVELS[theirs] < _LEVELS[mine], f"{file} imports {other}"
        # The ground does not hang from the house.
        assert not (mine.startswith("data_pipelines") and theirs.startswith("f3tok_jax"))


def test_a_door_is_opened_by_nobody():
    files = _files("data_pipelines", "f3tok_jax")
    doors = {file for file in files if _floor(file) in ("data_pipelines", "f3tok_jax")}
    doors -= {"data_pipelines/command.py", "data_pipelines/leaving.py"}  # what they share
    for file in files:
        assert not _ours(file) & (doors - {file}), file


@pytest.mark.parametrize("file", _files(*_PURE))
def test_modules_and_losses_are_pure(file):
    packages = {
        *("configs", "ml_collections"),
        *("absl", "argparse"),  # flags
        *("etils", "glob", "io", "os", "pathlib", "shutil", "subprocess", "sys", "tempfile"),
        *("datetime", "time"),
        "data_pipelines",
    }
    # The table of loaded modules, for what loads a part of a package.
    allowed = {"sys"} if file == "f3tok_jax/models/streaming_layers.py" else set()
    assert not _packages(file) & packages - allowed
    machine = (
        *("jax.process_", "jax.distributed", "jax.experimental.multihost_utils"),
        *("jax.devices", "jax.device_count", "jax.local_device"),
        *("jax.sharding", "jax.experimental.mesh_utils", "jax.make_mesh", "jax.set_mesh"),
    )
    assert not any(name.startswith(machine) for name in _uses(file) | _imports(file))
    # Of what lies below, the sharding of an array by the logical names of its axes, and no more.
    below = {other for other in _ours(file) if not other.startswith(tuple(f"{p}/" for p in _PURE))}
    assert below <= {"f3tok_jax/devices/sharding.py"}
    asked = {use for use in _uses(file) if use.startswith("sharding.")}
    assert asked <= {"sharding.divides", "sharding.on_each_device"}


def test_only_what_it_is_for_knows_a_library():
    owners = {
        "orbax": {"f3tok_jax/runs/checkpoint.py", "f3tok_jax/runs/saved_states.py"},
        "sequence_layers": {"f3tok_jax/models/streaming_layers.py"},
        "matplotlib": {"f3tok_jax/reporting/charts.py"},
        "jinja2": {"f3tok_jax/reporting/page.py", "f3tok_jax/serving/page.py"},
        "starlette": {f"f3tok_jax/serving/{name}.py" for name in ("app", "guard", "server")},
        "uvicorn": {"f3tok_jax/serving/server.py"},
        "pyarrow": {"data_pipelines/inputs/parquet.py"},
        "optuna": {"f3tok_jax/sweeping/pruning.py"},
    }
    for file in _files("f3tok_jax", "data_pipelines"):
        for library in _packages(file) & owners.keys():
            assert file in owners[library], f"{file} imports {library}"


def test_data_pipelines_know_no_jax():
    for file in _files("data_pipelines"):
        assert not _packages(file) & {"configs", "flax", "optax", "orbax", "jax"}, file


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
    for file in _files("f3tok_jax"):
        if file == "f3tok_jax/devices/sharding.py":
            continue
        assert not any(
            name.startswith(("jax.experimental.mesh_utils", "jax.sharding."))
            for name in _imports(file)
        ), file
        # Annotations may name the mesh that a program passes on.
        calls = {
            ast.unparse(node.func) for node in ast.walk(_tree(file)) if isinstance(node, ast.Call)
        }
        assert not calls & set(forbidden), file


def test_every_source_file_has_its_licence_and_its_purpose():
    for file in _files("f3tok_jax", "data_pipelines", "configs", "tests"):
        text = (_ROOT / file).read_text(encoding="utf-8")
        lines = text.splitlines()
        if not lines:
            continue
        assert lines[0] == "# SPDX-FileCopyrightText: The f3tok_jax authors", file
        assert lines[1] == "# SPDX-License-Identifier: Apache-2.0", file
        assert ast.get_docstring(ast.parse(text)), f"{file} does not say what lives there"


def test_no_folder_has_one_file_and_no_file_is_a_drawer():
    for folder in {pathlib.PurePath(file).parent for file in _files("f3tok_jax", "data_pipelines")}:
        names = {path.stem for path in (_ROOT / folder).glob("*.py")} - {"__init__"}
        assert len(names) > 1, folder
        assert not any(word in name for name in names for word in ("utils", "common", "misc")), (
            folder
        )


@pytest.mark.parametrize(
    "folder",
    [
        *("data_pipelines/containers", "data_pipelines/inputs", "f3tok_jax/inference"),
        *("f3tok_jax/serving", "f3tok_jax/sweeping"),
    ],
)
def test_a_folder_that_says_how_to_read_it_leaves_no_file_out(folder):
    said = set(re.findall(r"\w+", ast.get_docstring(_tree(f"{folder}/__init__.py"))))
    assert {pathlib.PurePath(file).stem for file in _files(folder)} - {"__init__"} <= said


def test_nothing_is_unpickled():
    for file in _files("f3tok_jax", "data_pipelines"):
        unsafe = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        assert not _packages(file) & unsafe, file
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, file
