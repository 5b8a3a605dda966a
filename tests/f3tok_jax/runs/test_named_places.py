# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a config names, and what of it the workers of a launch cannot read."""

import ml_collections
import pytest

from f3tok_jax.runs import named_places
from f3tok_jax.runs import places as places_lib


def _config(train="gs://b/train", heldout="", tokenizer="", parent="", folder="", weights=""):
    return ml_collections.ConfigDict(
        dict(
            stage="any",
            data=dict(train=train, heldout=heldout),
            tokenizer=tokenizer,
            autoencoder=dict(workdir=parent, step=0, recipe=dict(folder="no place")),
            language_model=dict(folder=folder),
            init_from=dict(workdir=weights, step=0),
        )
    )


def _places(**moved: str) -> places_lib.Places:
    return places_lib.Places(moved, ())


def test_all_that_is_named_is_found_where_the_mapping_says():
    config = _config("/d/a=0.5,gs://b/c=0.5", "tfds:x", "t.json", "/runs/a", "/m", "/runs/w")
    moved = places_lib.Places({"/runs": "gs://b/runs"}, ())
    assert named_places.of(config, moved) == [
        ("autoencoder.workdir", "gs://b/runs/a"),
        ("language_model.folder", "/m"),
        ("init_from.workdir", "gs://b/runs/w"),
        ("tokenizer", "t.json"),
        ("data.train", "/d/a"),
        ("data.train", "gs://b/c"),
    ]


@pytest.mark.parametrize(
    "named",
    [dict(train="shards/train=1,gs://b/c=1"), *(dict([(key, "shards/train")]) for key in
        ("train", "heldout", "tokenizer", "parent", "folder", "weights"))],
)  # fmt: skip
def test_what_is_on_this_machine_alone_is_refused_by_name(tmp_path, monkeypatch, named):
    (tmp_path / "shards" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"config\.\S+ must be .* got 'shards/train', which is on"):
        named_places.check_reachable(_config(**named), places_lib.Places(path=()))
    whole = {key: value.replace("shards", str(tmp_path / "shards")) for key, value in named.items()}
    for given in (named, whole):
        for folder in ("shards", "./shards/", tmp_path / "shards"):
            places = places_lib.Places(path=())
            named_places.check_reachable(_config(**given), places, staged=[str(folder)])


def test_what_may_be_on_a_disk_of_the_workers_is_said():
    said = []
    places = places_lib.Places(path=())
    named_places.check_reachable(_config("/mnt/train"), places, say=said.append)
    assert said == ["config.data.train: /mnt/train is not here; it must be on every worker"]
    with pytest.raises(ValueError, match="got 'mnt/train', which is not here: name its place in a"):
        named_places.check_reachable(_config("mnt/train"), places)
