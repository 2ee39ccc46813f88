"""What users of such tools run into, each with its right value."""

import copy
import gc
import os
import pickle
import runpy
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.attacks import FAB, FGSM, PGD, AutoPGD, HopSkipJump, Square
from nsl.attacks.model_adapter import kept_variables
from nsl.robustness import RobustnessReport, ShareRight, Within

EPSILON = 0.1
X = np.random.default_rng(0).random((100, 8)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
Y = (X @ KERNEL).argmax(1)
Y[:5] = (Y[:5] + 1) % 5


def _linear(dtype: str = "float32") -> keras.Model:
    layers = [keras.Input((8,), dtype=dtype), keras.layers.Dense(5, dtype=dtype)]
    model = keras.Sequential(layers)
    model.set_weights([KERNEL, np.zeros(5)])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return _linear()


def _distances(x: Any, y: Any = Y, columns: Any = 1.0) -> np.ndarray:
    """The way to the nearest other class, L-infinity; below 0 where it is wrong.

    A coordinate's way is divided by that of `columns`; where it is 0, it stays.
    """
    x, kernel = np.asarray(x, np.float64), KERNEL.astype(np.float64)
    logits = x @ kernel
    ways = np.full([len(x), 5], np.inf)
    for k in range(5):
        for i in np.flatnonzero(y != k):
            change = np.abs(kernel[:, y[i]] - kernel[:, k]) * columns
            ways[i, k] = (logits[i, y[i]] - logits[i, k]) / change.sum()
    return ways.min(axis=1)


def _check(report: RobustnessReport, distances: np.ndarray, reach: float) -> None:
    """Checks that an example stands where the boundary is out of reach, by 1%."""
    clear = (distances <= 0) | (np.abs(distances - reach) > 0.01 * reach)
    assert clear.mean() > 0.9
    stands = distances > reach
    np.testing.assert_array_equal(report.robust[0][clear], stands[clear])
    assert 0 < stands.mean() < (distances > 0).mean()


def _evaluate(model: Any, x: Any = X, y: Any = Y, **given: Any) -> RobustnessReport:
    arguments = {
        "epsilons": EPSILON,
        "attacks": [FAB(steps=5)],
        "check": False,
        "verbose": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nsl.robustness.RobustnessWarning)
        return nsl.evaluate_robustness(model, x, y, **{**arguments, **given})


def _names(report: RobustnessReport) -> list[str]:
    return [finding.name for finding in report.warnings]


def _fit(model: keras.Model, x: Any, y: Any, *callback: Any, **given: Any) -> Any:
    """Compiles and trains a model for an epoch, and returns the last metrics."""
    if not model.compiled:
        model.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    given = {"epochs": 1, "verbose": 0, "shuffle": False, **given}
    return model.fit(x, y, callbacks=list(callback), **given).history


def _robust_accuracy(x: Any = X, y: Any = Y, **given: Any) -> Any:
    arguments = {"epsilon": EPSILON, "attacks": [FGSM()]}
    return nsl.keras.callbacks.RobustAccuracy(x, y, **{**arguments, **given})


def _refused_at_the_beginning(model: keras.Model, x: Any, y: Any, callback: Any) -> str:
    """Returns the error of the callback, which must come before the first batch."""
    batches = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: batches.append(batch)
    )
    with pytest.raises(ValueError, match=r"\w") as caught:
        _fit(model, x, y, callback, watch)
    assert batches == []
    return str(caught.value)


# A1: dtypes.


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
)
def test_every_dtype_of_features_gives_what_float32_gives(
    model: keras.Model, dtype: Any
) -> None:
    x = X.astype(dtype)
    distances = _distances(x)
    report = _evaluate(model, x, check=dtype is ml_dtypes.bfloat16)
    _check(report, distances, EPSILON)


def test_a_float64_model_gives_what_a_float32_model_gives() -> None:
    report = _evaluate(_linear("float64"), X.astype(np.float64))
    _check(report, _distances(X), EPSILON)


def test_the_standard_suite_takes_what_numpy_makes_by_default(
    model: keras.Model,
) -> None:
    x, y = X.astype(np.float64)[:20], Y[:20]
    report = _evaluate(model, x, y, attacks="standard")
    _check(report, _distances(x, y), EPSILON)


