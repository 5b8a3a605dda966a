# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where moved runs are looked for, in which order, and what is said where they are not."""

import argparse
import json
import os
import re

import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import places as places_lib


def _tried(places, given, **options):
    """Every place that is tried, in order."""
    found = []

    def refuse(place):
        found.append(place)
        raise places_lib.Unfit("no run")

    with pytest.raises(ValueError, match=r"autoencoder 5eed, got .* by --map=.* in \$F3TOK_PATH"):
        places.find(given, refuse, sought="autoencoder 5eed", **options)
    return found


def _make(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")


def test_the_mapping_comes_first_then_the_runs_own_neighbours_then_the_rest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _make(tmp_path / "store", "b", "a", "autoencoder")
    (tmp_path / "store" / "no_run").mkdir()
    places = places_lib.Places({"old": "new", "old/runs": "/far"}, (str(tmp_path / "store"),))
    known = dict(run="here/generation", hint="../one/autoencoder", is_known=True)
    assert _tried(places, "old/runs/autoencoder", **known) == [
        "/far/autoencoder",  # the longer of two names
        "here/one/autoencoder",
        "old/runs/autoencoder",
        "here/autoencoder",
        f"{tmp_path}/store/autoencoder",
        f"{tmp_path}/store/a",
        f"{tmp_path}/store/b",
    ]
    # Of what nobody knows the fingerprint, a name is needed.
    assert _tried(places, "x/a") == ["x/a", f"{tmp_path}/store/a"]
    # What it maps may be said from the root on, and where the run's own folder says.
    places = places_lib.Places({f"{tmp_path}/here/one": "two"}, ())
    assert _tried(places, "x/a", **known)[0] == "two/autoencoder"
    assert places.mapped("here/one/a/b") == "two/a/b" and places.mapped("here/ones") == "here/ones"


def test_the_first_that_fits_is_taken_and_what_was_passed_over_is_named(tmp_path):
    places = places_lib.Places({}, ("/p", "/q"))

    def fits(place):
        if place == "/q/a":
            return 7
        raise places_lib.Unfit("fingerprint 1") if place == "/p/a" else ValueError("damaged")

    assert places.find("a", fits, sought="a", is_known=True) == 7
    message = "it, got b: damaged; /p/b: damaged; /q/b: damaged: give it back, say where .* by --map=b=PLACE"
    with pytest.raises(ValueError, match=message):
        places.find("b", fits, sought="it", is_known=True)
    # Where there is one place alone, it says itself what is wrong.
    with pytest.raises(ValueError, match="^damaged$"):
        places_lib.Places({}, ()).find("b", fits, sought="it")


@pytest.mark.parametrize(
    "place,folder,seen",
    [
        ("runs/a", "runs/b", "../a"),
        ("/x/a", "/x/y/b/", "../../a"),
        ("gs://bucket/runs/a", "gs://bucket/runs/b", "../a"),
        ("gs://bucket/a/", "gs://bucket/x/b", "../../a"),
        ("gs://other/a", "gs://bucket/b", "gs://other/a"),
        ("gs://bucket/a", "/x/b", "gs://bucket/a"),
    ],
)
def test_places_are_said_as_seen_from_a_folder(place, folder, seen):
    assert places_lib.relative(place, folder) == seen
    back = places_lib.joined(folder, seen)
    assert back == place.rstrip("/")
    assert places_lib.joined("gs://bucket/b", "../../../../a") == "gs://bucket/a"


def test_data_are_mapped_as_runs_are():
    places = places_lib.Places({"/data": "gs://bucket/data"}, ())
    for given, mapped in (
        ("/data/a", "gs://bucket/data/a"),
        ("/data/a=0.25,b=1", "gs://bucket/data/a=0.25,b=1.0"),
        ("", ""),
    ):
        assert places.mapped_mixture(given) == mapped
        assert places_lib.Places({}, ()).mapped_mixture(given) == given


def test_a_run_keeps_where_what_it_names_lies_as_seen_from_its_folder(tmp_path):
    workdir = str(tmp_path / "run")
    assert places_lib.kept(workdir) == {}
    places_lib.keep(workdir, {"b": str(tmp_path / "b"), "a": "gs://bucket/a"})
    assert places_lib.kept(workdir) == {"a": "gs://bucket/a", "b": "../b"}
    for text in ("{", "[]", "3", '{"b": 3}', "\xff", "[" * 10**5):
        (tmp_path / "run" / "places.json").write_bytes(text.encode("latin-1"))
        assert places_lib.kept(workdir) == {}
    (tmp_path / "run" / "places.json").unlink()
    os.mkfifo(tmp_path / "run" / "places.json")
    assert places_lib.kept(workdir) == {}


@pytest.mark.parametrize("hint", ["foo://a", "s3://a/b", "../" * 999 + "a", "x" * 9999, "a\0", "."])
def test_a_hint_that_leads_nowhere_is_passed_over(tmp_path, hint):
    _make(tmp_path, "autoencoder", "generation")
    (tmp_path / "generation" / "places.json").write_text(json.dumps({"a": hint}))

    def fits(place):
        if config_lib.exists(place) and place.endswith("/autoencoder"):
            return place
        raise places_lib.Unfit("no run")

    run = f"{tmp_path}/generation"
    options = dict(run=run, hint=places_lib.kept(run)["a"], sought="a", is_known=True)
    places = places_lib.Places({}, ("foo://b", f"{tmp_path}/generation/config.json"))
    assert places.find("x/autoencoder", fits, **options) == f"{tmp_path}/autoencoder"


def test_a_run_behind_a_link_has_the_neighbours_of_both_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _make(tmp_path, "disk/generation")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "disk" / "generation")
    known = dict(run="runs/link", hint="../one", is_known=True)
    assert _tried(places_lib.Places({}, ()), "x/autoencoder", **known) == [
        "runs/one",
        f"{tmp_path}/disk/one",
        "x/autoencoder",
        "runs/autoencoder",
        f"{tmp_path}/disk/autoencoder",
    ]


def test_the_longest_name_decides_however_it_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = places_lib.Places({str(tmp_path): "/p", "runs/a": "/a", "runs/": "/r/"}, ())
    assert places.mapped("runs/a/x") == "/a/x" and places.mapped(f"{tmp_path}/runs/a") == "/a"
    assert places.mapped("runs/b") == places.mapped("./runs/b/") == "/r/b"
    assert places.mapped("runs") == "/r" and places.mapped("other") == "/p/other"


def test_the_search_path_has_buckets(monkeypatch):
    monkeypatch.setenv("F3TOK_PATH", "/a:gs://b/c::s3://d:e")
    assert places_lib.Places().path == ("/a", "gs://b/c", "s3://d", "e")
    monkeypatch.delenv("F3TOK_PATH")
    assert places_lib.Places().path == ()


def test_the_flag_takes_pairs(tmp_path):
    parser = argparse.ArgumentParser(exit_on_error=False)
    places_lib.add_flag(parser.add_argument)
    assert parser.parse_args(["--map=a=b", "--map", "c=d=e"]).moved == [("a", "b"), ("c", "d=e")]
    # Of several signs that one divides behind which there is something.
    (tmp_path / "lr=1").mkdir()
    (given,) = parser.parse_args([f"--map=lr=0=x={tmp_path}/lr=1"]).moved
    assert given == ("lr=0=x", f"{tmp_path}/lr=1")
    for text in ("a", "=b", "a="):
        with pytest.raises(
            argparse.ArgumentError, match=re.escape(f"must be OLD=NEW, got {text!r}")
        ):
            parser.parse_args([f"--map={text}"])
