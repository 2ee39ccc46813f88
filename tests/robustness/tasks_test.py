"""Tasks other than one class per example: what is right, and what is attacked."""

import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import nsl
from nsl.attacks import FGSM, PGD
from nsl.robustness import ExactMatch, RobustnessReport, ShareRight, Within
from nsl.robustness.tasks import Task

EPSILON = 0.1
RNG = np.random.default_rng(0)
X = RNG.random((40, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(6, 3)).astype(np.float32)
NORMS = {"infinity": 1, "l2": 2, "l1": np.inf}


def _evaluate(model: Any, x: Any, y: Any, **given: Any) -> RobustnessReport:
    arguments = {
        "epsilons": EPSILON,
        "attacks": [PGD(steps=5)],
        "check": False,
        "verbose": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nsl.robustness.RobustnessWarning)
        return nsl.evaluate_robustness(model, x, y, **{**arguments, **given})


def _keras(outputs: int, loss: Any, activation: Any = None, **given: Any) -> Any:
    layer = keras.layers.Dense(outputs, activation, use_bias=False, **given)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.set_weights([KERNEL[:, :outputs]])
    if loss is not None:
        model.compile(keras.optimizers.SGD(0.0), loss)
    return model


# Regression.


@given(
    st.floats(0.1, 3.0),
    st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
    st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
)
def test_within_is_the_largest_error(tolerance: float, a: Any, b: Any) -> None:
    y, outputs = [np.reshape(np.float32(v), (3, 2)) for v in (a, b)]
    criterion = Within(tolerance)
    errors = np.abs(outputs - y).max(axis=1)
    np.testing.assert_allclose(criterion.loss(y, outputs), errors / tolerance, 1e-5)
    clear = np.abs(errors - tolerance) > 1e-4
    np.testing.assert_array_equal(
        criterion(y, outputs).numpy()[clear], (errors <= tolerance)[clear]
    )


@pytest.mark.parametrize("norm", NORMS)
def test_the_largest_error_of_a_linear_regression(norm: str) -> None:
    """Within the ball it is |error| + epsilon |w|, in the dual norm."""
    model = _keras(1, None)
    y = (X @ KERNEL[:, 0] + np.linspace(-0.9, 0.9, 40)).astype(np.float32)
    worst = np.abs(y - X @ KERNEL[:, 0])
    worst += EPSILON * np.linalg.norm(KERNEL[:, 0], NORMS[norm])
    assert np.abs(worst - 1).min() > 1e-4
    for labels in (y, y[:, None]):
        report = _evaluate(
            model,
            X,
            labels,
            norm=norm,
            criterion=Within(1.0),
            attacks=[PGD(norm=norm, steps=10)],
        )
        assert report.clean_accuracy == 1.0
        np.testing.assert_array_equal(report.robust[0], worst <= 1)
        assert 0 < report.robust_accuracy[EPSILON] < 1


def test_several_targets_of_a_regression_have_to_be_within_jointly() -> None:
    """Each of two targets depends on a column of its own."""
    y = X[:, :2] + np.linspace(-0.9, 0.9, 80).reshape(2, 40).T.astype(np.float32)
    report = _evaluate(
        lambda x: x[:, :2],
        X,
        y,
        criterion=Within(0.95),
        attacks=[PGD(steps=3, random_start=False)],
    )
    errors = np.abs(y - X[:, :2]).max(axis=1)
    assert np.abs(errors + EPSILON - 0.95).min() > 1e-4
    np.testing.assert_array_equal(report.correct, errors <= 0.95)
    np.testing.assert_array_equal(report.robust[0], errors + EPSILON <= 0.95)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "log_cosh"])
def test_a_compiled_regression_is_evaluated_and_says_what_was_assumed(
    loss: str,
) -> None:
    model = _keras(1, loss)
    errors = np.linspace(-1, 1, 40)
    y = X @ KERNEL[:, :1] + errors[:, None]
    report = _evaluate(model, X, y)
    tolerance = 2 * np.sqrt(np.mean(errors**2))
    worst = np.abs(errors) + EPSILON * np.abs(KERNEL[:, 0]).sum()
    assert np.abs(worst - tolerance).min() > 1e-3
    np.testing.assert_array_equal(report.robust[0], worst <= tolerance)
    assert f"within {tolerance:.4g} of its label" in report.assumptions[0]
    assert "Assumed: The model was compiled with" in str(report)
    explicit = _evaluate(model, X, y, criterion=Within(tolerance))
    np.testing.assert_array_equal(explicit.robust, report.robust)
    assert not any("compiled" in one for one in explicit.assumptions)


