"""Programs printed in the announcement of NSL 1.4 run as they stand."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from nsl import configs

GRAPH_PROGRAM = """
import neural_structured_learning as nsl
base_model = tf.keras.Sequential(...)
graph_config = nsl.configs.GraphRegConfig(
    neighbor_config=nsl.configs.GraphNeighborConfig(max_neighbors=1))
graph_model = nsl.keras.GraphRegularization(base_model, graph_config)
graph_model.compile(optimizer='adam',
                    loss=tf.keras.losses.SparseCategoricalCrossentropy(), metrics=['accuracy'])
graph_model.fit(train_dataset, epochs=5)
graph_model.evaluate(test_dataset)
"""  # noqa: E501

ADVERSARIAL_PROGRAM = """
import neural_structured_learning as nsl
model = tf.keras.Sequential(...)
adv_config = nsl.configs.make_adv_reg_config(multiplier=0.2, adv_step_size=0.05)
adv_model = nsl.keras.AdversarialRegularization(model, adv_config=adv_config)
adv_model.compile(optimizer='adam', loss='sparse_categorical_crossentropy', metrics=['accuracy'])
adv_model.fit({'feature': x_train, 'label': y_train}, epochs=5)
adv_model.evaluate({'feature': x_test, 'label': y_test})
"""  # noqa: E501

CONFIG_IN_SECOND_PLACE = ADVERSARIAL_PROGRAM.replace(
    "AdversarialRegularization(model, adv_config=adv_config)",
    "AdversarialRegularization(model, adv_config)",
)


def _layers() -> list[Any]:
    return [
        tf.keras.Input((64,), name="feature"),
        tf.keras.layers.Dense(64, activation="relu"),
        tf.keras.layers.Dense(10, activation="softmax"),
    ]


def _run(program: str, package: str, data: dict[str, Any]) -> dict[str, Any]:
    """Runs a program with `...` filled in, and keeps what fit and evaluate return."""
    tf.keras.utils.set_random_seed(0)
    program = program.replace("neural_structured_learning", package)
    program = program.replace("(...)", "(layers)")
    program = program.replace("\nadv_model.fit", "\nhistory = adv_model.fit")
    program = program.replace("\ngraph_model.fit", "\nhistory = graph_model.fit")
    program = program.replace("\nadv_model.evaluate", "\nscores = adv_model.evaluate")
    program = program.replace(
        "\ngraph_model.evaluate", "\nscores = graph_model.evaluate"
    )
    namespace = {"tf": tf, "layers": _layers(), **data}
    exec(program, namespace)
    return namespace


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    split = train_test_split(images, labels, test_size=300, random_state=0)
    return dict(zip(("x_train", "x_test", "y_train", "y_test"), split, strict=True))


@pytest.fixture(scope="module")
def datasets(digits: dict[str, Any]) -> dict[str, tf.data.Dataset]:
    """Each training image with one neighbor: another image of its class."""
    x, y = digits["x_train"], digits["y_train"]
    order = np.argsort(y, kind="stable")
    neighbor = np.empty_like(order)
    neighbor[order] = np.roll(order, 1)
    features = {
        "feature": x,
        "NL_nbr_0_feature": x[neighbor],
        "NL_nbr_0_weight": (y == y[neighbor]).astype(np.float32)[:, np.newaxis],
    }
    test = ({"feature": digits["x_test"]}, digits["y_test"])
    return {
        "train_dataset": tf.data.Dataset.from_tensor_slices((features, y)).batch(32),
        "test_dataset": tf.data.Dataset.from_tensor_slices(test).batch(32),
    }


@pytest.mark.arithmetic
def test_graph_program(datasets: dict[str, tf.data.Dataset]) -> None:
    ran = _run(GRAPH_PROGRAM, "neural_structured_learning", datasets)
    losses = ran["history"].history
    assert set(losses) == {"accuracy", "loss", "scaled_graph_loss"}
    assert losses["loss"][-1] < 0.5 * losses["loss"][0]
    assert all(value > 0 for value in losses["scaled_graph_loss"])
    assert ran["scores"][1] > 0.85


@pytest.fixture(scope="module")
def adversarial_runs(digits: dict[str, Any]) -> list[dict[str, Any]]:
    """Both forms of the program, under the old name and under the new one."""
    return [
        _run(ADVERSARIAL_PROGRAM, "neural_structured_learning", digits),
        # `import nsl as nsl` is what the first line becomes.
        _run(CONFIG_IN_SECOND_PLACE, "nsl", digits),
    ]


@pytest.mark.arithmetic
def test_adversarial_program(
    adversarial_runs: list[dict[str, Any]], digits: dict[str, Any]
) -> None:
    ran = adversarial_runs[0]
    losses = ran["history"].history
    assert set(losses) == {"accuracy", "loss", "scaled_adversarial_loss"}
    assert losses["loss"][-1] < 0.5 * losses["loss"][0]
    assert ran["adv_model"].adv_config.multiplier == 0.2
    scores = ran["adv_model"].evaluate(
        digits["x_test"], digits["y_test"], verbose=0, return_dict=True
    )
    assert scores["accuracy"] > 0.85


def test_both_forms_of_the_adversarial_program_train_the_same(
    adversarial_runs: list[dict[str, Any]],
) -> None:
    first, second = (ran["history"].history for ran in adversarial_runs)
    assert first == second


@pytest.mark.parametrize("wrong", [7, None, configs.GraphRegConfig(), {"label": 1}])
def test_anything_else_in_second_place_is_told(wrong: Any) -> None:
    import nsl

    with pytest.raises(TypeError, match="label_keys"):
        nsl.keras.AdversarialRegularization(tf.keras.Sequential(_layers()), wrong)