# A2: what is given per example.


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("what", ["feature_mask", "bounds"])
def test_what_is_given_per_example_is_taken_apart_with_them(
    model: keras.Model, what: str, size: int | None
) -> None:
    free = (np.arange(100) % 2 == 0)[:, None]
    given: Any = free * np.ones((1, 8))
    if what == "bounds":
        given = (np.where(free, X - 1, X), np.where(free, X + 1, X))
    check = size is None
    report = _evaluate(model, batch_size=size, check=check, **{what: given})
    distances = _distances(X)
    distances = np.where(free[:, 0] | (distances < 0), distances, np.inf)
    _check(report, distances, EPSILON)


@pytest.mark.parametrize("what", ["feature_mask", "bounds"])
def test_the_callback_takes_what_is_given_per_example(what: str) -> None:
    model = _linear()
    model.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    given: Any = np.zeros((100, 8)) if what == "feature_mask" else (X, X)
    history = _fit(model, X, Y, _robust_accuracy(**{what: given}))
    assert history["robust_accuracy"] == [0.95]


# A3: state.


def _recurrent() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input(batch_shape=(10, 4, 2)),
        keras.layers.LSTM(3, stateful=True),
        keras.layers.Dense(3),
    ]
    return keras.Sequential(layers)


def test_evaluation_leaves_the_state_of_a_recurrent_model_alone() -> None:
    model = _recurrent()
    x = X.reshape(100, 4, 2)
    y = np.arange(100) % 3
    before = [v.numpy() for v in kept_variables(model)]
    assert [v.shape for v in before if v.dtype == np.float32] == [(10, 3)] * 2
    report = _evaluate(model, x, y, attacks="quick", check=True)
    assert "random_model" not in _names(report)
    assert "batch_dependent" not in _names(report)
    for variable, value in zip(kept_variables(model), before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_callback_leaves_the_state_of_a_recurrent_model_alone() -> None:
    x, y = X.reshape(100, 4, 2), np.arange(100) % 3
    ends = []
    for callbacks in ([], [_robust_accuracy(x[:20], y[:20])]):
        model = _recurrent()
        _fit(model, x, y, *callbacks, epochs=2, batch_size=10)
        ends.append([v.numpy() for v in [*model.weights, *kept_variables(model)]])
    for without, within in zip(*ends, strict=True):
        np.testing.assert_array_equal(without, within)


# A4: attacks are values.


def test_an_attack_that_has_run_is_pickled_and_copied(model: keras.Model) -> None:
    attack = PGD(steps=3, norm="l2")
    found = attack(model, X[:9], Y[:9], epsilon=0.2)
    for other in (pickle.loads(pickle.dumps(attack)), copy.deepcopy(attack)):
        assert other == attack
        again = other(model, X[:9], Y[:9], epsilon=0.2)
        np.testing.assert_array_equal(again, found)


# A5: what is compiled.


def test_losses_that_are_new_each_time_are_let_go(model: keras.Model) -> None:
    attack, kept = FGSM(), []
    for i in range(18):
        loss_fn = lambda y, outputs, i=i: outputs[:, i % 5]  # noqa: E731
        attack(model, X[:4], Y[:4], epsilon=0.1, loss_fn=loss_fn)
        kept.append(weakref.ref(loss_fn))
    del loss_fn
    gc.collect()
    assert sum(one() is not None for one in kept) <= 16 < len(kept)


# A6 and A8: labels.

ROWS = np.eye(5, dtype=int)[Y]
SEVERAL, NONE = ROWS.copy(), ROWS.copy()
SEVERAL[7, :2], NONE[8] = 1, 0
SEVERAL[7, 2:] = 0
OUT_OF_RANGE = np.where(np.arange(100) == 3, 5, Y)

WRONG_LABELS = [
    (SEVERAL, "row 7"),
    (NONE, "row 8"),
    (OUT_OF_RANGE, "example 3 has class 5"),
    (np.where(np.arange(100) == 4, -1, Y), "example 4 has class -1"),
    (Y + 5, "from 0 to 4"),
    (Y.astype(str), "Map the labels to integers"),
    (Y + 0.5, "y must be classes"),
]


@pytest.mark.parametrize(("y", "message"), WRONG_LABELS)
@pytest.mark.parametrize("check", [True, False])
def test_one_error_for_labels_before_anything_runs(
    model: keras.Model, y: Any, message: str, check: bool
) -> None:
    ran = []

    def attack(model: Any, x: Any, y: Any, **_: Any) -> Any:
        ran.append(1)
        return x

    with pytest.raises(ValueError, match=message) as evaluated:
        _evaluate(model, y=y, attacks=[attack], check=check)
    assert ran == []
    with pytest.raises(ValueError, match=message) as attacked:
        PGD(steps=5)(model, X, y, epsilon=0.1)
    assert str(attacked.value) == str(evaluated.value)


@pytest.mark.parametrize(("y", "message"), WRONG_LABELS)
def test_the_callback_gives_the_same_error_when_training_begins(
    y: Any, message: str
) -> None:
    told = _refused_at_the_beginning(_linear(), X, Y, _robust_accuracy(y=y))
    assert message in told


# A7: features that cannot be perturbed.


def test_integers_are_refused_with_the_explanation_of_attacks(
    model: keras.Model,
) -> None:
    x = (X * 255).astype(np.uint8)
    for check in (True, False):
        with pytest.raises(ValueError, match="Cast integers to float32"):
            _evaluate(model, x, check=check)
    told = _refused_at_the_beginning(_linear(), X, Y, _robust_accuracy(x))
    assert "Cast integers to float32" in told


# A9: one output that may be a logit or a probability.

BINARY_X = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
BINARY_Y = (np.arange(40) >= 10).astype(int)


def _logit(x: Any) -> tf.Tensor:
    # From 0.25 to 0.75: as logits all are of the second class.
    return 0.5 + 0.25 * x


def test_what_the_data_does_not_settle_is_a_guess_and_said() -> None:
    report = _evaluate(_logit, BINARY_X, BINARY_Y, attacks=["fgsm"], check=True)
    assert "guessed_outputs" in _names(report)
    assert any("probabilities" in one for one in report.assumptions)
    assert "Assumed: The outputs are treated as probabilities" in str(report)
    given = _evaluate(
        _logit, BINARY_X, BINARY_Y, attacks=["fgsm"], from_logits=True, check=True
    )
    assert "guessed_outputs" not in _names(given)
    assert given.clean_accuracy == 0.75
    assert report.clean_accuracy == 0.75


def test_a_linear_last_layer_gives_a_logit() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[0.25]]), np.array([0.5])])
    report = _evaluate(model, BINARY_X, np.ones(40, int), attacks=["fgsm"], check=True)
    assert report.clean_accuracy == 1.0
    assert "guessed_outputs" not in _names(report)
    assert any("logits" in one for one in report.assumptions)