def test_one_hot_labels_under_a_squared_error_are_classes() -> None:
    model = _keras(3, "mse")
    y = (X @ KERNEL).argmax(axis=1)
    report = _evaluate(model, X, np.eye(3)[y])
    expected = _evaluate(_keras(3, None), X, y)
    np.testing.assert_array_equal(report.robust, expected.robust)


# Segmentation and sequences.


@given(st.floats(0.05, 1.0), st.integers(0, 1000))
def test_share_right_counts_pixels(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, y = rng.normal(size=(5, 4, 3)), rng.integers(0, 3, (5, 4))
    criterion = ShareRight(share)
    right = (outputs.argmax(-1) == y).mean(axis=1)
    clear = np.abs(right - share) > 1e-6
    np.testing.assert_array_equal(
        criterion(y, outputs).numpy()[clear], (right >= share)[clear]
    )
    # Rises where a wrong class of a pixel does.
    wrong = np.eye(3)[(y + 1) % 3]
    more = criterion.loss(y, outputs + 100 * wrong)
    assert np.all(more.numpy() > criterion.loss(y, outputs).numpy())


@pytest.mark.parametrize("shape", [(2, 3, 2), (6, 2)])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_each_pixel_falls_by_itself(shape: Any, share: float) -> None:
    """Each pixel's classes have features of their own."""
    x = np.random.default_rng(1).normal(0, 0.5, (40, *shape)).astype(np.float32)
    y = x.argmax(-1)
    stands = np.abs(x[..., 0] - x[..., 1]).reshape(40, -1) > 2 * EPSILON
    assert np.abs(np.abs(x[..., 0] - x[..., 1]) - 2 * EPSILON).min() > 1e-5
    report = _evaluate(tf.identity, x, y, criterion=ShareRight(share))
    expected = stands.mean(axis=1) >= share
    np.testing.assert_array_equal(report.robust[0], expected)
    assert report.clean_accuracy == 1
    if share == 1.0:
        assert 0 < expected.mean() < 1


def test_a_compiled_sequence_model_is_evaluated_by_half_of_its_steps() -> None:
    model = keras.Sequential(
        [keras.Input((4, 6)), keras.layers.Dense(3, use_bias=False)]
    )
    model.set_weights([KERNEL])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(2).normal(size=(20, 4, 6)).astype(np.float32)
    y = (x @ KERNEL).argmax(-1)
    report = _evaluate(model, x, y)
    assert any("at least half of its pixels or steps" in a for a in report.assumptions)
    explicit = _evaluate(model, x, y, criterion=ShareRight(0.5))
    np.testing.assert_array_equal(report.robust, explicit.robust)
    assert report.clean_accuracy == 1.0


# Several labels.


def test_exact_match_and_its_loss() -> None:
    outputs = np.array([[0.9, 0.2], [0.4, 0.1], [0.7, 0.8]], np.float32)
    y = np.array([[1, 0], [1, 0], [1, 0]])
    criterion = ExactMatch(0.5)
    np.testing.assert_array_equal(criterion(y, outputs), [True, False, False])
    np.testing.assert_array_equal(ExactMatch(0.0)(y, outputs - 0.5), [1, 0, 0])
    # A smooth maximum of how far labels are on the wrong side, which rises with each.
    margins = np.array([[-0.4, -0.3], [0.1, -0.4], [-0.2, 0.3]])
    most = margins.max(axis=1)
    loss = criterion.loss(y, outputs).numpy()
    assert np.all(loss >= most)
    assert np.all(loss <= most + np.log(2) * np.abs(margins).mean(axis=1))
    x = tf.constant(outputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = criterion.loss(y, x)
    assert np.all(tape.gradient(loss, x) * (1 - 2 * y) > 0)


@pytest.mark.parametrize(
    ("criterion", "shape"),
    [(Within(1.0), (4, 1)), (ShareRight(0.5), (4, 3, 2)), (ExactMatch(), (4, 2))],
)
def test_what_is_no_number_is_never_right(criterion: Any, shape: Any) -> None:
    labels = np.zeros(shape[:-1] if isinstance(criterion, ShareRight) else shape, int)
    outputs = np.full(shape, np.nan, np.float32)
    task = Task(criterion.loss, criterion)
    np.testing.assert_array_equal(task.right(labels, outputs), [False] * 4)
    finite = np.zeros(shape, np.float32)
    np.testing.assert_array_equal(task.right(labels, finite), [True] * 4)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_each_label_by_itself_and_all_jointly(activation: Any) -> None:
    model = _keras(3, None, activation)
    logits = X @ KERNEL
    y = (logits > 0).astype(int)
    y[0, 0] = 1 - y[0, 0]
    ways = np.abs(logits) / np.abs(KERNEL).sum(axis=0)
    right = y == (logits > 0)
    stands = right & (ways > EPSILON)
    assert np.abs(ways - EPSILON).min() > 1e-5
    report = _evaluate(model, X, y, criterion="per_label")
    assert list(report.parts) == ["label 0", "label 1", "label 2"]
    for i, part in enumerate(report.parts.values()):
        np.testing.assert_array_equal(part.correct, right[:, i])
        np.testing.assert_array_equal(part.robust[0], stands[:, i])
    np.testing.assert_array_equal(report.robust[0], stands.all(axis=1))
    np.testing.assert_array_equal(report.correct, right.all(axis=1))
    assert RobustnessReport.from_json(report.to_json()) == report
    # Of all labels at once, an attack finds no more than there is.
    whole = _evaluate(model, X, y, criterion="exact_match")
    np.testing.assert_array_equal(whole.correct, report.correct)
    assert np.all(whole.robust >= report.robust)
    assert whole.robust_accuracy[EPSILON] < whole.clean_accuracy


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_compiled_model_of_several_labels_needs_all_of_them_right(
    from_logits: bool,
) -> None:
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    model = _keras(3, loss, None if from_logits else "sigmoid")
    y = (X @ KERNEL > 0).astype(int)
    report = _evaluate(model, X, y)
    assert report.clean_accuracy == 1.0
    threshold = "0" if from_logits else "0.5"
    assert any(
        f"all 3 labels are, with threshold {threshold}" in one
        for one in report.assumptions
    )
    explicit = _evaluate(model, X, y, criterion="exact_match")
    np.testing.assert_array_equal(report.robust, explicit.robust)


def test_several_labels_in_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"per_label.*the same shape"):
        _evaluate(_keras(3, None), X, np.zeros((40, 2), int), criterion="per_label")


# Several outputs.


def _two_outputs(x: Any) -> Any:
    return {"class": x @ tf.constant(KERNEL), "size": x[:, :1]}


CLASS = (X @ KERNEL).argmax(axis=1)
SIZE = X[:, :1] + np.linspace(-0.9, 0.9, 40)[:, None].astype(np.float32)


def test_several_outputs_are_evaluated_each_and_jointly() -> None:
    y = {"class": CLASS, "size": SIZE}
    report = _evaluate(
        _two_outputs, X, y, epsilons=[0.02, 0.1], criterion={"size": Within(0.95)}
    )
    assert sorted(report.parts) == ["class", "size"]
    alone = {
        "class": _evaluate(
            lambda x: x @ tf.constant(KERNEL), X, CLASS, epsilons=[0.02, 0.1]
        ),
        "size": _evaluate(
            lambda x: x[:, :1], X, SIZE, epsilons=[0.02, 0.1], criterion=Within(0.95)
        ),
    }
    for name, expected in alone.items():
        np.testing.assert_array_equal(report.parts[name].robust, expected.robust)
        np.testing.assert_array_equal(report.parts[name].correct, expected.correct)
    both = alone["class"].robust & alone["size"].robust
    np.testing.assert_array_equal(report.robust, both)
    assert both[1].mean() < alone["class"].robust[1].mean()
    assert "size alone (clean 100.0%)" in str(report)
    chosen = _evaluate(_two_outputs, X, CLASS, epsilons=[0.02, 0.1], output="class")
    np.testing.assert_array_equal(chosen.robust, alone["class"].robust)
    assert not chosen.parts


def test_outputs_that_keras_names_take_labels_by_name_or_in_order() -> None:
    first = keras.Input((6,))
    layers = [keras.layers.Dense(3, use_bias=False, name=n) for n in ("b", "a")]
    model = keras.Model(first, [layer(first) for layer in layers])
    model.set_weights([KERNEL, -KERNEL])
    other = (-X @ KERNEL).argmax(axis=1)
    by_name = _evaluate(model, X, {"a": other, "b": CLASS})
    in_order = _evaluate(model, X, [CLASS, other])
    for report in (by_name, in_order):
        assert report.clean_accuracy == 1.0
        assert set(report.parts) == {"a", "b"}
    np.testing.assert_array_equal(by_name.robust, in_order.robust)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ({"class": CLASS}, r"but has \['class'\]"),
        ({"class": CLASS, "weight": SIZE}, r"but has \['class', 'weight'\]"),
        (CLASS, "choose one with output="),
    ],
)
def test_labels_that_do_not_fit_the_outputs(y: Any, message: str) -> None:
    outputs = r"outputs are \['class', 'size'\]: y must have labels for each of them"
    with pytest.raises(ValueError, match=f"{outputs}.*{message}"):
        _evaluate(_two_outputs, X, y)


