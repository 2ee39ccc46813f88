"""Graph and adversarial regularization together, whichever wraps the other."""

import keras
import numpy as np
import pytest

import nsl
from nsl.keras.passes import Passes
from tests.keras.adversarial_regularization_test import DictBatches
from tests.keras.contract import ProcessContract, StepContract
from tests.keras.contract.base import X, Y, assert_weights_equal, mlp
from tests.keras.contract.metrics import MetricsContract
from tests.keras.contract.saving import SavingContract
from tests.keras.graph_regularization_test import neighbors_of

TERMS = ("scaled_graph_loss", "scaled_adversarial_loss")


def graph(base):
    config = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.3)
    return nsl.keras.GraphRegularization(base, config)


def adversarial(base):
    config = nsl.configs.make_adv_reg_config(
        multiplier=0.5, adv_step_size=0.2, adv_grad_norm="infinity"
    )
    return nsl.keras.AdversarialRegularization(base, adv_config=config)


def compiled(inner, outer, **compile_args):
    model = outer(inner(mlp()))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **compile_args)
    return model


class TestContract(StepContract, MetricsContract, SavingContract, ProcessContract):
    """Adversarial around graph, the documented way.

    The rest of being a model is tested for each wrapper alone. The graph wrapper's own
    tests leave out what is tested here.
    """

    term_metric = "scaled_adversarial_loss"
    further_metrics = ("scaled_graph_loss",)
    term_in_evaluation = True
    training_passes = 3
    term_is_weighted = True

    def wrap(self, base):
        return adversarial(graph(base))

    def training_x(self, x):
        return neighbors_of(x, 2)


ORDERS = pytest.mark.parametrize(
    ("inner", "outer"), [(graph, adversarial), (adversarial, graph)]
)


@ORDERS
def test_loss_is_the_sum_of_all_terms(inner, outer):
    batch = neighbors_of({"x": X}, 2)
    logs = compiled(inner, outer).train_on_batch(batch, Y, return_dict=True)
    alone = [
        compiled(wrap, lambda model: model, run_eagerly=True).train_on_batch(
            x, Y, return_dict=True
        )
        for wrap, x in ((graph, batch), (adversarial, {"x": X}))
    ]
    for log, term in zip(alone, TERMS, strict=True):
        assert logs[term] == pytest.approx(log[term], rel=1e-5)
    labeled = alone[0]["loss"] - alone[0][TERMS[0]]
    total = labeled + sum(logs[term] for term in TERMS)
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_order_makes_no_difference():
    weights = []
    for inner, outer in ((graph, adversarial), (adversarial, graph)):
        model = compiled(inner, outer)
        model.fit(neighbors_of({"x": X}, 2), Y, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    assert_weights_equal(*weights)


@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": True}])
def test_modes_of_the_other_order(mode):
    weights = []
    for settings in ({}, mode):
        model = compiled(adversarial, graph, **settings)
        model.fit(neighbors_of({"x": X}, 2), Y, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    assert_weights_equal(*weights, 1e-5)


@ORDERS
def test_prediction_evaluation_and_saving(inner, outer, tmp_path):
    model = compiled(inner, outer)
    model.fit(neighbors_of({"x": X}, 2), Y, verbose=0)
    expected = model.predict(X, verbose=0)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "scaled_adversarial_loss"}
    keras.saving.save_model(model, tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    assert type(loaded) is type(model)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, rtol=1e-6)
    model.save(tmp_path / "base.keras")
    assert type(keras.saving.load_model(tmp_path / "base.keras")) is keras.Sequential


@ORDERS
def test_labels_in_the_dict(inner, outer):
    model = compiled(inner, outer)
    model.fit(neighbors_of({"x": X}, 2) | {"label": Y}, verbose=0, shuffle=False)
    expected = compiled(inner, outer)
    expected.fit(neighbors_of({"x": X}, 2), Y, verbose=0, shuffle=False)
    assert_weights_equal(model.get_weights(), expected.get_weights())
    assert np.isfinite(model.evaluate(DictBatches(), verbose=0)[0])


@pytest.mark.parametrize(
    ("objective", "at_layer"),
    [
        *((objective, False) for objective in nsl.configs.GraphObjective),
        (nsl.configs.GraphObjective.CONTRASTIVE, True),
    ],
)
def test_every_pass_is_done_once(objective, at_layer, monkeypatch):
    passes = []
    run_base = Passes.run_base

    def counted(self, x, training):
        passes.append((len(x["x"]), training))
        return run_base(self, x, training)

    base = mlp()
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=2,
        objective=objective,
        embedding_layer=base.layers[0].name if at_layer else None,
    )
    model = adversarial(nsl.keras.GraphRegularization(base, config))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    monkeypatch.setattr(Passes, "run_base", counted)
    batch = neighbors_of({"x": X}, 2)
    model.train_on_batch(batch, Y)
    passes.clear()
    logs = model.train_on_batch(batch, Y, return_dict=True)
    assert min(logs[term] for term in TERMS) > 0
    samples, attack = len(X), (len(X), True)
    if objective is nsl.configs.GraphObjective.CONSISTENCY:
        assert passes == [(samples, True), (2 * samples, False), attack]
    else:
        assert passes == [(3 * samples, True), attack]
