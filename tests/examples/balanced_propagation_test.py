"""The graph loss of examples/balanced_propagation.py."""

import balanced_propagation
import keras
import numpy as np
import pytest

import nsl


def train_once(objective: str, balance: float) -> tuple[float, np.ndarray]:
    """Returns the graph loss of a batch and what the model then predicts."""
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(8, 5)) for name in ("x", "NL_nbr_0_x", "NL_nbr_1_x")}
    x["NL_nbr_0_weight"] = np.repeat([[1.0], [0.0]], 4, axis=0)
    x["NL_nbr_1_weight"] = np.tile([[0.5], [0.0]], (4, 1))
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [keras.Input((5,), name="x"), keras.layers.Dense(3, activation="softmax")]
    )
    base.set_weights([base.get_weights()[0], np.array([3.0, 0.0, 0.0])])
    graph_config = nsl.configs.make_graph_reg_config(
        max_neighbors=2, multiplier=1.0, objective=objective, temperature=0.4
    )
    model = nsl.keras.GraphRegularization(base, graph_config)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    weight = np.array([1, 0, 0, 0, 0, 0, 0, 0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balanced_propagation, "BALANCE", balance)
        logs = model.train_on_batch(x, np.zeros(8), weight, return_dict=True)
    return logs["scaled_graph_loss"], base(x["x"]).numpy()


def test_without_balance_it_is_the_objective_propagation() -> None:
    expected, _ = train_once("propagation", 0.0)
    actual, _ = train_once("balanced_propagation", 0.0)
    assert actual == pytest.approx(expected, rel=1e-4)


def test_balance_holds_a_class_back_that_all_samples_have() -> None:
    _, unbalanced = train_once("balanced_propagation", 0.0)
    _, balanced = train_once("balanced_propagation", 1.0)
    assert unbalanced[:, 0].mean() > balanced[:, 0].mean() + 0.02