def test_a_sigmoid_gives_a_probability() -> None:
    layer = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.set_weights([np.array([[1.0]]), np.array([0.0])])
    y = (np.arange(40) >= 20).astype(int)
    report = _evaluate(model, BINARY_X, y, attacks=["fgsm"], check=True)
    assert report.clean_accuracy == 1.0
    assert "guessed_outputs" not in _names(report)
    assert any("probabilities" in one for one in report.assumptions)


# A10: no warning whose premise does not hold.


def test_where_one_column_may_move_nothing_is_said_of_huge_epsilons(
    model: keras.Model,
) -> None:
    mask = np.eye(8, dtype=np.float32)[0]
    report = _evaluate(
        model, feature_mask=mask, bounds=(0, 1), attacks="quick", check=True
    )
    assert _names(report) == []
    assert report.robust_accuracy[EPSILON] > 0.2


def test_where_an_example_cannot_become_another_nothing_is_said_either(
    model: keras.Model,
) -> None:
    for given in (
        {"bounds": (X - 0.05, X + 0.05)},
        {"bounds": (0.4, 0.6)},
        {"feature_mask": np.arange(100)[:, None] % 2 * np.ones((1, 8))},
    ):
        report = _evaluate(model, attacks="quick", **given, check=True)
        assert "robust_at_huge_epsilon" not in _names(report)