def test_a_part_that_cannot_be_evaluated_is_named() -> None:
    y = {"class": CLASS, "size": SIZE}
    with pytest.raises(ValueError, match=r"size|classes"):
        _evaluate(_two_outputs, X, y)


# A custom loss and a custom criterion.


def test_a_loss_and_a_criterion_of_ones_own() -> None:
    """The mean of three outputs has to stay below a limit."""
    weights = KERNEL.mean(axis=1)

    def loss(y: Any, outputs: Any) -> Any:
        return tf.reduce_mean(outputs, axis=1)

    def criterion(y: Any, outputs: Any) -> Any:
        return tf.reduce_mean(outputs, axis=1) < tf.cast(y, tf.float32)

    def model(x: Any) -> Any:
        return x @ tf.constant(KERNEL)

    y = (X @ weights + np.linspace(0.01, 0.5, 40)).astype(np.float32)
    report = _evaluate(model, X, y, loss=loss, criterion=criterion)
    worst = X @ weights + EPSILON * np.abs(weights).sum()
    np.testing.assert_array_equal(report.robust[0], worst < y)
    assert 0 < report.robust_accuracy[EPSILON] < 1
    with pytest.raises(ValueError, match="custom criterion needs a loss"):
        _evaluate(model, X, y, criterion=criterion)


