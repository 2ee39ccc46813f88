"""What a base model is called with."""

import keras
import pytest

from nsl.keras.base_model import input_names, to_base_inputs


def two_inputs(structure):
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    inputs = {"dict": {"first": a, "second": b}, "list": [b, a], "tuple": (a, b)}
    outputs = keras.layers.Add()([a, b])
    return keras.Model(inputs[structure], outputs)


@pytest.mark.parametrize(
    ("structure", "features", "expected"),
    [
        ("dict", {"second": 2, "first": 1, "more": 3}, {"first": 1, "second": 2}),
        ("list", {"a": 1, "b": 2}, [2, 1]),
        ("tuple", {"b": 2, "a": 1}, (1, 2)),
        ("list", [1, 2], [1, 2]),
        ("tuple", (1, 2), (1, 2)),
    ],
)
def test_dicts_are_matched_by_name(structure, features, expected):
    assert to_base_inputs(two_inputs(structure), features) == expected


def test_one_feature_needs_no_name():
    sequential = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    for model in (sequential, unbuilt):
        assert to_base_inputs(model, {"anything": 1}) == 1
        assert to_base_inputs(model, 1) == 1


def test_both_sides_of_a_mismatch_are_listed():
    with pytest.raises(KeyError, match=r"\['a', 'b'\].*\['a', 'c'\]"):
        to_base_inputs(two_inputs("list"), {"a": 1, "c": 2})


def test_no_features_at_all():
    model = keras.Sequential([keras.Input((1,), name="x"), keras.layers.Dense(1)])
    with pytest.raises(KeyError, match=r"takes the inputs \['.*'\].*features \[\]"):
        to_base_inputs(model, {})


def test_names():
    assert input_names(two_inputs("dict")) == ["first", "second"]
    assert input_names(two_inputs("list")) == ["b", "a"]
    assert input_names(keras.Sequential([keras.layers.Dense(1)])) == []