def test_columns_of_other_scales_are_no_sign_of_a_failing_attack() -> None:
    # The radius that reaches from any example to any other is that of the wide column,
    # thousands of times what changes the answer in the narrow one.
    random = np.random.default_rng(0)
    y = (np.arange(100) % 5 == 0).astype(int)
    narrow = np.where(y == 1, random.uniform(0, 0.005, 100), 0.015)
    x = np.stack([random.normal(0, 1000, 100), narrow], axis=1).astype(np.float32)

    def near_zero(x: Any) -> tf.Tensor:
        return tf.stack([tf.zeros_like(x[:, 1]), 1 - 100 * tf.abs(x[:, 1])], axis=1)

    epsilons = [np.array([1.0, 0.001], np.float32)]
    report = _evaluate(
        near_zero,
        x,
        y,
        epsilons=epsilons,
        attacks="quick",
        from_logits=True,
        check=True,
    )
    assert report.clean_accuracy == 1.0
    assert "robust_at_huge_epsilon" not in _names(report)


# A11: models that change.


class Switched(keras.Model):
    """Answers with the opposite once it is switched."""

    def __init__(self) -> None:
        super().__init__()
        self.sign = 1.0

    def call(self, x: Any) -> Any:
        return self.sign * keras.ops.concatenate([x[:, :1], -x[:, :1]], axis=1)


def test_a_model_with_another_attribute_is_attacked_as_it_is_now() -> None:
    model, attack = Switched(), FGSM()
    y = np.zeros(100, int)
    for sign in (1.0, -1.0):
        model.sign = sign
        found = attack(model, X, y, epsilon=0.1)
        np.testing.assert_allclose(found[:, 0] - X[:, 0], -0.1 * sign, atol=1e-6)
        report = _evaluate(model, X, y, attacks=[attack])
        assert report.clean_accuracy == (1.0 if sign > 0 else 0.0)


def test_a_model_with_another_layer_is_attacked_as_it_is_now() -> None:
    model, attack = _linear(), FGSM()
    y = (X @ KERNEL).argmax(1)
    before = attack(model, X, y, epsilon=0.1)
    layer = keras.layers.Dense(5, use_bias=False)
    model.add(layer)
    layer.set_weights([np.roll(np.eye(5, dtype=np.float32), 1, axis=1)])
    after = attack(model, X, y, epsilon=0.1)
    moved = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5, use_bias=False)])
    moved.set_weights([np.roll(KERNEL, 1, axis=1)])
    expected = attack(moved, X, y, epsilon=0.1)
    np.testing.assert_allclose(after, expected, atol=1e-6)
    assert np.abs(after - before).max() > 0.1


# A12: models and data in other forms.


def _in_batches() -> Iterator[Any]:
    for start in range(0, 100, 30):
        yield X[start : start + 30], Y[start : start + 30]


FORMS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "dataset": lambda: (tf.data.Dataset.from_tensor_slices((X, Y)).batch(30), None),
    "features": lambda: (tf.data.Dataset.from_tensor_slices(X).batch(30), Y),
    "generator": lambda: (_in_batches(), None),
    "list": lambda: (X.tolist(), Y.tolist()),
    "tensor": lambda: (tf.constant(X), tf.constant(Y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_features_in_every_form(model: keras.Model, form: str) -> None:
    x, y = FORMS[form]()
    report = _evaluate(model, x, y, check=form == "dataset")
    _check(report, _distances(X), EPSILON)


@pytest.mark.parametrize("form", FORMS)
def test_the_callback_takes_features_in_every_form(form: str) -> None:
    x, y = FORMS[form]()
    model = _linear()
    history = _fit(model, X, Y, _robust_accuracy(x, y), epochs=2)
    expected = _evaluate(model, attacks=[FGSM()], check=False)
    assert history["robust_accuracy"][-1] == expected.robust_accuracy[EPSILON]


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        (lambda z: {"a": -z, "b": z}, "b"),
        (lambda z: (-z, z), 1),
        (lambda z: [-z, z], -1),
        (lambda z: {"a": -z, "b": z}, lambda outputs: outputs["b"]),
    ],
)
def test_one_of_several_outputs(
    model: keras.Model, outputs: Callable[[Any], Any], chosen: Any
) -> None:
    def several(x: Any) -> Any:
        return outputs(model(x))

    report = _evaluate(several, output=chosen, check=callable(chosen))
    _check(report, _distances(X), EPSILON)
    found = FGSM()(several, X, Y, epsilon=0.1, output=chosen)
    np.testing.assert_array_equal(found, FGSM()(model, X, Y, epsilon=0.1))


