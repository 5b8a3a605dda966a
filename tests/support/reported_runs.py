# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Folders as runs leave them, written here, for reports to read."""

import json
import pathlib

import numpy as np
import soundfile

from f3tok_jax.evaluation import metrics

_ROWS = ("model", "model_alpha_0.5", "model_alpha_1", "pca", "mel_griffin_lim")
_CURVES = ("rq_loss/k1", "rq_loss/k2", "rq_accuracy/k1", "answer_loss", "answer_accuracy")


def _results(folder: pathlib.Path, level: float, *, num_clips: int, seconds: float) -> dict:
    def cell(value, undefined=None):
        return {
            "mean": value,
            "standard_error": 0.01,
            "count": 4 if not undefined else 3,
            "undefined": undefined or {},
        }

    rows = []
    for index, name in enumerate(_ROWS):
        shift = level if name.startswith("model") else 0.0
        rows.append(
            {
                "name": name,
                "title": name.replace("_", " "),
                "description": f"What {name} is.",
                "metrics": {
                    "mel_distance": cell(1.0 + index + shift),
                    "stoi": cell(
                        0.9 - 0.1 * index - shift, {"too short": 1} if index == 0 else None
                    ),
                },
            }
        )
    columns = {name: metrics.METRICS[name] for name in ("mel_distance", "stoi", "pesq")}
    return {
        "format": "f3tok evaluation 1",
        "step": 40,
        "num_examples": 4,
        "seconds": 2.0,
        "unreadable": [],
        "shards": {"path": "DIR/test", "fingerprint": "f", "sample_rate": 16_000},
        "missing": {"pesq": "not installed: pip install -e '.[eval]'"},
        "metrics": {
            name: {
                "title": m.title,
                "unit": m.unit,
                "higher_is_better": m.higher_is_better,
                "explanation": m.explanation,
            }
            for name, m in columns.items()
        },
        "rows": rows,
        "judged": {
            "num_examples": 4,
            "judges": {"ear": {"package": "earmold", "version": "1.2.3", "licence": "MIT"}},
            "absent": {"nose": "no nosemold: pip install nosemold"},
            "metrics": {
                f"ear/{name}": {
                    "title": f"ear {name}",
                    "unit": "",
                    "higher_is_better": True,
                    "explanation": f"What the ear says of {name}.",
                }
                for name in ("liking", "likeness")
            },
            "rows": [
                {"name": "recording", "title": "recording", "description": ""}
                | {"metrics": {"ear/liking": cell(4.875)}},
                {"name": "model", "title": "model", "description": ""}
                | {
                    "metrics": {
                        "ear/liking": cell(3.625, {"too quiet": 1}),
                        "ear/likeness": cell(0.8125),
                    }
                },
            ],
        },
        "listen": [
            {"key": f"digit <{7 + index}>", "files": _write_takes(folder, index, seconds)}
            for index in range(num_clips)
        ],
        "latents": {
            "rate": 25.0,
            "dim": 2,
            "num_frames": 50,
            "channel_mean": [0.1, -0.1],
            "channel_rms": [1.0, 0.9],
            "rms": 0.95,
            "effective_rank": 1.7,
        },
    }


