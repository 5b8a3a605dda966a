# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Probes of examples whose features are known: figures of sets and of groups, and their controls."""

import numpy as np
import pytest

from f3tok_jax.probing import features as features_lib
from f3tok_jax.probing import measurement
from f3tok_jax.probing import xares_probe


def _examples(count=60, seed=0, classes=3, speakers="ab", **labels):
    draw = np.random.default_rng(seed)
    values = draw.integers(0, classes, count)
    features = {
        "good": np.eye(8)[values] + 0.05 * draw.standard_normal((count, 8)),
        "bad": draw.standard_normal((count, 8)),
    }
    return features_lib.Examples(
        {name: array.astype(np.float32) for name, array in features.items()},
        [
            {"digit": str(value), "speaker": speakers[index % len(speakers)], **labels}
            for index, value in enumerate(values)
        ],
        [f"{seed}:{i}" for i in range(count)],
        [f"{seed} {i}" for i in range(count)],
    )


def test_every_feature_and_test_set_is_measured():
    tests = {"a": _examples(seed=1), "b": _examples(count=40, seed=2, classes=4)}
    found = measurement.measure(_examples(count=300), tests, "digit", seeds=range(3))
    assert found.classes == ["0", "1", "2"] and found.num_train == 300
    assert (found.alike, found.num_groups) == ("speaker", 2)
    first, second = found.tests["a"], found.tests["b"]
    assert first.features["good"].linear.mean > 0.99
    assert first.features["good"].neighbours > 0.99
    assert first.features["bad"].linear.mean < 0.6 and first.num_unseen == 0
    assert first.features["bad"].fit["gradient"] <= 1e-5 and first.chance == 1 / 3
    assert len(first.features["bad"].linear.values) == 1
    assert len(first.features["bad"].shuffled.values) == 3
    unseen = sum(labels["digit"] == "3" for labels in tests["b"].labels)
    assert second.num_unseen == unseen > 0 and second.unseen_classes == ["3"]
    assert second.features["good"].neighbours == pytest.approx(1 - unseen / 40)
    commonest = [labels["digit"] for labels in _examples(count=300).labels]
    commonest = max("012", key=commonest.count)
    share = np.mean([labels["digit"] == commonest for labels in tests["a"].labels])
    assert first.majority == pytest.approx(share)


def test_shuffled_labels_are_at_chance_where_the_features_tell_all():
    train, tests = _examples(count=300, classes=4), {"a": _examples(count=400, seed=1, classes=4)}
    found = measurement.measure(train, tests, "digit", seeds=range(8)).tests["a"]
    assert found.features["good"].linear.mean > 0.99
    # Whole classes are renamed at once: as few as there are, they are right or wrong together.
    assert abs(found.features["good"].shuffled.mean - found.chance) < 0.15
    assert abs(found.features["bad"].shuffled.mean - found.chance) < 0.04


def test_records_without_the_label_are_left_out():
    train = _examples(count=200)
    train.labels[:50] = [{}] * 50
    found = measurement.measure(train, {"a": _examples(seed=1)}, "digit", seeds=(0,))
    assert found.num_train == 150
    with pytest.raises(ValueError, match="label 'room' must have at least two values"):
        measurement.measure(train, {"a": _examples(seed=1)}, "room", seeds=(0,))
    with pytest.raises(ValueError, match="no record to test in a has the label 'digit'"):
        none = _examples().select([False] * 60)
        measurement.measure(train, {"a": none}, "digit", seeds=(0,))


def test_what_is_learnt_and_tested_is_refused():
    train = _examples(count=60)
    with pytest.raises(ValueError, match="60 of 60 records of a whose source is among"):
        measurement.measure(train, {"a": train}, "digit", seeds=(0,))
    # Another speaker under whose name the same sound lies.
    again = features_lib.Examples(
        train.features,
        [labels | {"speaker": "c"} for labels in train.labels],
        [f"again {source}" for source in train.sources],
        train.sounds,
    )
    both = features_lib.join([train, again])
    with pytest.raises(ValueError, match="whose sound is among"):
        measurement.measure(both, {"a": both}, "digit", seeds=(0,), leave_out="speaker")


def test_every_group_is_left_out_and_their_mean_and_spread_are_told():
    examples = _examples(count=240, speakers="abc")
    # What b says as "2" nobody else does.
    for labels in examples.labels:
        if labels["digit"] == "2" and labels["speaker"] != "b":
            labels["digit"] = "1"
    found = measurement.measure(
        examples, {"all": examples}, "digit", seeds=(0,), leave_out="speaker"
    )
    test = found.tests["all"]
    assert list(test.groups) == ["a", "b", "c"] and test.num_examples == 240
    twos = sum(labels["digit"] == "2" for labels in examples.labels)
    assert test.num_unseen == test.groups["b"].num_unseen == twos > 10
    assert test.unseen_classes == ["2"] and test.groups["a"].num_unseen == 0
    means = [one.features["good"].linear.mean for one in test.groups.values()]
    assert means[1] == pytest.approx(1 - twos / 80)
    good = test.features["good"]
    assert good.linear.mean == pytest.approx(np.mean(means))
    assert good.linear.std == pytest.approx(np.std(means)) and good.seeds_std is None
    assert good.neighbours == pytest.approx(
        np.mean([one.features["good"].neighbours for one in test.groups.values()])
    )
    assert found.alike == "speaker" and test.groups["a"].num_train == 160
    with pytest.raises(ValueError, match="--leave_out must be another label"):
        measurement.measure(examples, {"all": examples}, "digit", seeds=(0,), leave_out="digit")


def test_seeds_differ_beside_groups():
    examples = _examples(count=90, speakers="abc")
    recipe = xares_probe.Recipe(num_epochs=640, learning_rate=0.01)
    found = measurement.measure(
        examples, {"all": examples}, "digit", seeds=(0, 1), recipe=recipe, leave_out="speaker"
    )
    bad = found.tests["all"].features["bad"]
    assert np.shape(bad.linear.values) == (3, 2)
    assert bad.seeds_std == pytest.approx(np.std(bad.linear.values, axis=1).mean())


def test_the_most_epochs_that_any_probe_needs_are_told():
    def refused(needed):
        def work():
            raise xares_probe.Undertrained(xares_probe.Curve(10, 0.2, 0.5), needed)

        return work

    with pytest.raises(xares_probe.Undertrained, match="--num_epochs=80"):
        measurement.each({"a": refused(40), "b": refused(80), "c": lambda: 1, "d": refused(20)})
    with pytest.raises(xares_probe.Undertrained, match="--recipe=logistic"):
        measurement.each({"a": refused(40), "b": refused(None)})
    assert measurement.each({"c": lambda: 1}) == {"c": 1}