def test_predict_stands_for_its_model(model: keras.Model) -> None:
    report = _evaluate(model.predict)
    _check(report, _distances(X), EPSILON)


def test_an_attack_within_a_graph_is_refused_clearly(model: keras.Model) -> None:
    attack = FGSM()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
    with pytest.raises(ValueError, match=r"cannot be called inside a tf\.function"):
        dataset.map(lambda x, y: (attack(model, x, y, epsilon=0.1), y))
    with pytest.raises(ValueError, match=r"cannot be called inside a tf\.function"):
        tf.function(lambda x: attack(model, x, epsilon=0.1))(tf.constant(X))


def test_the_callback_refuses_outputs_it_cannot_evaluate_when_training_begins() -> None:
    layers = [keras.Input((8,)), keras.layers.Reshape((2, 2, 2))]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    target = X.reshape(100, 2, 2, 2)
    told = _refused_at_the_beginning(model, X, target, _robust_accuracy())
    assert "must return one tensor of shape [batch, classes]" in told


# A13: a radius for each column.

COLUMNS = np.array([0.5, 0.0, 0.1, 0.1, 0.02, 0.3, 0.1, 0.05], np.float32)


def test_a_radius_for_each_column_of_an_array(model: keras.Model) -> None:
    report = _evaluate(model, epsilons=COLUMNS)
    _check(report, _distances(X, columns=COLUMNS), 1.0)


def test_a_radius_for_each_column_by_name(model: keras.Model) -> None:
    def table(x: Any) -> Any:
        return model(tf.concat([x["income"], x["age"]], axis=1))

    x = {"income": X[:, :6], "age": X[:, 6:]}
    epsilons = {"income": 0.1, "age": 0.4}
    columns = np.array([0.1] * 6 + [0.4] * 2)
    report = _evaluate(table, x, epsilons=epsilons, check=True)
    _check(report, _distances(X, columns=columns), 1.0)
    found = FAB(steps=5)(table, x, Y, epsilon=epsilons)
    assert np.abs(found["income"] - x["income"]).max() <= 0.1
    assert np.abs(found["age"] - x["age"]).max() <= 0.4
    assert np.abs(found["age"] - x["age"]).max() > 0.1


# A14: other tasks.


def test_regression_is_evaluated_by_a_tolerance() -> None:
    weights = KERNEL[:, 0]

    def predict(x: Any) -> tf.Tensor:
        return tf.linalg.matvec(x, tf.constant(weights))

    y = X @ weights + np.linspace(-0.9, 0.9, 100).astype(np.float32)
    report = _evaluate(
        predict, X, y, attacks=["pgd"], criterion=Within(1.0), check=True
    )
    errors = np.abs(y - X @ weights) + EPSILON * np.abs(weights).sum()
    np.testing.assert_array_equal(report.robust[0], errors <= 1.0)
    assert report.clean_accuracy == 1.0


def test_segmentation_is_evaluated_by_the_share_of_pixels() -> None:
    pixels = np.random.default_rng(2).normal(size=(20, 3, 3, 2)).astype(np.float32)
    y = pixels.argmax(-1)
    margin = np.abs(pixels[..., 0] - pixels[..., 1]).reshape(20, -1)
    epsilon = 0.3
    falls = (margin < 2 * epsilon).mean(axis=1) > 0.25
    report = _evaluate(
        tf.identity,
        pixels,
        y,
        epsilons=epsilon,
        attacks=["pgd"],
        criterion=ShareRight(0.75),
        check=True,
    )
    np.testing.assert_array_equal(report.robust[0], ~falls)
    assert 0 < falls.mean() < 1