def test_a_loss_of_ones_own_for_classes() -> None:
    def model(x: Any) -> Any:
        return x @ tf.constant(KERNEL)

    def loss(y: Any, outputs: Any) -> Any:
        return keras.losses.sparse_categorical_crossentropy(
            y, outputs, from_logits=True
        )

    report = _evaluate(model, X, CLASS, loss=loss)
    expected = _evaluate(model, X, CLASS)
    np.testing.assert_array_equal(report.robust, expected.robust)
    assert 0 < report.robust_accuracy[EPSILON] < 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"criterion": Within(0.1), "y": np.zeros((40, 4))}, "shape"),
        (
            {
                "criterion": lambda y, outputs: outputs > 0,
                "loss": lambda y, outputs: outputs[:, 0],
            },
            r"criterion must return one value per example, of shape \[40\]",
        ),
        (
            {
                "criterion": lambda y, outputs: outputs[:, 0] > 0,
                "loss": lambda y, outputs: tf.reduce_mean(outputs),
            },
            "one value per example",
        ),
        ({"criterion": "exactly"}, "'exact_match', 'per_label'.*'exactly'"),
        (
            {"criterion": Within(1.0), "attacks": ["fab-t"], "y": X[:, :3]},
            "nearest point of another class",
        ),
    ],
)
def test_tasks_that_do_not_fit(given: dict[str, Any], message: str) -> None:
    arguments = {"y": CLASS, **given}
    with pytest.raises((ValueError, TypeError), match=message):
        _evaluate(lambda x: x @ tf.constant(KERNEL), X, **arguments)


