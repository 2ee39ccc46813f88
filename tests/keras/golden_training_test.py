"""Both wrappers train as NSL 1.4 did: losses by epoch and final weights."""

import json
import pathlib

import keras
import numpy as np
import pytest

import nsl

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
ADVERSARIAL_FIELDS = (
    "adv_grad_norm",
    "adv_step_size",
    "pgd_iterations",
    "pgd_epsilon",
    "multiplier",
)
GRAPH_FIELDS = (
    "distance_type",
    "sum_over_axis",
    "transform_fn",
    "max_neighbors",
    "multiplier",
)


def cases(name):
    content = json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
    return [pytest.param(case, id=str(i)) for i, case in enumerate(content)]


def base_model(inputs):
    weights = [np.array(value, "float32") for value in inputs["weights"]]
    model = keras.Sequential(
        [
            keras.Input((weights[0].shape[0],), name="feature"),
            keras.layers.Dense(len(weights[1]), activation=inputs["activation"]),
            keras.layers.Dense(len(weights[3])),
        ]
    )
    model.set_weights(weights)
    return model


def check_training(model, case, x, y, sample_weight=None):
    config, expected = case["config"], case["expected"]
    loss = config["loss"]
    if loss == "sparse_categorical_crossentropy":
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=config["from_logits"]
        )
    model.compile(keras.optimizers.SGD(config["learning_rate"]), loss)
    history = model.fit(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=config["batch_size"],
        epochs=config["epochs"],
        shuffle=config["shuffle"],
        verbose=0,
    ).history
    for name in set(expected) - {"final_weights"}:
        np.testing.assert_allclose(history[name], expected[name], atol=1e-5)
    weights = model.get_weights()
    for actual, final in zip(weights, expected["final_weights"], strict=True):
        np.testing.assert_allclose(actual, final, atol=1e-4)


@pytest.mark.arithmetic
@pytest.mark.parametrize("form", ["keras", "dict"])
@pytest.mark.parametrize("case", cases("adv_training"))
def test_adversarial_training(case, form):
    inputs = case["inputs"]
    config = nsl.configs.make_adv_reg_config(
        **{field: case["config"][field] for field in ADVERSARIAL_FIELDS}
    )
    x, y = np.array(inputs["x"], "float32"), np.array(inputs["y"])
    weight = inputs["sample_weight"]
    weight = None if weight is None else np.array(weight, "float32")
    key = "weight" if form == "dict" and weight is not None else None
    model = nsl.keras.AdversarialRegularization(
        base_model(inputs), sample_weight_key=key, adv_config=config
    )
    if form == "keras":
        check_training(model, case, x, y, weight)
    else:
        batch = {"feature": x, "label": y}
        check_training(model, case, batch | ({key: weight} if key else {}), None)


@pytest.mark.arithmetic
@pytest.mark.parametrize("case", cases("graph_training"))
def test_graph_training(case):
    inputs = case["inputs"]
    config = nsl.configs.make_graph_reg_config(
        **{field: case["config"][field] for field in GRAPH_FIELDS}
    )
    model = nsl.keras.GraphRegularization(base_model(inputs), config)
    x = {name: np.array(v, "float32") for name, v in inputs["features"].items()}
    check_training(model, case, x, np.array(inputs["y"]))
