# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A model that comes with the package is used where none is named, for all that f3tok does."""

import ast
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile

from f3tok_jax import cli
from f3tok_jax import export
from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import model_folder
from f3tok_jax.inference import shipped
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import lineage
from tests.support import tiny_models
from tests.support import tiny_runs

_ROOT = pathlib.Path(__file__).parents[3]
_MAX_MB = 20.0
_OURS = _ROOT / "f3tok_jax" / "shipped" / shipped.DEFAULT


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """Where a small model lies as if it had come with the package."""
    root = tmp_path_factory.mktemp("package")
    run = tiny_runs.write_chain(root, scale=0.5)["generation"]
    given = [f"--workdir={run}", f"--output={root}/shipped/small"]
    assert export.main([*given, "--dtype=float16", "--without=modules"]) == 0
    return root / "shipped"


@pytest.fixture
def folder(root, tmp_path, monkeypatch) -> str:
    """Its folder; the working folder is another one, and no model is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("F3TOK_MODEL", raising=False)
    monkeypatch.setattr(shipped, "root", lambda: root)
    return str(root / "small")


def test_it_does_all_that_f3tok_does(folder, tmp_path, capsys):
    waveform = 0.1 * np.random.default_rng(0).normal(size=5_000)
    soundfile.write("a.wav", waveform, 16_000)
    assert cli.main(["info"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["stage"]) == (folder, "generation")
    for command in (
        ["encode", "a.wav", "a.npz"],
        ["decode", "a.npz", "back.wav"],
        ["represent", "a.wav", "r.npz"],
        ["generate", "--text=ab", "--output=out.wav", "--max_seconds=0.4"],
    ):
        assert cli.main(command) == 0, command
    assert soundfile.info("back.wav").frames == 5_000 and soundfile.info("out.wav").frames > 0
    capsys.readouterr()
    texts = []
    for more in ([], ["--model=small"], [f"--model={folder}"]):
        assert cli.main(["transcribe", "a.wav", *more]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0].strip() and len({*texts}) == 1
    opened = tokenizer_lib.F3Tokenizer.from_pretrained("small")
    assert opened.run.workdir == folder and opened.fingerprint == said["fingerprint"]


def test_what_is_named_and_what_lies_here_goes_before_it(folder, tmp_path, monkeypatch):
    for stage in model_folder.STAGES:
        assert model_folder.find(None, stage) == model_folder.find("small", stage) == folder
    tiny_models.write_run(tmp_path / "mine")
    monkeypatch.setenv("F3TOK_MODEL", "mine")
    assert model_folder.find(None, "autoencoder") == "mine"
    assert model_folder.find("small", "autoencoder") == folder
    # As files go before names elsewhere, too: what is in the way is said, not passed over.
    tiny_models.write_run(tmp_path / "small")
    assert model_folder.find("small", "autoencoder") == "small"
    assert model_folder.read("small").workdir == "small"
    (tmp_path / "small").rename(tmp_path / "other")
    (tmp_path / "small").mkdir()
    with pytest.raises(ValueError, match="got small, which is a folder without config.json"):
        model_folder.find("small", "autoencoder")
    monkeypatch.setenv("F3TOK_MODEL", "tiny")
    with pytest.raises(ValueError, match="or small, which comes with the package, got tiny, which"):
        model_folder.find(None, "autoencoder")


def test_what_it_cannot_do_the_demos_runs_may(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("F3TOK_MODEL", raising=False)
    monkeypatch.setattr(shipped, "root", lambda: tmp_path / "shipped")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    tiny_models.write_run(tmp_path / "runs" / "demo" / "autoencoder")
    assert model_folder.find(None, "autoencoder") == "runs/demo/autoencoder"
    run = lineage.Lineage.read(str(tmp_path / "runs" / "demo" / "autoencoder"))
    torch_folder.write(run, tmp_path / "shipped" / "small", modules=False)
    assert model_folder.find(None, "autoencoder") == str(tmp_path / "shipped" / "small")
    words = (
        "must name a run of the representation or generation stage, got none, and neither the pack"
    )
    with pytest.raises(ValueError, match=words):
        model_folder.find(None, "representation")


def test_a_folder_without_modules_says_nothing_of_pytorch(folder):
    names = {path.name for path in pathlib.Path(folder).iterdir()}
    written = {
        "config.json",
        "fingerprints.json",
        "model.safetensors",
        "README.md",
        "tokenizer.json",
    }
    assert names == written
    card = pathlib.Path(folder, "README.md").read_text(encoding="utf-8")
    assert "torch" not in card.lower() and "transformers" not in card
    assert "f3tok transcribe speech.wav" in card


def _package_data() -> dict[str, list[str]]:
    """What setup.py says of it."""
    tree = ast.parse((_ROOT / "setup.py").read_text(encoding="utf-8"))
    (found,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "package_data"
    )
    return ast.literal_eval(found)


@pytest.mark.parametrize("whose", ["made here", "shipped"])
def test_what_is_shipped_is_whole_small_and_described(whose, root):
    ours = _OURS if whose == "shipped" else root / "small"
    if not ours.is_dir():
        pytest.skip(f"no weights lie in {ours.relative_to(_ROOT)}")
    files = [path for path in ours.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= _MAX_MB * 1e6
    # The modules in PyTorch are in the package already: export --without=modules.
    assert not [path for path in files if path.suffix == ".py"]
    written = exported_config.read(ours)
    reads_text = exported_config.stages(written)[-1] != "autoencoder"
    assert bool(exported_config.answers(written)) == reads_text
    assert (ours / "tokenizer.json").is_file() == reads_text
    assert (ours / "README.md").read_text(encoding="utf-8").startswith("---\n")
    patterns = _package_data()["f3tok_jax"]
    for path in files:
        inside = path.relative_to(ours.parents[1])
        assert any(inside.match(pattern) for pattern in patterns), inside


def test_what_is_shipped_has_not_heard_what_the_main_job_lets_it_hear():
    card = (_OURS / "README.md").read_text(encoding="utf-8")
    heard = re.findall(r"from: embedded ([a-z ]*)(?:seed (\d+))?;", card)
    (of_main_job,) = re.findall(
        r"^DEMO_SEED=(\d+) ", (_ROOT / "launch" / "local.sh").read_text(), re.M
    )
    # Cards said no seed before 2026-11-28; that of build_shards without --seed is 0.
    assert heard and of_main_job not in {seed or "0" for _, seed in heard}


def test_it_is_in_a_wheel_and_in_what_wheels_are_built_of(root, tmp_path):
    pytest.importorskip("setuptools", reason="packages are built by setuptools")
    tree = tmp_path / "tree"
    (tree / "f3tok_jax" / "shipped" / "small").mkdir(parents=True)
    (tree / "f3tok_jax" / "__init__.py").touch()
    for name in ("setup.py", "README.md"):
        (tree / name).write_bytes((_ROOT / name).read_bytes())
    names = {f"f3tok_jax/shipped/small/{path.name}" for path in (root / "small").iterdir()}
    for name in names:
        (tree / name).write_bytes((root / "small" / pathlib.Path(name).name).read_bytes())
    command = [sys.executable, "setup.py", "--quiet", "sdist", "bdist_wheel"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,), (source,) = (tree / "dist").glob("*.whl"), (tree / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        assert names <= set(archive.namelist())
    with tarfile.open(source) as archive:
        assert names <= {name.partition("/")[2] for name in archive.getnames()}
