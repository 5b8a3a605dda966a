# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run keeps of its environment, and what all its processes must have alike."""

import json

import jax
import ml_collections

from f3tok_jax.runs import code
from f3tok_jax.runs import environment

_CONFIG = ml_collections.ConfigDict(dict(stage="any", sizes=(1, 2), part=dict(rate=0.5)))


def test_the_environment_is_ready_for_json_and_says_what_decides_a_run(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_a=1")
    git = dict(commit="c", branch="b", dirty=True, diff="+a")
    monkeypatch.setattr(code, "provenance", lambda: git)
    said = environment.environment({"data.train": "5eed"})
    assert json.loads(json.dumps(said)) == said
    assert said["git"] == git and said["fingerprints"] == {"data.train": "5eed"}
    assert said["variables"]["LIBTPU_INIT_ARGS"] == "--xla_a=1"
    assert said["versions"]["jax"] == jax.__version__ and "libtpu" in said["versions"]
    assert said["devices"] == jax.device_count() and said["slices"] == 1
    assert all(len(digest) == 64 for digest in said["locks"].values()) and said["locks"]
    monkeypatch.setattr(code, "provenance", lambda: {})
    assert "git" not in environment.environment()


def test_the_facts_are_texts_of_versions_code_and_every_value_of_the_config(monkeypatch):
    facts = environment.facts(_CONFIG)
    assert all(isinstance(value, str) for value in facts.values())
    assert facts["config.part.rate"] == "0.5" and facts["config.sizes"] == "(1, 2)"
    assert facts["code"] == code.fingerprint() and facts["jax"] == jax.__version__
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=2")
    assert environment.facts(_CONFIG) == facts | {"XLA_FLAGS": "--xla_b=2"}