def _write_takes(folder: pathlib.Path, index: int, seconds: float) -> dict[str, str]:
    """Noise and silence as the sounds of a clip; row -> file."""
    (folder / "listen" / "results").mkdir(parents=True, exist_ok=True)
    noise, files = np.random.default_rng(index).normal(size=round(16_000 * seconds)), {}
    noise[len(noise) // 2 :] = 0.0
    for place, name in enumerate(("original", *_ROWS)):
        path = folder / "listen" / "results" / f"{index:04d}_{name}.wav"
        soundfile.write(path, 0.1 / (1 + place) * noise, 16_000)
        files[name] = str(path.relative_to(folder))
    return files


def write_autoencoder(
    folder: pathlib.Path, *, level: float = 0.0, num_clips: int = 1, seconds: float = 0.25
) -> str:
    """An autoencoder's run that was evaluated on noise; `level` is told from that of another."""
    folder.mkdir(parents=True)
    config = {
        "stage": "autoencoder",
        "preset": "tiny",
        "num_steps": 40,
        "bottleneck": {"gamma": level},
        "model": {"sample_rate": 16_000, "note": "<script>alert(1)</script>"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    for step in range(2, 41, 2):
        lines.append(
            {
                "step": step,
                "train/mel": 9.0 - 0.1 * step + level,
                "time/seconds": 0.3 * step,
                "time/audio_seconds_per_second": 20.0,
                "train/name": "text",
                "train/broken": float("nan"),
            }
        )
    lines.append({"step": 40, "eval/mel": 5.0})
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4'
    )
    results = _results(folder, level, num_clips=num_clips, seconds=seconds)
    (folder / "results.json").write_text(json.dumps(results))
    for step in (20, 40):
        (folder / "samples" / f"{step:08d}").mkdir(parents=True)
        for name in ("reference", "reconstruction"):
            soundfile.write(
                folder / "samples" / f"{step:08d}" / f"0_{name}.wav", np.zeros(800), 16_000
            )
    return str(folder)


def probes(representations: float, **changes) -> dict:
    """What probe writes, of a label and two sets."""

    def row(accuracy):
        return {
            "linear": {"mean": accuracy, "std": 0.0125, "values": [accuracy]},
            "neighbours": accuracy - 0.01,
        }

    test = {
        "num_examples": 1234,
        "num_unseen": 7,
        "majority": 0.111,
        "features": {
            "log_mel": row(0.631),
            "latents": row(0.772),
            "representations": row(representations),
        },
    }
    points = {"x": [0.0, 1.0, 2.0, 0.5], "y": [0.0, 0.5, 0.0, -0.5], "shares": [0.5, 0.25]}
    return {
        "format": "f3tok probe 1",
        "exclude": ["speaker=<ada>"],
        "only": [],
        "pooling": "mean_std",
        "num_seeds": 5,
        "labels": {"digit": {"classes": ["0"], "tests": {"/data/set/test": test, "heldout": test}}},
        "map": {
            "labels": {"digit": ["<1>", "two", "<1>", ""]},
            "features": {"latents": points, "representations": points},
        },
    } | changes


def ablation() -> dict:
    """What ablation writes, of a label and a set."""
    accuracies = {"latents": 0.77, "full": 0.874, "without RQ-MTP": 0.862}
    rows = [
        {
            "name": name,
            "title": name,
            "linear": {"mean": accuracy, "std": 0.02, "values": [[accuracy]]},
            "neighbours": {"mean": accuracy - 0.1, "std": 0.03, "values": [[accuracy]]},
        }
        for name, accuracy in accuracies.items()
    ]
    test = {"num_examples": 99, "num_unseen": 0, "majority": 0.1, "rows": rows}
    return {
        "format": "f3tok ablation 1",
        "num_steps": 4000,
        "seeds": [0, 1],
        "arms": {"full": [], "without RQ-MTP": ["rq.weight=0.0"]},
        "exclude": [],
        "only": ["speaker=ada"],
        "pooling": "mean",
        "num_seeds": 5,
        "labels": {"digit": {"classes": ["0"], "tests": {"test": test}}},
        "transcripts": {"test": {"num_examples": 20, "rows": [_errors("full", 0.25)]}},
    }


def _errors(name: str, rate: float) -> dict:
    values = {"std": 0.01, "values": [rate]}
    return {"name": name, "characters": {"mean": rate, **values}, "words": {"mean": 0.5, **values}}


def write_representation(folder: pathlib.Path, accuracy: float, **files) -> str:
    """A representation run that was probed; `files` are contents of further ones, by their stem."""
    folder.mkdir(parents=True)
    config = {"stage": "representation", "preset": "tiny", "num_steps": 40, "rq": {"weight": 1.0}}
    (folder / "config.json").write_text(json.dumps(config))
    names = [*_CURVES, *(f"code_perplexity/{index}" for index in range(4))]
    lines = []
    for step in (20, 40):
        values = {f"train/{name}": 3.0 - step / 20 for name in names}
        lines.append({"step": step, **values, "time/seconds": 0.5 * step})
    lines.append({"step": 40, **{f"eval/{name}": 0.5 for name in names}})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    for name, content in {"probe": probes(accuracy), **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder)