@pytest.mark.parametrize("suite", ["standard", "rand", "quick"])
def test_every_suite_has_attacks_of_a_loss(suite: str) -> None:
    y = (X @ KERNEL[:, :1] + np.linspace(-0.9, 0.9, 40)[:, None]).astype(np.float32)
    report = _evaluate(
        _keras(1, None), X[:8], y[:8], attacks=suite, criterion=Within(1.0)
    )
    worst = np.abs(y - X @ KERNEL[:, :1])[:8, 0] + EPSILON * np.abs(KERNEL[:, 0]).sum()
    np.testing.assert_array_equal(report.robust[0], worst <= 1)


# The same in the callback.

TASKS: dict[str, Any] = {
    "regression": (1, "mse", None, SIZE, {"criterion": Within(0.95)}),
    "compiled": (1, "mse", None, SIZE, {}),
    "labels": (
        3,
        "binary_crossentropy",
        "sigmoid",
        (X @ KERNEL > 0).astype(int),
        {"criterion": "per_label"},
    ),
    "classes": (3, "sparse_categorical_crossentropy", "softmax", CLASS, {}),
    "one_hot": (3, "categorical_crossentropy", "softmax", np.eye(3)[CLASS], {}),
}


@pytest.mark.parametrize("name", TASKS)
def test_robust_accuracy_of_each_task(name: str) -> None:
    outputs, loss, activation, y, given = TASKS[name]
    model = _keras(outputs, loss, activation)
    callback = nsl.keras.callbacks.RobustAccuracy(
        X, y, EPSILON, attacks=[FGSM()], **given
    )
    history = model.fit(X, y, verbose=0, epochs=2, callbacks=[callback])
    expected = _evaluate(model, X, y, attacks=[FGSM()], **given)
    assert history.history["robust_accuracy"] == [expected.robust_accuracy[EPSILON]] * 2
    assert callback.report.assumptions == expected.assumptions
    assert expected.clean_accuracy > 0


def test_robust_accuracy_of_several_outputs() -> None:
    first = keras.Input((6,))
    layers = [keras.layers.Dense(3, use_bias=False, name=n) for n in ("a", "b")]
    model = keras.Model(first, {layer.name: layer(first) for layer in layers})
    model.set_weights([KERNEL, KERNEL[:, ::-1]])
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), {"a": losses, "b": losses})
    y = {"a": CLASS, "b": 2 - CLASS}
    callback = nsl.keras.callbacks.RobustAccuracy(X, y, EPSILON, attacks=[FGSM()])
    history = model.fit(X, y, verbose=0, callbacks=[callback])
    alone = _evaluate(_keras(3, None), X, CLASS, attacks=[FGSM()])
    assert history.history["robust_accuracy"] == [alone.robust_accuracy[EPSILON]]
    assert set(callback.report.parts) == {"a", "b"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": CLASS + 3}, "y must be classes from 0 to 2"),
        ({"y": CLASS[:5]}, "one entry for each of the 40"),
        ({"x": X[:, :5]}, "(?i)shape"),
        ({"x": X.astype(int)}, "Cast integers"),
        ({"epsilon": -1.0}, "epsilons must be"),
        ({"epsilon": None}, "epsilons is needed"),
        ({"y": None}, "y is needed"),
        ({"attacks": "typo"}, "'typo', but the attacks"),
        ({"bounds": (1, 0)}, "low <= high"),
        ({"feature_mask": np.ones(5)}, "feature_mask"),
        ({"criterion": "typo"}, "'typo'"),
        ({"output": "typo"}, "output='typo' is not among"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_first_batch(
    given: dict[str, Any], message: str
) -> None:
    model = _keras(3, "sparse_categorical_crossentropy", "softmax")
    arguments = {"x": X, "y": CLASS, "epsilon": EPSILON, **given}
    callback = nsl.keras.callbacks.RobustAccuracy(**arguments)
    batches = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: batches.append(batch)
    )
    with pytest.raises(ValueError, match=message):
        model.fit(X, CLASS, verbose=0, callbacks=[callback, watch])
    assert batches == []