def test_several_labels_are_evaluated_as_such_if_asked_for() -> None:
    x = X[:, :3]
    y = (x > 0.5).astype(int)

    def several(x: Any) -> tf.Tensor:
        return 4 * x - 2.0

    # Without a random start the label that is nearest to fall leads.
    attacks = [PGD(steps=5, random_start=False)]
    report = _evaluate(
        several, x, y, attacks=attacks, criterion="exact_match", check=True
    )
    ways = np.abs(x - 0.5)
    np.testing.assert_array_equal(report.robust[0], (ways > EPSILON).all(axis=1))
    each = _evaluate(several, x, y, attacks=["pgd"], criterion="per_label")
    assert list(each.parts) == [f"label {i}" for i in range(3)]
    for i, part in enumerate(each.parts.values()):
        np.testing.assert_array_equal(part.robust[0], ways[:, i] > EPSILON)
    np.testing.assert_array_equal(each.robust, report.robust)


def test_the_callback_evaluates_a_regression() -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([KERNEL[:, :1]])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = X @ KERNEL[:, :1] + np.linspace(-0.9, 0.9, 100)[:, None]
    history = _fit(model, X, y, _robust_accuracy(y=y, criterion=Within(1.0)))
    errors = np.abs(y - X @ KERNEL[:, :1])[:, 0] + EPSILON * np.abs(KERNEL[:, 0]).sum()
    assert history["robust_accuracy"] == [pytest.approx(np.mean(errors <= 1.0))]


# A15: models that give labels alone.


def test_labels_alone_are_attacked_by_decisions() -> None:
    def predict(x: np.ndarray) -> np.ndarray:
        return (np.asarray(x) @ KERNEL).argmax(axis=1)

    report = _evaluate(predict, X[:50], Y[:50], attacks="standard", check=True)
    assert list(report.results) == ["hopskipjump"]
    distances = _distances(X[:50], Y[:50])
    assert not report.robust[0][distances <= 0].any()
    assert report.robust[0][distances > EPSILON].all()
    # Nearly all of those that are clearly within reach.
    reach = (distances > 0) & (distances < 0.9 * EPSILON)
    assert reach.sum() > 10
    assert report.robust[0][reach].mean() < 0.1
    with pytest.raises(
        ValueError, match="needs scores, but the model outputs only class"
    ):
        _evaluate(predict, attacks="square")


def test_one_hot_rows_of_a_function_of_arrays_are_decisions() -> None:
    def one_hot(x: np.ndarray) -> np.ndarray:
        return np.eye(5)[(np.asarray(x) @ KERNEL).argmax(axis=1)]

    # So wide that all fall at once, for a search takes long.
    wide = {"epsilons": 1.0, "attacks": "quick", "check": False}
    report = _evaluate(one_hot, X[:9], Y[:9], **wide)
    assert list(report.results) == ["hopskipjump"]
    assert not report.robust.any()
    assert any("class labels, not scores" in one for one in report.assumptions)
    attack = HopSkipJump(steps=2, samples=20)
    found = attack(one_hot, X[:9], Y[:9], epsilon=0.1)
    assert np.abs(found.astype(np.float64) - X[:9]).max() <= 0.1


# A16: what is resumed.

SCRIPT = """
import sys
import numpy as np
import tensorflow as tf
import nsl

x = np.random.default_rng(0).random((8, 8)).astype("float32")
w = np.random.default_rng(1).normal(size=(8, 5)).astype("float32")


def model(x):
    return x @ tf.constant(w)


def objective(logits, labels, targets=None):
    return {factor} * nsl.attacks.objectives.margin(logits, labels, targets)


report = nsl.evaluate_robustness(
    model,
    x,
    (x @ w).argmax(1),
    0.1,
    attacks=[nsl.attacks.FGSM(objective=objective)],
    check=False,
    verbose=False,
    resume=sys.argv[1],
)
print(report.results["fgsm"].seconds, report.robust_accuracy)
"""


