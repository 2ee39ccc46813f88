"""RobustAccuracy: the metric, who can use it, wrapped models, state left alone."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nsl
from nsl.attacks import FGSM
from nsl.robustness.report import AttackResult, RobustnessReport

RNG = np.random.default_rng(0)
X = RNG.uniform(0.0, 1.0, (60, 6)).astype(np.float32)
Y = (X @ RNG.normal(size=(6, 3))).argmax(axis=1)


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    return model


def _compile(model: keras.Model) -> keras.Model:
    optimizer = keras.optimizers.Adam(0.05)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def _callback(**given: Any) -> nsl.keras.callbacks.RobustAccuracy:
    arguments = {"epsilon": 0.05, "attacks": [FGSM()], "bounds": (0.0, 1.0)}
    return nsl.keras.callbacks.RobustAccuracy(X[:30], Y[:30], **{**arguments, **given})


def test_starts_from_what_the_layer_returns_after_each_epoch() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, name="low"), keras.layers.Dense(3)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sample = {"epsilon": 0.05, "attacks": [FGSM()], "layer": "low"}
    callback = nsl.keras.callbacks.RobustAccuracy(X[:30], Y[:30], **sample)
    # Nothing but the layer changes, and with it all answers.
    turn = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.layers[0].kernel.assign(
            np.float32(-1) ** epoch * np.ones((6, 4), np.float32)
        )
    )
    expected = []

    def evaluate(epoch: int, logs: Any) -> None:
        report = nsl.evaluate_robustness(
            model, X[:30], Y[:30], 0.05, attacks=[FGSM()], layer="low", check=False
        )
        expected.append(report.robust_accuracy[0.05])

    check = keras.callbacks.LambdaCallback(on_epoch_end=evaluate)
    history = model.fit(
        X, Y, epochs=3, callbacks=[turn, callback, check], verbose=0
    ).history
    assert history["robust_accuracy"] == expected
    assert len(set(expected)) > 1


def test_logs_the_robust_accuracy_of_the_model_as_it_is_after_each_epoch() -> None:
    model = _compile(_model())
    expected = []

    def evaluate(epoch: int, logs: Any) -> None:
        report = nsl.evaluate_robustness(
            model, X[:30], Y[:30], 0.05, attacks=[FGSM()], bounds=(0, 1), check=False
        )
        expected.append(report.robust_accuracy[0.05])

    callback = _callback()
    check = keras.callbacks.LambdaCallback(on_epoch_end=evaluate)
    # From an epoch to the next, the answers become other ones.
    turn = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.layers[-1].bias.assign(
            10.0 * np.eye(3, dtype=np.float32)[epoch % 3]
        )
    )
    optimizer = keras.optimizers.SGD(0.0)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[turn, callback, check])
    assert history.history["robust_accuracy"] == expected
    # Each answers with one class, of which there are as many as of no other.
    assert len(set(expected)) > 1
    assert callback.report.clean_accuracy >= expected[-1]


def test_between_evaluations_the_last_value_is_repeated() -> None:
    model = _compile(_model())
    callback = _callback(every_epochs=3)
    reports = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: reports.append(callback.report)
    )
    history = model.fit(X, Y, epochs=6, verbose=0, callbacks=[callback, watch])
    # Epochs 0 and 3, and the last.
    changes = [reports[i] is not reports[i - 1] for i in range(1, 6)]
    assert changes == [False, False, True, False, True]
    assert history.history["robust_accuracy"] == [
        report.robust_accuracy[0.05] for report in reports
    ]


def test_model_checkpoint_keeps_the_best_model(tmp_path: Path) -> None:
    model = _compile(_model())
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}.keras"),
        monitor="robust_accuracy",
        mode="max",
        save_best_only=True,
    )
    callback = _callback()
    history = model.fit(X, Y, epochs=6, verbose=0, callbacks=[callback, checkpoint])
    values = history.history["robust_accuracy"]
    best = [i + 1 for i, v in enumerate(values) if v > max(values[:i], default=-1)]
    assert sorted(int(p.stem) for p in tmp_path.glob("*.keras")) == best


def test_early_stopping_after_it_stops() -> None:
    model = _compile(_model())
    callback = _callback(epsilon=1e-6, every_epochs=2)
    # No share improves on another by more than 1.
    stopping = keras.callbacks.EarlyStopping(
        monitor="robust_accuracy", mode="max", patience=4, min_delta=1.0
    )
    history = model.fit(X, Y, epochs=20, verbose=0, callbacks=[callback, stopping])
    assert len(history.history["robust_accuracy"]) == 5
    assert stopping.stopped_epoch == 4


@pytest.mark.parametrize("wrapper", ["adversarial", "graph"])
def test_wrapped_models(wrapper: str) -> None:
    base = _model()
    x: Any = X
    if wrapper == "adversarial":
        model = nsl.keras.AdversarialRegularization(base)
    else:
        inputs = {"a": keras.Input((6,), name="a")}
        base = keras.Model(inputs, base(inputs["a"]))
        config = nsl.configs.make_graph_reg_config(max_neighbors=1)
        model = nsl.keras.GraphRegularization(base, config)
        x = {"a": X, "NL_nbr_0_a": X[::-1], "NL_nbr_0_weight": np.ones((60, 1))}
    _compile(model)
    sample = {"a": X[:30]} if wrapper == "graph" else X[:30]
    callback = nsl.keras.callbacks.RobustAccuracy(
        sample, Y[:30], epsilon=0.05, attacks=[FGSM()], bounds=(0.0, 1.0)
    )
    history = model.fit(x, Y, epochs=2, verbose=0, callbacks=[callback])
    report = nsl.evaluate_robustness(
        base, sample, Y[:30], 0.05, attacks=[FGSM()], bounds=(0, 1), check=False
    )
    assert history.history["robust_accuracy"][-1] == report.robust_accuracy[0.05]


def test_training_goes_on_as_without_it() -> None:
    weights = []
    for callbacks in ([], [_callback()]):
        model = _compile(_model())
        model.fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)
        state = [*model.variables, *model.optimizer.variables]
        weights.append([v.numpy() for v in state])
    for without, within in zip(*weights, strict=True):
        np.testing.assert_array_equal(without, within)


def test_attacks_are_compiled_once() -> None:
    model = _compile(_model())
    traces = []

    class Traced(FGSM):
        def step(self, *args: Any) -> Any:
            traces.append(1)
            return super().step(*args)

    callback = _callback(attacks=[Traced()])
    watch = []
    counts = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: watch.append(len(traces))
    )
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[callback, counts])
    assert watch[0] > 0
    assert watch[-1] == watch[0]


@pytest.mark.parametrize("every", [0, -1])
def test_every_epochs_must_be_positive(every: int) -> None:
    with pytest.raises(ValueError, match="every_epochs must be at least 1"):
        _callback(every_epochs=every)


def _warnings_of(
    monkeypatch: pytest.MonkeyPatch, shares: list[tuple[float, float]], first: str
) -> list[str]:
    """What is warned of where accuracies after one step, and after all, are these."""

    class Evaluations:
        def __init__(self, **_: Any) -> None:
            self.left = iter(shares)

        def run(self) -> RobustnessReport:
            report = RobustnessReport("infinity", (0.1,), np.ones(100, bool))
            for name, share in zip((first, "pgd-10"), next(self.left), strict=True):
                robust = (np.arange(100) < 100 * share)[np.newaxis]
                report.results[name] = AttackResult(robust, [0.0], [1])
            return report

    module = "nsl.keras.callbacks.robust_accuracy.Evaluation"
    monkeypatch.setattr(module, Evaluations)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x, watch = np.zeros((2, 2)), nsl.keras.callbacks.RobustAccuracy([0], [0], 0.1)
        model.fit(x, x, epochs=len(shares), verbose=0, callbacks=[watch])
    return [str(one.message) for one in caught if "collapsed" in str(one.message)]


def test_a_collapse_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [(0.3, 0.2), (0.5, 0.4), (0.6, 0.1), (0.7, 0.0)]
    [message] = _warnings_of(monkeypatch, shares, "fgsm")
    assert "robust accuracy fell from 40.0% to 10.0%" in message
    assert "accuracy under FGSM went from 50.0% to 60.0%" in message


@pytest.mark.parametrize(
    ("shares", "first"),
    [
        ([(0.5, 0.4), (0.6, 0.35)], "fgsm"),  # No more than chance.
        ([(0.5, 0.4), (0.4, 0.1)], "fgsm"),  # Worse in every way.
        ([(0.5, 0.4), (0.6, 0.1)], "square"),  # Nothing is known of one step.
        ([(0.3, 0.2), (0.6, 0.5)], "fgsm"),
    ],
)
def test_anything_else_is_no_collapse(
    monkeypatch: pytest.MonkeyPatch, shares: list[tuple[float, float]], first: str
) -> None:
    assert not _warnings_of(monkeypatch, shares, first)
