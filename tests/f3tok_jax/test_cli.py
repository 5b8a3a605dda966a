# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""f3tok from its arguments to its files: one input, many and pipes; refusals before JAX."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import soundfile

from f3tok_jax import cli
from f3tok_jax.inference import shipped
from f3tok_jax.inference import tokenizer as tokenizer_lib
from tests.support import tiny_models
from tests.support import tiny_runs

_ROOT = pathlib.Path(__file__).parents[2]

# Runs f3tok with each of the lists of arguments, with no JAX to import, nor what imports it.
_WITHOUT_JAX = """
import json, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        unwanted = "jax", "jaxlib", "flax", "orbax", "tensorstore", "sequence_layers"
        assert name not in unwanted, f"{name} is imported"
sys.meta_path.insert(0, Finder())
from f3tok_jax import cli
from f3tok_jax.inference import shipped
shipped.names = lambda: []
for arguments in json.loads(sys.argv[1]):
    print(cli.main(arguments), flush=True)
"""


def _sound(path, *, count: int = 3_000, rate: int = 16_000, channels: int = 1) -> str:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    soundfile.write(path, 0.1 * rng.normal(size=(count, channels)), rate)
    return str(path)


def _without_jax(commands: list[list[str]]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_JAX, json.dumps(commands)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, without a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("F3TOK_MODEL", raising=False)
    monkeypatch.setattr(shipped, "names", lambda: [])
    return tmp_path


def test_what_is_wrong_with_a_command_is_said_before_jax_is_imported(folder):
    tiny_models.write_run(folder / "run")
    _sound("a.wav"), _sound("b.wav"), _sound("folder/c.wav")
    np.savez("there.npz", latents=0, fingerprint="")
    pathlib.Path("empty").mkdir()
    pathlib.Path("exported").mkdir()
    pathlib.Path("exported", "config.json").write_text(
        '{"model_type": "f3_tokenizer", "parts": ["encoder", "decoder"]}'
    )
    wrong = {
        "info": "--model must name a run of the autoencoder or representation or generation stage",
        "info --model=nowhere": "work folder of a run, or a bundle, got nowhere, which is no folder",
        "--model=nowhere encode a.wav a.npz": "got nowhere, which is no folder",
        "encode a.wav a.npz --model=gs://bucket/run": "needs the package 'gcsfs'",
        "transcribe a.wav --model=run": "of the representation or generation stage, got stage 'auto",
        "represent a.wav a.npz --model=exported": "or generation stage, got stage 'autoencoder'",
        "encode nowhere.wav a.npz": "nowhere.wav cannot be used: No such file or directory",
        "decode nowhere.npz a.wav": "nowhere.npz cannot be used: No such file or directory",
        "encode a.wav b.wav": "b.wav must end in .npz to hold latents",
        "represent a.wav b.wav": "b.wav must end in .npz to hold latents",
        "encode a.wav a.wav/a.npz": "must be a file in a folder that is there or can be made",
        "encode a.wav there.npz": "there.npz must be a new file, got one that exists",
        "decode there.npz there.npz": "there.npz must end in .wav or .flac or .ogg to hold sound",
        "decode there.npz a.wav": "a.wav must be a new file, got one that exists",
        "decode there.npz a.mp4": "a.mp4 must end in .wav or .flac or .ogg",
        "encode a.wav b.wav a.npz": "an input and an output are wanted, got 3 files",
        "encode folder a.npz": "folder must be a file, got a folder: give --output_dir",
        "encode empty --output_dir=out": "empty must hold sound, got nothing",
        "--model=run encode a.wav --output_dir=a.wav/out": "0 of 1 inputs done, 1 refused",
        "generate --output=a.mp4": "a.mp4 must end in .wav or .flac or .ogg",
        "generate --output=a.wav": "a.wav must be a new file, got one that exists",
        "generate --output=new.wav --prompt=nowhere.wav": "nowhere.wav cannot be used",
        "generate --output=a.wav --prompt=a.wav --force": "none of the files that are read",
    }
    before = sorted(folder.rglob("*"))
    done = _without_jax([line.split() for line in wrong])
    assert done.stdout.split() == ["1"] * len(wrong), done.stderr
    said = done.stderr.splitlines()
    refusal = said.pop(next(place for place, line in enumerate(said) if line.startswith("a.wav: ")))
    assert "can be made" in refusal
    for line, words in zip(said, wrong.values(), strict=True):
        assert words in line
    assert sorted(folder.rglob("*")) == before


def test_unknown_command_is_refused(capsys):
    assert cli.main(["compose"]) == 1
    assert "invalid choice" in capsys.readouterr().err


@pytest.fixture
def damaged(tmp_path):
    """A run folder whose newest checkpoint is damaged."""
    tiny_models.write_run(tmp_path / "run")
    tiny_models.add_damaged_step(tmp_path / "run")
    return tmp_path / "run"


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_used(damaged, capsys):
    _sound("in.wav")
    for arguments in (["encode", "in.wav", "out.npz"], ["decode", "out.npz", "new/out.wav"]):
        assert cli.main([*arguments, "--model", str(damaged)]) == 0
        assert "checkpoint of step 5 is refused" in capsys.readouterr().err
    assert soundfile.info("new/out.wav").frames == 3_000


def test_no_whole_checkpoint_is_one_sentence(damaged, capsys):
    shutil.rmtree(damaged / "checkpoints" / "3")
    _sound("in.wav")
    assert cli.main(["encode", "in.wav", "out.npz", "--model", str(damaged)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "no checkpoint asked for" in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Stage -> run folder; each is named as in runs/demo."""
    return tiny_runs.write_chain(tmp_path_factory.mktemp("chain"))


@pytest.mark.parametrize("stage", ["autoencoder", "generation"])
def test_what_a_model_is_its_files_say_without_jax(chain, stage):
    done = _without_jax([["info", f"--model={chain[stage]}"]])
    assert done.stdout.endswith("}\n0\n"), done.stderr
    run = tokenizer_lib.F3Tokenizer.from_pretrained(chain[stage])
    module = run.codec.autoencoder
    assert json.loads(done.stdout.removesuffix("0\n")) == dict(
        model=chain[stage],
        stage=stage,
        step=3,
        sample_rate=run.sample_rate,
        latent_rate=module.latent_rate,
        latent_dim=module.latent_dim,
        samples_per_latent=module.samples_per_latent,
        encoder_lookahead_samples=module.encoder_lookahead,
        decoder_lookahead_latents=module.decoder_lookahead,
        level_db=0.0,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(run.codec.params)),
        fingerprint=run.fingerprint,
    )


def _encode(model: str, folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    """Encodes a.wav to a.npz in a process that is told nothing of a cache but by `environment`."""
    told = {name: value for name, value in os.environ.items() if not name.startswith("JAX_P")}
    told.pop("JAX_COMPILATION_CACHE_DIR", None)
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "f3tok_jax.cli", f"--model={model}"]
        + ["encode", "a.wav", "a.npz", "--force"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**told, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT), **environment},
    )


def test_what_one_process_has_compiled_the_next_loads(chain, folder):
    _sound("a.wav")
    kept, made = [], []
    for _ in range(2):
        done = _encode(chain["autoencoder"], folder, XDG_CACHE_HOME=str(folder / "cache"))
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert lines == []
        # It takes as long as JAX to import, and no layer of ours asks for it.
        assert "| scipy.signal._" not in " ".join(done.stderr.split())
        kept.append({path.name for path in (folder / "cache/f3tok_jax/compilation").iterdir()})
        made.append(pathlib.Path("a.npz").read_bytes())
    assert kept[0] and kept[0] == kept[1] and made[0] == made[1]


def test_a_cache_that_cannot_be_used_is_said_and_costs_nothing_else(chain, folder):
    _sound("a.wav")
    pathlib.Path("file").touch()
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        done = _encode(chain["autoencoder"], folder, **{name: str(folder / "file")})
        said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert done.returncode == 0 and len(said) == 1, done.stderr
        assert said[0].startswith("compiled programs") and f"{folder}/file" in said[0]


def test_many_inputs_are_encoded_and_decoded_below_a_folder(chain, capsys):
    rates = {"ann/001.wav": 16_000, "ben/001.flac": 44_100, "ben/deep/002.ogg": 8_000}
    for name, rate in rates.items():
        _sound(f"in/{name}", rate=rate)
    pathlib.Path("in/ben/bad.wav").write_bytes(b"RIFF nonsense")
    pathlib.Path("in/notes.txt").touch()
    model = f"--model={chain['autoencoder']}"
    assert cli.main([model, "encode", "in", "nowhere.wav", "--output_dir=out"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    *refused, summary = captured.err.splitlines()
    assert [line.split()[0] for line in refused] == ["in/ben/bad.wav", "nowhere.wav"]
    assert summary == "3 of 5 inputs done, 2 refused; passed over: 1 .txt"
    # By itself a recording gives the same bytes.
    assert cli.main(["encode", "in/ann/001.wav", "one.npz", model]) == 0
    one = pathlib.Path("one.npz").read_bytes()
    assert pathlib.Path("out/in/ann/001.npz").read_bytes() == one
    pathlib.Path("out/in/other.npz").write_bytes(one[:300])
    capsys.readouterr()
    arguments = ["decode", "out/in", "--output_dir=back", "--format=flac", model]
    assert cli.main(arguments) == 1
    assert "out/in/other.npz must be an .npz that f3tok encode wrote" in capsys.readouterr().err
    for name, rate in rates.items():
        info = soundfile.info(pathlib.Path("back", name).with_suffix(".flac"))
        assert (info.frames, info.samplerate) == (3_000, rate)
    before = pathlib.Path("back/ann/001.flac").read_bytes()
    assert cli.main(arguments) == 1
    assert "0 of 4 inputs done, 4 refused" in capsys.readouterr().err
    assert cli.main([*arguments, "--force"]) == 1
    assert "3 of 4 inputs done, 1 refused" in capsys.readouterr().err
    assert pathlib.Path("back/ann/001.flac").read_bytes() == before


def test_other_weights_and_formats_that_cannot_hold_it_are_refused_by_name(chain, capsys):
    model = f"--model={chain['autoencoder']}"
    _sound("in/high.wav", rate=250_000), _sound("in/many.wav", channels=9)
    assert cli.main([model, "encode", "in", "--output_dir=out", "--channels=keep"]) == 0
    for ending, done in (("ogg", 1), ("flac", 1), ("wav", 2)):
        arguments = ["decode", "out", f"--output_dir={ending}", f"--format={ending}"]
        assert cli.main([model, *arguments]) == (done < 2)
        assert f"{done} of 2 inputs done" in capsys.readouterr().err
    tiny_models.write_run("other", seed=5)
    assert cli.main(["--model=other", "decode", "out", "--output_dir=back"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("out/high.npz: these latents were made by weights")
    assert not pathlib.Path("back").exists()


def test_one_model_serves_all_verbs(chain, tmp_path, monkeypatch, capsys):
    """The demo's generation run does all, and what it does is what its autoencoder does."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(pathlib.Path(chain["generation"]).parent)
    _sound("a.wav", count=9_000)
    assert cli.main(["info"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["model"], info["stage"]) == ("runs/demo/generation", "generation")
    assert cli.main(["encode", "a.wav", "a.npz"]) == 0
    assert cli.main(["encode", "a.wav", "b.npz", f"--model={chain['autoencoder']}"]) == 0
    assert pathlib.Path("a.npz").read_bytes() == pathlib.Path("b.npz").read_bytes()


def test_pipes_carry_the_result_and_nothing_else(chain, tmp_path, monkeypatch):
    _sound("a.wav", rate=22_050)
    model = f"--model={chain['autoencoder']}"
    assert cli.main([model, "encode", "a.wav", "a.npz"]) == 0
    assert cli.main([model, "decode", "a.npz", "back.wav"]) == 0
    f3tok = f"{sys.executable} -m f3tok_jax.cli {model}"
    done = subprocess.run(
        ["bash", "-c", f"cat a.wav | {f3tok} encode - - | tee piped.npz | {f3tok} decode - -"],
        env={**os.environ, "PYTHONPATH": str(_ROOT), "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert pathlib.Path("piped.npz").read_bytes() == pathlib.Path("a.npz").read_bytes()
    assert done.stdout == pathlib.Path("back.wav").read_bytes()


def test_a_pipe_is_named_where_it_is_refused(chain, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"PK nonsense")))
    assert cli.main(["decode", "-", "a.wav", f"--model={chain['autoencoder']}"]) == 1
    words = "f3tok: standard input must be an .npz that f3tok encode wrote"
    assert capsys.readouterr().err.startswith(words)