def test_a_function_as_objective_is_resumed_in_another_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, path = tmp_path / "script.py", str(tmp_path / "resume.json")
    script.write_text(SCRIPT.format(factor=1))
    root = str(Path(nsl.__file__).parent.parent)
    first = subprocess.run(
        [sys.executable, str(script), path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
    )
    monkeypatch.setattr(sys, "argv", ["script.py", path])
    runpy.run_path(str(script))
    # The very seconds of the first run.
    assert capsys.readouterr().out == first.stdout
    other = tmp_path / "other.py"
    other.write_text(SCRIPT.format(factor=2))
    with pytest.raises(ValueError, match=r"another evaluation\. Differences: attacks"):
        runpy.run_path(str(other))


class Mine:
    """An attack of the user's own, with settings."""

    def __init__(self, size: float) -> None:
        self.size = size

    def __call__(self, model: Any, x: Any, y: Any, *, epsilon: Any, **_: Any) -> Any:
        return x + np.float32(self.size * epsilon)


def test_an_attack_object_of_ones_own_is_resumed_if_it_has_the_same_settings(
    model: keras.Model, tmp_path: Path
) -> None:
    path = tmp_path / "resume.json"
    first = _evaluate(model, attacks=[Mine(0.5)], resume=path)
    assert _evaluate(model, attacks=[Mine(0.5)], resume=path) == first
    with pytest.raises(ValueError, match="Differences: attacks"):
        _evaluate(model, attacks=[Mine(1.0)], resume=path)


# Reports of users of other tools.


def test_an_overconfident_model_has_a_direction() -> None:
    """cleverhans#350: the gradient of the cross-entropy underflowed to zero."""
    inner, right = _linear(), (X @ KERNEL).argmax(1)
    sure = keras.Sequential([*inner.layers, keras.layers.Softmax()])
    expected = FGSM(objective="margin")(inner, X, right, epsilon=0.05)
    inner.set_weights([3e4 * KERNEL, np.zeros(5)])
    assert np.all(sure.predict(X, verbose=0).max(1) > 0.999999)
    found = FGSM()(sure, X, right, epsilon=0.05)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "zero_gradients" not in _names(_evaluate(sure, attacks="quick", check=True))


def test_a_lucky_draw_of_a_random_model_is_no_success() -> None:
    """auto-attack#104 and #105: one draw decided whether a point was good enough."""
    draw = tf.random.Generator.from_seed(1)

    def noisy(x: tf.Tensor) -> tf.Tensor:
        score = tf.reduce_sum(x, axis=1, keepdims=True)
        noise = 1.5 * draw.normal(tf.shape(score))
        return tf.concat([tf.zeros_like(score), score + noise], axis=1)

    x, y = np.full((400, 8), -0.15, np.float32), np.zeros(400, int)
    # The best points have score 2.4, which noise turns around in 5.5% of the draws.
    report = _evaluate(
        noisy, x, y, epsilons=0.45, attacks="rand", from_logits=True, check=False
    )
    deviation = np.sqrt(0.055 * 0.945 / 400)
    accuracy = report.robust_accuracy[0.45]
    assert accuracy == pytest.approx(0.055, abs=4 * deviation)
    # Stopping early, more than half of 20 draws must agree.
    attack = PGD(steps=20, samples=20, early_stop=True)
    found = attack(noisy, x, y, epsilon=0.45, from_logits=True)
    assert found.sum(axis=1).mean() > 0.0


def test_square_takes_examples_that_are_all_misclassified(model: keras.Model) -> None:
    """auto-attack#81: with nothing to search for, it failed."""
    wrong = ((X @ KERNEL).argmax(1) + 1) % 5
    report = _evaluate(model, X, wrong, attacks=["square-500"], bounds=(0, 1))
    assert report.clean_accuracy == report.robust_accuracy[EPSILON] == 0.0
    found = Square(steps=3)(model, X[:7], wrong[:7], epsilon=EPSILON, bounds=(0, 1))
    assert np.all(np.abs(found - X[:7]) <= EPSILON)


@pytest.mark.parametrize("attack", [FGSM, PGD, AutoPGD])
def test_a_mask_leaves_the_rest_the_whole_radius(attack: Any) -> None:
    """ART#710: steps were normalized before the mask, and so too short."""
    kernel = KERNEL[:, :1]
    y = (X @ kernel > 0).astype(int)[:, 0]
    mask = (np.arange(8) < 3).astype(np.float32)
    found = attack(norm="l2")(
        lambda x: x @ kernel, X, y, epsilon=0.2, feature_mask=mask, from_logits=True
    )
    gain = ((X - found) @ kernel)[:, 0] * (2 * y - 1)
    np.testing.assert_allclose(gain, 0.2 * np.linalg.norm(kernel[:3]), rtol=0.05)
